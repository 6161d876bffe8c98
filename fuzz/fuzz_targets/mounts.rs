//! `/proc/mounts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| balena_extension_runtime::fuzzing::manager::mounts(
    bytes
));
