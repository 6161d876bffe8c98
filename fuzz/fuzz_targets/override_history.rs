//! The history of kernel overrides.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    balena_extension_runtime::fuzzing::override_records::override_history(bytes)
});
