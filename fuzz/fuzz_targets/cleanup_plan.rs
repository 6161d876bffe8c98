//! All answers of an engine in one document: plan and verdicts.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    balena_extension_runtime::fuzzing::engine::cleanup_plan(bytes)
});
