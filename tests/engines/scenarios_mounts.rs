//! Mount namespaces: hooks of an image act in that of process 1, wherever the engine has its own.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::Engines;
use crate::suite::Suite;

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    let shared = Arc::clone(engines);
    suite.test(
        "mounts::the_engines_share_those_of_process_1_unless_a_test_says_otherwise",
        move || {
            let host = namespace("1");
            assert_eq!(namespace("self"), host);
            assert_eq!(namespace(&shared.docker().pid_of_daemon().to_string()), host);
        },
    );
}

/// The mount namespace of a process.
fn namespace(pid: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap()
}
