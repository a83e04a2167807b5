//! weftd
mod clock;
mod config;
mod doctor;
mod driver;
mod events;
mod executor;
mod http;
mod identity;
mod join;
mod metrics;
mod quic;
mod seal;
mod store;
mod token;
mod topology;
fn main() {}
