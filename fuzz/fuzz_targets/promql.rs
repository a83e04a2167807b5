//! An expression in PromQL, parsed and evaluated.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weftd::fuzzing::promql(bytes));
