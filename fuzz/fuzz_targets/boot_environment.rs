//! The boot environment block, and the kernel's command line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    balena_extension_runtime::fuzzing::block::boot_environment(bytes)
});
