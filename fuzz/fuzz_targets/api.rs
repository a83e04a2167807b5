//! A request of the API, as its router gets it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::api(bytes));
