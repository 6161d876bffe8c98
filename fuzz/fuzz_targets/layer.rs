//! A layer, entry by entry, unpacked as engines do.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| balena_extension_runtime::fuzzing::check::layer(bytes));
