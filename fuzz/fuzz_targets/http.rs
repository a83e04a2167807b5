//! What a connection to the API brings.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::http(bytes));
