//! A second oracle: small clusters, searched exhaustively for a broken promise.
//!
//! The models here are written anew from the protocol's description and share no code with the core, so
//! that a misunderstanding in one of them does not hide in the other. Each is as small as the argument allows:
//! what it leaves out is said at its head, and its bounds are printed with its verdict. A model
//! that finds nothing shows little unless it can find something: each has planted bugs that must be found.
#![forbid(unsafe_code)]

pub mod lease;
pub mod search;
pub mod slots;
pub mod voters;
