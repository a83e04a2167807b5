//! placeholder
#![allow(dead_code)]
mod executor;
fn main() {}
