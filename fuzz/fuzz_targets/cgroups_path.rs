//! A `linux.cgroupsPath`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| balena_extension_runtime::fuzzing::cgroups_path(bytes));
