//! The agent's configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::configuration(bytes));
