//! An `os-version` label and the running version, with a NUL between.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| balena_extension_runtime::fuzzing::manager::os_version(
    bytes
));
