//! A switch between machines, on sockets of the bench: no frame leaves it, and no network of this machine is touched.

use crate::workshop::Bench;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The largest frame that QEMU sends: segments that its card puts together.
const FRAME_BYTES_MAX: usize = 65_600;
/// How long the end of a switch may take, in milliseconds.
const LOOK_AGAIN_MS: u8 = 200;

/// A switch that runs. Dropping it pulls all cables.
pub struct Switch {
    cables: Vec<String>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One socket of the switch, and the machine's end of the cable.
struct Port {
    socket: UnixDatagram,
    machine: PathBuf,
}

impl Switch {
    /// One with so many ports.
    pub fn new(bench: &Bench, ports: usize) -> Result<Self> {
        let (mut cables, mut all) = (Vec::new(), Vec::new());
        for number in 0..ports {
            let [machine, own] =
                ["machine", "port"].map(|end| bench.path(&format!("switch-{number}.{end}")));
            let socket = UnixDatagram::bind(&own).with_context(|| own.display().to_string())?;
            socket.set_nonblocking(true)?;
            cables.push(cable(&machine, &own));
            all.push(Port { socket, machine });
        }
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = std::thread::spawn(move || serve(&all, &until));
        Ok(Self { cables, ended, thread: Some(thread) })
    }

    /// The machine's end of the cable to a port, for [`Machine::cables`](crate::machine::Machine::cables).
    pub fn cable(&self, port: usize) -> String {
        self.cables[port].clone()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// As QEMU's `-netdev` writes it, without the id.
pub(crate) fn cable(from: &Path, to: &Path) -> String {
    // QEMU makes the first: of a machine that was here before, it would be in its way.
    let _none = fs::remove_file(from);
    format!(
        "dgram,local.type=unix,local.path={},remote.type=unix,remote.path={}",
        from.display(),
        to.display()
    )
}

fn serve(ports: &[Port], ended: &AtomicBool) {
    let mut homes: BTreeMap<[u8; 6], usize> = BTreeMap::new();
    let mut frame = vec![0; FRAME_BYTES_MAX];
    while !ended.load(Ordering::Relaxed) {
        let mut asked: Vec<PollFd> =
            ports.iter().map(|port| PollFd::new(port.socket.as_fd(), PollFlags::POLLIN)).collect();
        if poll(&mut asked, PollTimeout::from(LOOK_AGAIN_MS)).is_err() {
            continue;
        }
        for (number, port) in ports.iter().enumerate() {
            while let Ok(length) = port.socket.recv(&mut frame) {
                let Some((to, from)) = addresses(&frame[..length]) else { continue };
                homes.insert(from, number);
                let only = homes.get(&to);
                for (other, port) in ports.iter().enumerate() {
                    if other != number && only.is_none_or(|only| *only == other) {
                        // A machine that is off, or slow: the frame is lost, as on a real switch.
                        let _lost = ports[number].socket.send_to(&frame[..length], &port.machine);
                    }
                }
            }
        }
    }
}

/// Where a frame goes, and where it comes from.
fn addresses(frame: &[u8]) -> Option<([u8; 6], [u8; 6])> {
    let (to, rest) = frame.split_first_chunk()?;
    Some((*to, *rest.first_chunk()?))
}

#[cfg(test)]
mod tests;
