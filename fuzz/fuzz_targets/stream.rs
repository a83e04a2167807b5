//! A frame of a stream between agents.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::stream(bytes));
