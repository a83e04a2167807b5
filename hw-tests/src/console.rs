//! What a board writes to its serial port: read all the time, and kept in a file.
//!
//! A port may come and go: one that the board itself powers is there only while it has power.

use crate::lab::Baud;
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{ControlFlags, SetArg, cfmakeraw, cfsetspeed, tcgetattr, tcsetattr};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a port may be quiet until it is looked at whether it is still wanted, in milliseconds.
const LOOK_AGAIN_MS: u8 = 100;
/// What is kept of a board that never stops writing, in bytes: an hour and a half at 115,200 baud.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// A port that is followed, until this is dropped.
pub struct Console {
    log: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread that reads and its owner tell each other.
struct Shared {
    ended: AtomicBool,
    /// Why the port is not open; `None`: it is.
    trouble: Mutex<Option<String>>,
}

impl Console {
    /// Follows the port at this path, from when it is there, and keeps what comes in a file.
    pub fn follow(port: &Path, baud: Baud, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let trouble = Mutex::new(Some("it was not opened yet".into()));
        let shared = Arc::new(Shared { ended: AtomicBool::new(false), trouble });
        let (its, port) = (Arc::clone(&shared), port.to_owned());
        let thread = std::thread::spawn(move || read(&port, baud, file, &its));
        Ok(Self { log: log.to_owned(), shared, thread: Some(thread) })
    }

    /// How many bytes have come.
    pub fn heard(&self) -> Result<u64> {
        Ok(fs::metadata(&self.log)?.len())
    }

    /// What came after so many bytes.
    pub fn since(&self, heard: u64) -> Result<Vec<u8>> {
        let mut bytes = fs::read(&self.log)?;
        Ok(bytes.split_off(bytes.len().min(heard as usize)))
    }

    /// Why the port is not open, if it is not.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Opens a serial device, raw and at this rate, or connects to a socket. Nothing is ever written to it.
pub fn open(path: &Path, baud: Baud) -> Result<File> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_socket() {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        return Ok(File::from(OwnedFd::from(stream)));
    }
    ensure!(kind.is_char_device(), "it is neither a serial device nor a socket");
    // Without a carrier, which boards do not have, it could not be opened; and it must not become our terminal.
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let port = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    match port.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // Each would have a part of what comes.
            ensure!(false, "another program reads it: end that first");
        }
        Err(TryLockError::Error(error)) => return Err(error).context("it cannot be locked"),
    }
    let mut settings = tcgetattr(&port).context("it has no settings of a serial port")?;
    cfmakeraw(&mut settings);
    cfsetspeed(&mut settings, baud.0)?;
    settings.control_flags.insert(ControlFlags::CLOCAL | ControlFlags::CREAD);
    // Three wires. And a board that is reset by DTR is not reset when this ends.
    settings.control_flags.remove(ControlFlags::CRTSCTS | ControlFlags::HUPCL);
    tcsetattr(&port, SetArg::TCSANOW, &settings).context("it does not take this baud rate")?;
    Ok(port)
}

/// Reads until it is told to end, and opens the port again whenever it was closed.
fn read(path: &Path, baud: Baud, mut log: File, shared: &Shared) {
    let say = |trouble| {
        *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    };
    while !shared.ended.load(Ordering::Relaxed) {
        let trouble = match open(path, baud) {
            Ok(port) => {
                say(None);
                match copy(port, &mut log, shared) {
                    Ok(()) => "it was closed".to_owned(),
                    Err(error) => format!("{error:#}"),
                }
            }
            Err(error) => format!("{error:#}"),
        };
        say(Some(trouble));
        std::thread::sleep(Duration::from_millis(LOOK_AGAIN_MS.into()));
    }
}

/// Copies what comes until the port is closed, or nobody wants it any more.
fn copy(mut port: File, log: &mut File, shared: &Shared) -> Result<()> {
    let mut bytes = [0; 4096];
    let mut kept = log.metadata()?.len();
    while !shared.ended.load(Ordering::Relaxed) {
        let mut asked = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
        match poll(&mut asked, PollTimeout::from(LOOK_AGAIN_MS)) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match port.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) if kept < LOG_BYTES_MAX => {
                log.write_all(&bytes[..length])?;
                kept += length as u64;
            }
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
