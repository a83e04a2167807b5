//! Who signed an update.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::update_signature(bytes));
