//! The manager's `check` reports an error `layer` exactly if `docker load` refuses the archive: on generated
//! archives and a real dockerd, which may also refuse zstd (before version 23).
//!
//! Sixty archives; with `STRESS=full` eight hundred.

use std::process::Command;

use serde_json::Value;

use crate::command::run;
use crate::docker::Docker;
use crate::generated_archives::{Generated, generate};
use crate::numbers::Numbers;
use crate::sandbox::MANAGER;
use crate::test_list::Suite;

pub(crate) fn add_to(suite: &mut Suite) {
    suite.test("check::an_error_layer_is_found_exactly_where_docker_load_refuses", || {
        let full = std::env::var("STRESS").is_ok_and(|value| value == "full");
        let docker = Docker::start(&[]);
        let version = docker.docker(&["version", "--format", "{{.Server.Version}}"]).ok().out;
        let major: u32 = version.split('.').next().unwrap().parse().unwrap();
        let mut numbers = Numbers(20_261_127);
        let rounds = if full { 800 } else { 60 };
        let mut refused = 0;
        for serial in 0..rounds {
            let archive = generate(&mut numbers, serial);
            refused += usize::from(compare(&docker, &archive, serial, major));
        }
        let both = rounds / 5..rounds - rounds / 5;
        assert!(both.contains(&refused), "{refused} of {rounds} were refused");
    });
}

/// Whether the engine refuses the archive, as `check` should predict.
fn compare(docker: &Docker, archive: &Generated, serial: usize, major: u32) -> bool {
    let path = docker.folder().join("generated.tar");
    std::fs::write(&path, &archive.bytes).unwrap();
    let path = path.to_str().unwrap();
    let loaded = docker.docker(&["load", "--quiet", "--input", path]);
    let refuses = !loaded.succeeded();
    if !refuses {
        docker.docker(&["rmi", "--force", "generated:1"]).ok();
    }
    let checked = run(Command::new(MANAGER).args(["check", "--format", "json", path]));
    let description = format!("archive {serial}: {}\n{loaded}\n{checked}", archive.description);
    assert_ne!(checked.code(), 1, "{description}");
    let report: Value = serde_json::from_str(&checked.out).expect(&description);
    let findings = report["reports"][0]["findings"].as_array().expect(&description);
    let finds = |rule: &str| findings.iter().any(|finding| finding["rule"] == rule);
    assert_eq!(finds("layer-zstd"), archive.has_zstd, "{description}");
    let is_too_new = archive.has_zstd && major < 23;
    assert_eq!(finds("layer") || is_too_new, refuses, "{description}");
    refuses
}
