//! A record of a container store: Moby's, or a list or an image of Podman's; a mount table, storage.conf.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| balena_extension_runtime::fuzzing::store::store(bytes));
