//! placeholder
#![allow(dead_code)]
mod executor;
mod health;
mod topology;
fn main() {}
