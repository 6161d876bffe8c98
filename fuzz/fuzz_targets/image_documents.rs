//! The documents of an image: its configuration, `manifest.json`, an OCI layout's index, records of tar.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    balena_extension_runtime::fuzzing::check::image_documents(bytes)
});
