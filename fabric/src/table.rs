//! The replicated map.
mod entry;
pub use entry::*;
