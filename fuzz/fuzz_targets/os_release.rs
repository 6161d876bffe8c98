//! os-release(5).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| balena_extension_runtime::fuzzing::manager::os_release(
    bytes
));
