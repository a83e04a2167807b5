//! placeholder
#![allow(dead_code, unused_imports)]
mod executor;
mod health;
mod topology;
fn main() {}
