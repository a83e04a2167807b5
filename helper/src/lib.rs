//! weft-helper: what an agent does on demand and not at rest, in a process of its own.
//!
//! ```text
//!            starts, with one end of a socket pair as standard input
//!   weftd ────────────────────────────────────────────────────────────► weft-helper
//!            one order ──►                                               gives up all rights but those
//!            ◄── pieces of the answer, as they come                      that the order's verb needs,
//!            ◄── the end, or why not                                     does it, and ends
//! ```
//!
//! Nothing of it is in memory while nobody asks. What reads the files of strangers (symbols of programs, what hardware
//! says of itself) is here and not in the agent, and can do less harm here: see [`confine`].
//!
//! | verb | file | rights that it keeps |
//! |---|---|---|
//! | `trace`: look closely at what runs, for a while; `try`: which traces could be made | [`trace`] | loading eBPF, and reading other processes and their programs |
//! | `hardware`: what the machine is made of | [`hardware`] | none: files that root may read |
//! | `verify-update`, on the command line: who signed an update of an image | [`signature`] | those that it was started with |

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the agent uses orders, answers and how files are read; the rest is for weft-helper alone"
)]

pub use trace::{KINDS as TRACES, what as kernel_side};

use order::{Frame, Order, Verb};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use wire::Connection;

mod confine;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hardware;
pub mod order;
mod signature;
mod trace;
mod wire;

const USAGE: &str = "\
weft-helper: what the agent of a weft node does on demand; weftd starts it

usage: weft-helper                  do what the socket at standard input orders
       weft-helper verify-update KEYS MANIFEST SIGNATURE
                                    say whether a key in the folder KEYS signed an update of an image
       weft-helper --version | --help

exit: 0 done, 1 it could not be done, 2 wrong arguments, or no order at standard input
";

/// The program: what `main` of the binary does.
pub fn main() -> ExitCode {
    let mut given = std::env::args_os().skip(1);
    match given.next() {
        None => {}
        Some(word) if word == signature::WORD => return signature::main(given),
        Some(word) if word == "--version" || word == "-V" => {
            println!("weft-helper {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(word) if word == "--help" || word == "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(word) => {
            eprintln!("weft-helper: unknown argument {}: see --help", word.to_string_lossy());
            return ExitCode::from(2);
        }
    }
    match wire::standard_input().and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-helper: {error}: weftd starts this program, see --help");
            ExitCode::from(2)
        }
    }
}

/// Takes one order and answers it. The error says why there was none; what goes wrong with an order goes to whoever gave it.
fn serve(socket: UnixStream) -> std::io::Result<()> {
    let mut connection = Connection::new(socket);
    let order: Order = connection.order()?;
    let done = match confine::to(order.verb.rights()) {
        Err(problem) => Err(problem),
        Ok(()) => match order.verb {
            Verb::Trace(wanted) => trace::run(&wanted, &mut connection),
            Verb::TryTraces => connection.whole(&trace::attempt()),
            Verb::Hardware => connection.whole(&hardware::read(&files::Files::of_machine())),
        },
    };
    // Whoever asked may have gone: then nobody needs the end.
    let _ = connection.say(&match done {
        Ok(()) => Frame::End,
        Err(problem) => Frame::Refused(problem),
    });
    Ok(())
}
