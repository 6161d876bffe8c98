//! An archive of an image or a container, and every rule of `check` for it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    balena_extension_runtime::fuzzing::manager::image_archive(bytes)
});
