//! A layer of an image, unpacked where root runs it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oci::fuzzing::image_layer(bytes));
