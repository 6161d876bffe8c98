//! The record of a write of the boot environment block.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    balena_extension_runtime::fuzzing::override_records::block_redo(bytes)
});
