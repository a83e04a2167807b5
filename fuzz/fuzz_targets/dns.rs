//! What is said by multicast and unicast DNS.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| discovery::fuzzing::dns(bytes));
