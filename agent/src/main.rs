//! placeholder
#![allow(dead_code)]
mod executor;
mod topology;
fn main() {}
