//! The manager, which operators, boot units and update hooks call.

use std::process::ExitCode;

/// musl's own allocator maps and unmaps memory for every block above 128 KiB.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the environment is read here, once")]
    let [docker_host, shell] = ["DOCKER_HOST", "SHELL"].map(std::env::var_os);
    balena_extension_runtime::manager_main(std::env::args_os(), docker_host, shell)
}
