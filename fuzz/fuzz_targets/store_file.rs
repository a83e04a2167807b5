//! A store that was damaged.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::store_file(bytes));
