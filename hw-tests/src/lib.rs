//! Stories told with whole machines: a kernel that boots, systemd as process 1, every controller, power that fails.
//!
//! ```text
//! weft-hw-tests                 all stories
//! weft-hw-tests --list          their names
//! weft-hw-tests NAME...         these
//! ```
//!
//! `make test-vm` builds what machines need (`hw-tests/build.sh`) and runs it. Machines are emulated in software, some
//! twenty times slower than this one: time is told as a ratio to something measured in the same machine, and waits are
//! generous. A story that fails keeps what its machines wrote to their serial ports.
//!
//! `boards_join` is told with the boards of a `lab.toml` where there is one (`src/lab.rs`): `make test-boards`.
// Stories wait for real machines.
#![allow(clippy::disallowed_methods)]

pub mod board;
pub mod console;
pub mod control;
pub mod images;
pub mod lab;
pub mod machine;
pub mod node;
pub mod outlet;
pub mod power;
pub mod screen;
pub mod serial;
pub mod stories;
pub mod switch;
pub mod workshop;
