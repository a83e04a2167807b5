//! Images of containers, as files: what they are called, what is in them, and how their layers come onto a disk.
//!
//! ```text
//! "redis:7" ──► reference ──► (a registry, a member, a file: not here)
//!                                   │ bytes
//!                                   ▼
//!   archive, layout ──► manifest ──► the manifest for this machine ──► configuration: what is run, and as whom (users)
//!   (docker save,       (index)                  │
//!    OCI archive,                                └──► layers ──► layer: decompressed, both digests ──► unpack: a folder each
//!    OCI folder)
//! ```
//!
//! Everything here comes from strangers. It is read within [`limits`], believed when its SHA-256 is the one that was asked
//! for, and written only by [`unpack`], which keeps to one folder. This crate knows no other crate of the workspace, has no
//! task, no socket and no state. No program calls it yet; `weft-helper` is to, in a process that has given up all other rights.

// What makes images for the tests calls this crate by its name.
#[cfg(test)]
extern crate self as oci;

pub mod archive;
pub mod contents;
pub mod digest;
pub mod entries;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod layer;
pub mod layout;
pub mod limits;
pub mod manifest;
pub mod reference;
pub mod unpack;
pub mod users;
