//! Labels and mounts, which become the environment of hooks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| balena_extension_runtime::fuzzing::environment(bytes));
