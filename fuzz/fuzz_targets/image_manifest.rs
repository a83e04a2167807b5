//! An index, a manifest or a configuration of an image, and the files with its users.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oci::fuzzing::image_manifest(bytes));
