//! What another member asks about series, or answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::series(bytes));
