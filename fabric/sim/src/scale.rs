//! Thousands of nodes and a million allocations: how much a fabric costs as it grows.
//!
//! The nodes are real cores with real tables. What is left out of this world, compared with
//! [`World`](crate::world::World), is what finds bugs rather than what costs time: faults, invariants,
//! traces, and disks and clocks of their own. Nodes begin as a formed fabric, and entries are handed
//! over without being encoded, so that all nodes point at one copy of an entry; each node has its
//! own index of all of them.

mod crowd;
pub mod measures;
pub mod plot;
pub mod results;

pub use crowd::{Crowd, Scene, Traffic};
pub use results::Results;
