//! The series store of one node, and PromQL over it.
//!
//! Data goes one way: samples into a [`store::Store`]; an expression through [`syntax::parse`] into
//! an [`syntax::Expr`]; both into [`evaluate::instant`] or [`evaluate::range`], which give a
//! [`evaluate::Value`]; and that into the JSON of Prometheus's API ([`answer`]). Asked for many nodes,
//! [`fleet`] cuts the expression into parts that each node evaluates on its own store, and a rest
//! that the asker evaluates over their merged answers.
//!
//! No clock, socket, file or thread: the caller says what time it is. Times are milliseconds since
//! the epoch in an `i64`, as in Prometheus.

#![forbid(unsafe_code)]

pub mod answer;
pub mod evaluate;
pub mod exposition;
pub mod fleet;
pub mod h2;
pub mod labels;
pub mod limits;
pub mod remote_write;
pub mod span;
pub mod store;
pub mod syntax;
