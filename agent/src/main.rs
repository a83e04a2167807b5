//! weftd
mod clock;
mod config;
mod events;
mod http;
mod metrics;
fn main() {}
