//! What a member sends over a stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fabric::fuzzing::message(bytes));
