//! weftd
mod clock;
mod config;
mod events;
mod http;
fn main() {}
