//! An outlet with a switch, a machine of QEMU in it, and the machine's serial port as a terminal: to whoever runs the switch's
//! commands and reads the port, a board.

use crate::machine::{Machine, Running};
use crate::workshop::Bench;
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// How long the end of an outlet may take, in milliseconds.
const LOOK_AGAIN_MS: u8 = 200;
/// How long a cable waits for its reader, in milliseconds.
const ROOM_WITHIN_MS: u16 = 2000;

/// The switch: a program with one argument, `on` or `off`. NAME stands for the machine's.
const SWITCH: &str = r#"# Switches a machine: on or off.
cd "$(dirname "$0")" || exit 1
echo "$1" >NAME.asked
read -r said <NAME.done
[ "$said" = done ] || { echo "$said" >&2; exit 1; }
"#;

/// A serial cable: what is written to one end comes out of a terminal that stands for a serial device.
pub struct Cable {
    end: File,
    /// Held, so that it is there while nobody reads it.
    _device: OwnedFd,
}

impl Cable {
    /// One whose other end is this path.
    pub fn new(path: &Path) -> Result<Self> {
        let OpenptyResult { master, slave } = openpty(None, None)?;
        let device = fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd()))?;
        symlink(device, path).with_context(|| path.display().to_string())?;
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { end: File::from(master), _device: slave })
    }

    /// Sends bytes. Where nobody reads them, they are lost, as on a real one.
    pub fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Ok(sent) = self.end.write(bytes) {
                bytes = &bytes[sent..];
                continue;
            }
            let mut room = [PollFd::new(self.end.as_fd(), PollFlags::POLLOUT)];
            if !poll(&mut room, PollTimeout::from(ROOM_WITHIN_MS)).is_ok_and(|ready| ready > 0) {
                return;
            }
        }
    }
}

/// An outlet. Dropping it pulls the machine's plug.
pub struct Outlet {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Outlet {
    /// Puts a machine's plug in. It is switched by `sh NAME.switch on` and `off`, in the bench's folder, and its serial port
    /// is `NAME.tty` there.
    pub fn new(bench: &Bench, machine: Machine) -> Result<Self> {
        let path = |end: &str| bench.path(&format!("{}.{end}", machine.name));
        let [asked, done] = [path("asked"), path("done")].map(|path| fifo(&path));
        let (asked, done) = (asked?, done?);
        let cable = Cable::new(&path("tty"))?;
        fs::write(path("switch"), SWITCH.replace("NAME", &machine.name))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (until, bench) = (Arc::clone(&ended), bench.clone());
        let thread =
            std::thread::spawn(move || serve(&machine, &bench, asked, done, cable, &until));
        Ok(Self { ended, thread: Some(thread) })
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A pipe with a name. Both ends are held, so that opening it waits for nobody, and nobody's end is the end of it.
fn fifo(path: &PathBuf) -> Result<File> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).with_context(|| path.display().to_string())?;
    Ok(File::options().read(true).write(true).open(path)?)
}

/// A machine with power, and its end of the cable.
struct Powered {
    _machine: Running,
    port: UnixStream,
}

impl Powered {
    fn new(machine: &Machine, bench: &Bench) -> Result<Self> {
        let running = machine.start(bench)?;
        let port = UnixStream::connect(bench.path(&format!("{}.console", machine.name)))?;
        port.set_nonblocking(true)?;
        Ok(Self { _machine: running, port })
    }
}

fn serve(
    machine: &Machine,
    bench: &Bench,
    mut asked: File,
    mut done: File,
    mut cable: Cable,
    ended: &AtomicBool,
) {
    // QEMU ends with the thread that has started it.
    let mut powered: Option<Powered> = None;
    let mut bytes = [0; 4096];
    while !ended.load(Ordering::Relaxed) {
        let mut ready = vec![PollFd::new(asked.as_fd(), PollFlags::POLLIN)];
        ready.extend(powered.iter().map(|on| PollFd::new(on.port.as_fd(), PollFlags::POLLIN)));
        if poll(&mut ready, PollTimeout::from(LOOK_AGAIN_MS)).is_err() {
            continue;
        }
        let is_asked = ready[0].any() == Some(true);
        if let Some(on) = &mut powered
            && let Ok(length) = on.port.read(&mut bytes)
        {
            cable.send(&bytes[..length]);
        }
        if !is_asked {
            continue;
        }
        let Ok(length) = asked.read(&mut bytes) else { return };
        let said = match bytes[..length].trim_ascii() {
            b"on" if powered.is_some() => "done".to_owned(),
            b"on" => match Powered::new(machine, bench) {
                Ok(on) => {
                    powered = Some(on);
                    "done".to_owned()
                }
                Err(error) => format!("{error:#}").replace('\n', " "),
            },
            b"off" => {
                powered = None;
                "done".to_owned()
            }
            _ => "on or off".to_owned(),
        };
        if writeln!(done, "{said}").is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
