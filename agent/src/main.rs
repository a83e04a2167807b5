//! weftd
mod clock;
mod config;
mod doctor;
mod events;
mod http;
mod metrics;
fn main() {}
