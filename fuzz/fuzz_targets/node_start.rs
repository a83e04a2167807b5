//! A node that starts with any rows at all.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fabric::fuzzing::node_start(bytes));
