//! What reaches the port of gossip.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::sealed(bytes));
