//! What a member sends in a datagram.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fabric::fuzzing::datagram(bytes));
