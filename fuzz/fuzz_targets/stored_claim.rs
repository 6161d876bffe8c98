//! A record of the engine's store, for the kernel that its container claims.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    balena_extension_runtime::fuzzing::override_records::stored_claim(bytes)
});
