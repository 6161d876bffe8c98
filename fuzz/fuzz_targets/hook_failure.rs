//! The output of a hook that failed, the head of a file that cannot be run, a guard's report.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| balena_extension_runtime::fuzzing::hook_failure(bytes));
