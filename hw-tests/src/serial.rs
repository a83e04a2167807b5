//! A shell on a machine's serial port (`hw-tests/shell.sh`): scripts in, what they said and their exit status out.

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is read without a line in it, in bytes: a machine that writes more than that has lost its mind.
const LINE_BYTES_MAX: usize = 16 << 20;

/// One shell. Scripts run one after the other.
pub struct Shell {
    port: UnixStream,
    read: Vec<u8>,
    scripts: u64,
}

/// What a script said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Both of its outputs, as they came.
    pub text: String,
    /// 0 if it says that it succeeded.
    pub status: i32,
}

impl Shell {
    /// Connects to the port's socket and waits until the shell is there, or `hangs` says that it will never be.
    pub fn wait(
        socket: &Path,
        patience: Duration,
        hangs: impl Fn() -> Result<bool>,
    ) -> Result<Self> {
        let port = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        port.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut shell = Self { port, read: Vec::new(), scripts: 0 };
        let until = Instant::now() + patience;
        // An empty line has it say that it is ready, if it was so before anybody listened.
        while Instant::now() < until {
            shell.port.write_all(b"\n")?;
            let soon = until.min(Instant::now() + Duration::from_secs(2));
            while let Some(line) = shell.line(soon)? {
                if line == "shell ready" {
                    return Ok(shell);
                }
            }
            if hangs()? {
                bail!("its kernel hangs");
            }
        }
        bail!("no shell on the serial port within {} s", patience.as_secs())
    }

    /// Runs a script to its end.
    pub fn run(&mut self, script: &str, patience: Duration) -> Result<Said> {
        self.scripts += 1;
        let word = format!("script-{}", self.scripts);
        let sent = format!("{word} {}\n", BASE64.encode(script.as_bytes()));
        self.port.write_all(sent.as_bytes()).context("the serial port is closed")?;
        let until = Instant::now() + patience;
        while let Some(line) = self.line(until)? {
            if let Some(answer) = line.strip_prefix(&word) {
                return parse(answer).with_context(|| format!("what came back for: {script}"));
            }
        }
        bail!("not done within {} s: {script}", patience.as_secs())
    }

    /// The next line, `None` if there was none in time.
    fn line(&mut self, until: Instant) -> Result<Option<String>> {
        let mut bytes = [0; 65536];
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            match self.port.read(&mut bytes) {
                Ok(0) => bail!("the machine has closed its serial port"),
                Ok(length) if self.read.len() + length > LINE_BYTES_MAX => {
                    bail!("a line of more than {LINE_BYTES_MAX} bytes on the serial port")
                }
                Ok(length) => self.read.extend_from_slice(&bytes[..length]),
                // A read that has a timeout is not taken up again by the kernel after a signal.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).context("the serial port"),
            }
        }
    }
}

/// An exit status and text in base64, which is left out where there is no text.
fn parse(answer: &str) -> Result<Said> {
    let (status, text) = answer.trim().split_once(' ').unwrap_or((answer.trim(), ""));
    let status = status.parse().with_context(|| format!("'{status}' is no exit status"))?;
    let text = BASE64.decode(text.as_bytes()).context("not base64")?;
    Ok(Said { text: String::from_utf8_lossy(&text).into_owned(), status })
}

#[cfg(test)]
mod tests;
