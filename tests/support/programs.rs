//! The programs under test: those at the top of the checkout, or those that `RUNTIME_UNDER_TEST` and
//! `MANAGER_UNDER_TEST` name.

use std::path::{Path, PathBuf};

pub(crate) fn runtime() -> PathBuf {
    under_test("RUNTIME_UNDER_TEST", "balena-extension-runtime")
}

pub(crate) fn manager() -> PathBuf {
    under_test("MANAGER_UNDER_TEST", "balena-extension-manager")
}

fn under_test(variable: &str, name: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let path = std::env::var_os(variable).map_or(default, PathBuf::from);
    let root = rustix::process::geteuid().is_root();
    assert!(root, "the programs only work as root, so their tests need root as well");
    path.canonicalize().unwrap_or_else(|error| {
        panic!("{path:?}: {error} (`make build` builds it; {variable} names another one)")
    })
}
