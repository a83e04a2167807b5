//! QEMU's own port (QMP): what one does to a machine from outside, with a cable or a screwdriver.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long QEMU may take for an answer. It is a matter of milliseconds where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A conversation with one machine's QEMU.
pub struct Control {
    port: BufReader<UnixStream>,
}

impl Control {
    /// Connects, waiting for the socket to be there.
    pub fn wait(socket: &Path) -> Result<Self> {
        let until = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => return Err(error).with_context(|| socket.display().to_string()),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut control = Self { port: BufReader::new(stream) };
        control.next()?;
        control.ask("qmp_capabilities", json!({}))?;
        Ok(control)
    }

    /// One command and its answer. Events in between are not looked at.
    pub fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let sent = json!({ "execute": command, "arguments": arguments });
        writeln!(self.port.get_mut(), "{sent}").context("QEMU has ended")?;
        loop {
            let answer = self.next()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    fn next(&mut self) -> Result<Value> {
        let mut line = String::new();
        let length = self.port.read_line(&mut line).context("QEMU does not answer")?;
        if length == 0 {
            bail!("QEMU has ended");
        }
        serde_json::from_str(&line).with_context(|| format!("what QEMU said: {line}"))
    }
}
