//! One answer of the engine, as any of those that are asked for.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    balena_extension_runtime::fuzzing::engine::engine_answer(bytes)
});
