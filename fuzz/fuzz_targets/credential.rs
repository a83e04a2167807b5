//! What a machine is given for its first start.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::credential(bytes));
