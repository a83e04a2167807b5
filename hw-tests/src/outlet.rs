//! An outlet with a switch, and a machine of QEMU in it: to whoever runs the switch's commands and reads the serial port, a
//! board.

use crate::machine::{Machine, Running};
use crate::workshop::Bench;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// How long the end of an outlet may take, in milliseconds.
const LOOK_AGAIN_MS: u8 = 200;

/// The switch: a program with one argument, `on` or `off`. NAME stands for the machine's.
const SWITCH: &str = r#"# Switches a machine: on or off.
cd "$(dirname "$0")" || exit 1
echo "$1" >NAME.asked
read -r said <NAME.done
[ "$said" = done ] || { echo "$said" >&2; exit 1; }
"#;

/// An outlet. Dropping it pulls the machine's plug.
pub struct Outlet {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Outlet {
    /// Puts a machine's plug in. It is switched by `sh NAME.switch on` and `off`, in the bench's folder, and its serial port
    /// is the socket `NAME.console` there, for as long as it has power.
    pub fn new(bench: &Bench, machine: Machine) -> Result<Self> {
        let path = |end: &str| bench.path(&format!("{}.{end}", machine.name));
        let [asked, done] = [path("asked"), path("done")].map(|path| fifo(&path));
        let (asked, done) = (asked?, done?);
        fs::write(path("switch"), SWITCH.replace("NAME", &machine.name))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (until, bench) = (Arc::clone(&ended), bench.clone());
        let thread = std::thread::spawn(move || serve(&machine, &bench, asked, done, &until));
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

fn serve(machine: &Machine, bench: &Bench, mut asked: File, mut done: File, ended: &AtomicBool) {
    // QEMU ends with the thread that has started it.
    let mut plugged: Option<Running> = None;
    let mut bytes = [0; 64];
    while !ended.load(Ordering::Relaxed) {
        let mut wanted = [PollFd::new(asked.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut wanted, PollTimeout::from(LOOK_AGAIN_MS)).is_ok_and(|ready| ready > 0) {
            continue;
        }
        let Ok(length) = asked.read(&mut bytes) else { return };
        let said = match bytes[..length].trim_ascii() {
            b"on" if plugged.is_some() => "done".to_owned(),
            b"on" => match machine.start(bench) {
                Ok(running) => {
                    plugged = Some(running);
                    "done".to_owned()
                }
                Err(error) => format!("{error:#}").replace('\n', " "),
            },
            b"off" => {
                plugged = None;
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
