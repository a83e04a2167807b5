//! Runs thousands of weft cores in virtual time under faults.
//!
//! Everything comes from one seed: machines, network, faults and what users want. A run that breaks an
//! invariant is repeated, event by event, by giving the seed again. See `docs/TESTING.md`.
#![forbid(unsafe_code)]

pub mod book;
pub mod clock;
pub mod disk;
pub mod dump;
pub mod faults;
pub mod gate;
pub mod invariants;
pub mod journal;
pub mod machines;
pub mod measure;
pub mod network;
pub mod node;
pub mod run;
pub mod scale;
pub mod scenario;
pub mod shrink;
pub mod swarm;
pub mod trace;
pub mod units;
pub mod workload;
pub mod world;
