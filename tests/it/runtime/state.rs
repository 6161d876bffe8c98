//! `state ID`: the OCI state, checked against the live process.

use serde_json::Value;

use crate::container::Container;
use crate::process;
use crate::programs;

#[test]
fn every_field_is_there_and_no_other() {
    let container = Container::created();
    let state = container.state();
    let names: Vec<&String> = state.as_object().unwrap().keys().collect();
    let mut expected =
        ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations"];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(state["id"], container.id.as_str());
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], container.pid());
    assert_eq!(state["bundle"], container.text());
    assert_eq!(state["rootfs"], container.path("rootfs").to_str().unwrap());
    assert_eq!(state["annotations"]["io.balena.image.class"], "overlay");
}

#[test]
fn the_state_is_the_one_that_the_spec_defines() {
    let container = Container::created();
    let text = container.call(&["state", &container.id]).ok().out;
    let state: oci_spec::runtime::State = serde_json::from_str(&text).unwrap();
    assert_eq!(state.id(), &container.id);
    assert_eq!(state.status(), &oci_spec::runtime::ContainerState::Created);
    assert!(state.version().starts_with("1."), "{}", state.version());
}

#[test]
fn the_state_is_indented_and_ends_in_a_newline() {
    let container = Container::created();
    let text = container.call(&["state", &container.id]).ok().out;
    assert!(text.starts_with("{\n  \"ociVersion\": \"1."), "{text}");
    assert!(text.ends_with("\n}\n"), "{text}");
}

#[test]
fn created_is_a_time_that_engines_can_read() {
    let container = Container::new();
    let before = std::time::SystemTime::now();
    container.create().ok();
    let created = container.state()["created"].as_str().unwrap().to_owned();
    let created = humantime::parse_rfc3339(&created).unwrap();
    assert!(created >= before && created <= std::time::SystemTime::now());
}

#[test]
fn annotations_are_those_of_the_spec() {
    let container = Container::new();
    container.label("org.example.with.dots", "a \"b\" ü");
    container.create().ok();
    assert_eq!(container.state()["annotations"]["org.example.with.dots"], "a \"b\" ü");
}

#[test]
fn labels_from_the_container_store_are_annotations_too() {
    let container = Container::new();
    container.configure(|config| config["annotations"] = serde_json::json!({ "org.example": "1" }));
    let store = container.beside("docker").join("containers").join(&container.id);
    std::fs::create_dir_all(&store).unwrap();
    let labels = r#"{"Config":{"Labels":{"io.balena.image.class":"overlay","io.balena.image.override":"5"}}}"#;
    std::fs::write(store.join("config.v2.json"), labels).unwrap();
    let create = container.create_command();
    let mut command = std::process::Command::new(create.get_program());
    command.env_clear().arg("--docker-root").arg(container.beside("docker"));
    container.create_by(command.args(create.get_args())).ok();
    let expected = serde_json::json!({
        "io.balena.image.class": "overlay", "io.balena.image.override": "5", "org.example": "1"
    });
    assert_eq!(container.state()["annotations"], expected);
    let list = container.call(&["list", "--format", "json"]).ok().json();
    assert_eq!(list[0]["annotations"], expected);
}

#[test]
fn a_container_whose_proxy_died_is_stopped_whatever_the_file_records() {
    let container = Container::created();
    process::signal(container.pid(), rustix::process::Signal::KILL);
    process::exit_status(container.pid());
    let state = container.state();
    assert_eq!(state["status"], "stopped");
    assert!(matches!(state["pid"].as_i64(), None | Some(0)), "{state}");
}

#[test]
fn a_proxy_that_is_a_zombie_counts_as_ended() {
    let container = Container::created();
    let state = process::alone(|| {
        process::signal(container.pid(), rustix::process::Signal::KILL);
        while crate::proc_fs::Process(container.pid()).is_alive() {}
        container.command(&["state", &container.id]).output().unwrap()
    });
    let state: Value = serde_json::from_slice(&state.stdout).unwrap();
    assert_eq!(state["status"], "stopped");
    container.start().fails(&["cannot start a container that has stopped"]);
}

#[test]
fn a_started_container_is_stopped_and_has_no_pid() {
    let state = Container::stopped().state();
    assert_eq!(state["status"], "stopped");
    assert!(matches!(state["pid"].as_i64(), None | Some(0)), "{state}");
}

#[test]
fn the_unknown_does_not_exist() {
    let container = Container::new();
    container.call(&["state", &container.id]).fails(&[crate::finished::UNKNOWN, &container.id]);
}

#[test]
fn the_file_keeps_the_names_of_the_spec() {
    let container = Container::created();
    let path = container.root().join(&container.id).join("state.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for name in ["ociVersion", "id", "status", "pid", "bundle", "annotations"] {
        assert_eq!(file[name], container.state()[name], "{name}");
    }
}

#[test]
fn a_closed_standard_error_does_not_matter() {
    let container = Container::created();
    let mut command = container.command(&["state", &container.id]);
    let mut child = process::start(
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()),
    );
    drop(child.pipes().stderr.take());
    assert_eq!(child.wait(), 0);
    let mut command = container.command(&["state", "unknown"]);
    let mut child = process::start(
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()),
    );
    drop(child.pipes().stderr.take());
    assert_eq!(child.wait(), 1, "a plain failure, not a signal and not a panic");
    container.new_log_lines();
}

#[test]
fn the_state_root_is_the_runtime_directory_of_the_environment() {
    let container = Container::new();
    let base = container.beside("run");
    std::fs::create_dir(&base).unwrap();
    let mut command = std::process::Command::new(programs::runtime());
    command.env_clear().env("XDG_RUNTIME_DIR", &base);
    command.args(["create", "-b", container.text(), &container.id]);
    container.create_by(&mut command).ok();
    assert!(base.join("balena-extension-runtime").join(&container.id).join("state.json").exists());
    let mut delete = std::process::Command::new(programs::runtime());
    delete.env_clear().env("XDG_RUNTIME_DIR", &base).args(["delete", "--force", &container.id]);
    container.finish(&mut delete).silent();
}

#[test]
fn an_empty_runtime_directory_counts_as_unset_and_the_default_is_below_run() {
    let container = Container::new();
    for empty in [true, false] {
        let command = |words: &[&str]| {
            let mut command = std::process::Command::new(programs::runtime());
            command.env_clear().current_dir(container.text()).args(words).arg(&container.id);
            if empty {
                command.env("XDG_RUNTIME_DIR", "");
            }
            command
        };
        container.create_by(&mut command(&["create"])).ok();
        let state = std::path::Path::new("/run/balena-extension-runtime").join(&container.id);
        let recorded = state.join("state.json").exists();
        container.finish(&mut command(&["delete", "--force"])).silent();
        assert!(recorded, "XDG_RUNTIME_DIR empty: {empty}");
        assert!(!state.exists());
    }
}
