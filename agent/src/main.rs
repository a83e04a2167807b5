//! placeholder
mod identity;
mod join;
mod quic;
mod seal;
mod store;
mod token;

fn main() {}
