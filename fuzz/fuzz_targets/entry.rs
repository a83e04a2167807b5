//! A row of the table, as it lies on disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fabric::fuzzing::entry(bytes));
