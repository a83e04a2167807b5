//! Who signed an update.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| helper::fuzzing::update_signature(bytes));
