//! Orders to weft-helper, and its answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| helper::fuzzing::helper(bytes));
