//! The OCI runtime, which container engines call.

use std::process::ExitCode;

/// musl's own allocator maps and unmaps memory for every block above 128 KiB.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: balena_extension_runtime::SingleThreaded =
    balena_extension_runtime::SingleThreaded::new();

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the environment is read here, once")]
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR");
    balena_extension_runtime::runtime_main(std::env::args_os(), runtime_dir)
}
