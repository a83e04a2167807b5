//! A node that is told anything at all by a member.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fabric::fuzzing::node(bytes));
