//! Single keys of the terminal, while the whole screen is drawn.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, Read};
use tokio::sync::mpsc;

use crate::arguments::Order;
use crate::exit::Failure;
use crate::screen::Screen;

/// The other screen of the terminal, without a cursor and without wrapped lines; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Enough.
    Quit,
    /// Another order.
    Sort(Order),
    /// Means nothing here.
    Other,
}

/// The terminal, set to send single keys. Dropping it sets it back.
pub struct Keys {
    before: Termios,
    typed: mpsc::Receiver<u8>,
}

impl Keys {
    /// Takes over the terminal. A thread reads it; it ends with the program.
    pub fn listen(screen: &Screen) -> Result<Self, Failure> {
        let refused = |error: &dyn std::fmt::Display| {
            Failure::failed(format!("cannot use the terminal ({error}): try weft top --batch"))
        };
        let before = tcgetattr(io::stdin()).map_err(|error| refused(&error))?;
        let mut single = before.clone();
        single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &single).map_err(|error| refused(&error))?;
        let (send, typed) = mpsc::channel(8);
        let keys = Self { before, typed };
        let read = move || {
            let bytes = io::stdin().lock().bytes();
            bytes
                .map_while(Result::ok)
                .take_while(|byte| send.blocking_send(*byte).is_ok())
                .for_each(drop);
        };
        std::thread::Builder::new()
            .name("keys".into())
            .spawn(read)
            .map_err(|error| refused(&error))?;
        screen.bytes(ENTER.as_bytes())?;
        Ok(keys)
    }

    /// The next key. When there are no more, this never ends.
    pub async fn next(&mut self) -> Key {
        match self.typed.recv().await {
            Some(byte) => meaning(byte),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        use io::Write;
        let _ = io::stdout().write_all(LEAVE.as_bytes()).and_then(|()| io::stdout().flush());
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn meaning(byte: u8) -> Key {
    match byte {
        b'q' | b'Q' => Key::Quit,
        b'n' => Key::Sort(Order::Name),
        b'c' => Key::Sort(Order::Cpu),
        b'm' => Key::Sort(Order::Memory),
        b'r' => Key::Sort(Order::Runq),
        b'd' => Key::Sort(Order::Disk),
        _ => Key::Other,
    }
}
