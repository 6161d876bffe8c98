//! One file, two names: `argv[0]` says which program this is.

use std::path::Path;
use std::process::ExitCode;

/// musl's own allocator maps and unmaps memory for every block above 128 KiB.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let words = words.collect();
    #[expect(clippy::disallowed_methods, reason = "the environment is read here, once")]
    let variable = |name: &str| std::env::var_os(name);
    if Path::new(&program).file_name().is_some_and(|name| name == "balena-extension-manager") {
        return balena_extension_runtime::manager_main(words, variable("DOCKER_HOST"));
    }
    balena_extension_runtime::runtime_main(words, variable("XDG_RUNTIME_DIR"))
}
