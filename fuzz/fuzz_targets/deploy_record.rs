//! The record of a deploy.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    balena_extension_runtime::fuzzing::manager::deploy_record(bytes)
});
