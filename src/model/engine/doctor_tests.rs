//! Tests of the checks of doctor.

use super::*;

fn facts() -> Facts {
    let text = r#"{"ServerVersion":"20.10.24","Driver":"overlay2","DockerRootDir":"/d",
                   "Runtimes":{"extension":{"path":"/usr/bin/balena-extension-runtime"}}}"#;
    Facts {
        engine: Ok(serde_json::from_str(text).unwrap()),
        api: Some("1.41".to_owned()),
        runtimes: vec![("extension".to_owned(), "/x".to_owned(), RegisteredBinary::SameVersion)],
        mounts: Ok((process(), Relation::Same)),
        state_root: Ok("/run".to_owned()),
        boot_environment: Ok(Some(BlockRoom { free: 900, missing: 0 })),
        overrides: Some(OverrideFacts { published: 2, rejected: 1, ..OverrideFacts::default() }),
        units: vec![unit(Ok(Some(true)))],
        disk: Ok((1 << 40, 1 << 41, "/d".to_owned())),
        overlay: Ok(true),
        missing_namespaces: Ok(Vec::new()),
        kernel_release: Ok("5.6.0-rc1".to_owned()),
    }
}

fn unit(enabled: Result<Option<bool>, String>) -> BootUnit {
    BootUnit { name: "a.service", command: "cleanup", enabled }
}

fn process() -> EngineProcess {
    EngineProcess { pid: 7, name: "dockerd".to_owned(), by: "/run/docker.pid".to_owned() }
}

fn with_overrides(change: impl FnOnce(&mut OverrideFacts)) -> Facts {
    let mut overrides = OverrideFacts::default();
    change(&mut overrides);
    Facts { overrides: Some(overrides), ..facts() }
}

/// An engine with these runtimes, none of which is known to be this program.
fn with_runtimes(text: &str) -> Facts {
    let text = format!(r#"{{"Driver":"overlay2","Runtimes":{text}}}"#);
    Facts { engine: Ok(serde_json::from_str(&text).unwrap()), runtimes: Vec::new(), ..facts() }
}

fn level_of(check: &str, facts: &Facts) -> CheckLevel {
    let checks = judge(facts);
    checks.iter().find(|one| one.check == check).unwrap().level
}

#[test]
fn a_host_that_is_set_up_passes_every_check() {
    let checks = judge(&facts());
    assert!(
        checks.iter().all(|one| one.level == CheckLevel::Ok && one.fix.is_none()),
        "{checks:?}"
    );
    assert_eq!(checks.len(), 12);
}

#[test]
fn each_fault_is_found_and_has_a_fix() {
    use CheckLevel::{Ok as Fine, Problem, Warning};
    let why = || "why".to_owned();
    let runtime = |binary| vec![("r".to_owned(), "/p".to_owned(), binary)];
    let version = "2".to_owned();
    let other_version = RegisteredBinary::OtherVersion { version, commit: why() };
    let other = EngineInfo { driver: Some("vfs".to_owned()), ..EngineInfo::default() };
    for (check, level, facts) in [
        ("engine", Problem, Facts { engine: Err(why()), ..facts() }),
        ("runtime", Problem, Facts { runtimes: Vec::new(), ..facts() }),
        ("runtime", Problem, with_runtimes(r#"{"runc":{"path":"runc"}}"#)),
        ("runtime", Fine, with_runtimes(r#"{"extension":{},"runc":{"path":"runc"}}"#)),
        ("runtime", Warning, with_runtimes(r#"{"other":{"path":""}}"#)),
        ("mounts", Fine, Facts { mounts: Ok((process(), Relation::Other)), ..facts() }),
        ("mounts", Warning, Facts { mounts: Ok((process(), Relation::Unknown(why()))), ..facts() }),
        ("mounts", Warning, Facts { mounts: Err(why()), ..facts() }),
        ("runtime", Warning, Facts { runtimes: runtime(other_version), ..facts() }),
        ("runtime", Warning, Facts { runtimes: runtime(RegisteredBinary::NoVersion), ..facts() }),
        (
            "runtime",
            Warning,
            Facts { runtimes: runtime(RegisteredBinary::Unreadable { why: why() }), ..facts() },
        ),
        ("runtime", Problem, Facts { runtimes: runtime(RegisteredBinary::Missing), ..facts() }),
        ("storage-driver", Warning, Facts { engine: Ok(other), ..facts() }),
        ("state-root", Problem, Facts { state_root: Err(why()), ..facts() }),
        ("boot-environment", Problem, Facts { boot_environment: Err(why()), ..facts() }),
        (
            "boot-environment",
            Warning,
            Facts { boot_environment: Ok(Some(BlockRoom { free: 900, missing: 1 })), ..facts() },
        ),
        ("boot-environment", Fine, Facts { boot_environment: Ok(None), ..facts() }),
        (
            "kernel-overrides",
            Problem,
            with_overrides(|facts| {
                facts.unreadable.push(why());
                facts.unfinished.push(why());
            }),
        ),
        ("kernel-overrides", Warning, with_overrides(|facts| facts.unfinished.push(why()))),
        ("kernel-overrides", Warning, with_overrides(|facts| facts.others.push(why()))),
        ("unit", Warning, Facts { units: vec![unit(Ok(Some(false)))], ..facts() }),
        ("unit", Warning, Facts { units: vec![unit(Ok(None))], ..facts() }),
        ("unit", Warning, Facts { units: vec![unit(Err(why()))], ..facts() }),
        ("disk", Warning, Facts { disk: Ok((1, 2, why())), ..facts() }),
        ("disk", Warning, Facts { disk: Err(why()), ..facts() }),
        ("kernel", Problem, Facts { kernel_release: Ok("5.5.19".to_owned()), ..facts() }),
        ("kernel", Problem, Facts { kernel_release: Err(why()), ..facts() }),
        ("overlayfs", Problem, Facts { overlay: Ok(false), ..facts() }),
        ("overlayfs", Warning, Facts { overlay: Err(why()), ..facts() }),
        ("namespaces", Problem, Facts { missing_namespaces: Ok(vec!["net"]), ..facts() }),
        ("namespaces", Warning, Facts { missing_namespaces: Err("no".into()), ..facts() }),
    ] {
        assert_eq!(level_of(check, &facts), level, "{check}: {facts:?}");
        let checks = judge(&facts);
        let found = checks.iter().find(|one| one.check == check).unwrap();
        assert_eq!(found.fix.is_some(), level != Fine, "{found:?}");
    }
}

#[test]
fn the_mounts_of_the_engine_are_named_with_what_they_mean() {
    let text = |facts: &Facts| {
        let checks = judge(facts);
        checks.into_iter().find(|one| one.check == "mounts").unwrap().text
    };
    let known = "dockerd (process 7, from /run/docker.pid) has";
    assert!(text(&facts()).starts_with(&format!("{known} the host's mounts")));
    let apart = text(&Facts { mounts: Ok((process(), Relation::Other)), ..facts() });
    assert!(apart.starts_with(&format!("{known} its own mount namespace")), "{apart}");
    assert!(apart.contains("that of process 1"), "{apart}");
    let unknown = text(&Facts { mounts: Err("why".to_owned()), ..facts() });
    assert!(unknown.contains("cannot determine") && unknown.ends_with("why"), "{unknown}");
}

#[test]
fn a_socket_leads_to_units() {
    assert_eq!(units_of_engine("docker"), ["docker.service"]);
    assert_eq!(units_of_engine("balena-engine"), ["balena-engine.service", "balena.service"]);
    assert!(serves_an_engine("dockerd") && serves_an_engine("balena-engine-d"));
    assert!(!serves_an_engine("systemd") && !serves_an_engine("containerd-shim"));
}
