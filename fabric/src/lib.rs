//! The core of weft. See `docs/ARCHITECTURE.md`.
#![forbid(unsafe_code)]

pub mod admission;
pub mod alloc;
pub mod api;
pub mod claim;
pub mod clock;
pub mod constraint;
pub mod cpuset;
pub mod fuzzing;
pub mod gossip;
pub mod id;
pub mod io;
pub mod job;
pub mod lease;
pub mod level;
pub mod limits;
pub mod membership;
pub mod message;
pub mod node;
pub mod placement;
pub mod preempt;
pub mod quota;
pub mod resources;
pub mod signature;
pub mod stamp;
pub mod supervisor;
pub mod table;
pub mod timekeeper;
pub mod topology;
pub mod voters;
