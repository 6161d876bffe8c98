//! The hooks of the spec: when each runs, its input, and the effect of its failure.

use serde_json::{Value, json};

use crate::container::Container;
use crate::proc_fs::strings;
use crate::process;

const LISTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

fn live(container: &Container) {
    container.create().ok();
    container.start().ok();
    container.delete().ok();
}

#[test]
fn hooks_run_in_the_order_of_the_lifecycle_and_of_their_list() {
    let container = Container::new();
    let order = container.path("order");
    for list in LISTS {
        for number in [1, 2] {
            container.spec_hook(
                list,
                &format!("echo {list} {number} >> {}", order.display()),
                |_| {},
            );
        }
    }
    for verb in ["create", "start", "delete"] {
        container.hook(verb, &format!("echo {verb} >> order"));
    }
    live(&container);
    let expected = "create prestart-1 prestart-2 createRuntime-1 createRuntime-2 createContainer-1 \
        createContainer-2 startContainer-1 startContainer-2 start poststart-1 poststart-2 delete \
        poststop-1 poststop-2";
    let seen = container.read("order").replace(' ', "-").replace('\n', " ");
    assert_eq!(seen, expected);
}

#[test]
fn each_hook_reads_the_state_on_standard_input() {
    let container = Container::new();
    for list in LISTS {
        container.spec_hook(
            list,
            &format!("cat > {}", container.path(list).with_extension("state").display()),
            |_| {},
        );
    }
    container.label("org.example", "kept");
    container.create().ok();
    let pid = container.pid();
    container.start().ok();
    container.delete().ok();
    for (list, status, with_pid) in [
        ("prestart", "creating", true),
        ("createRuntime", "creating", true),
        ("createContainer", "creating", true),
        ("startContainer", "created", true),
        ("poststart", "running", true),
        ("poststop", "stopped", false),
    ] {
        let state: Value = serde_json::from_str(&container.read(&format!("{list}.state"))).unwrap();
        assert_eq!(state["status"], status, "{list}");
        assert_eq!(state["pid"].as_i64() == Some(pid.into()), with_pid, "{list}: {state}");
        assert_eq!(state["id"], container.id.as_str(), "{list}");
        assert_eq!(state["bundle"], container.text(), "{list}");
        assert_eq!(state["annotations"]["org.example"], "kept", "{list}");
        let parsed: oci_spec::runtime::State = serde_json::from_value(state).unwrap();
        assert!(parsed.version().starts_with("1."), "{list}");
    }
}

#[test]
fn arguments_are_the_whole_vector_and_the_environment_is_verbatim() {
    let container = Container::new();
    let seen = container.path("seen");
    // The shell has the arguments after the script's path; the kernel shows the others.
    container.spec_hook(
        "createRuntime",
        &format!("cat /proc/$$/environ > {0}.env; echo \"$@\" > {0}.args", seen.display()),
        |hook| {
            hook["args"] = json!(["libnetwork-setkey", "-exec-root=/run", "a b"]);
            hook["env"] = json!(["ONLY=this", "not a variable", "EMPTY="]);
        },
    );
    container.create().ok();
    assert_eq!(container.read("seen.args"), "-exec-root=/run a b");
    let environment = strings(&std::fs::read(container.path("seen.env")).unwrap());
    assert_eq!(environment, ["ONLY=this", "not a variable", "EMPTY="]);
}

/// dockerd's own hook is `/proc/PID/exe` with the name `libnetwork-setkey`. With another name it would be a
/// second dockerd.
#[test]
fn the_first_argument_is_the_programs_name() {
    let container = Container::new();
    let seen = container.path("seen");
    container.configure(|config| {
        config["hooks"] = json!({ "prestart": [{
            "path": "/bin/sh", "args": ["my-name", "-c", format!("cat /proc/$$/cmdline > {}", seen.display())]
        }]});
    });
    container.create().ok();
    assert_eq!(strings(&std::fs::read(seen).unwrap())[0], "my-name");
}

#[test]
fn without_arguments_the_path_is_the_name_and_without_environment_there_is_none() {
    let container = Container::new();
    let seen = container.path("seen");
    container.spec_hook(
        "createRuntime",
        &format!("/bin/cat /proc/$$/environ > {0}.env; echo $# > {0}.args", seen.display()),
        |_| {},
    );
    container.create().ok();
    assert_eq!(
        (container.read("seen.env"), container.read("seen.args")),
        (String::new(), "0".to_owned())
    );
}

/// The init process of runc runs its hooks, with the environment of the container.
#[test]
fn the_hooks_of_the_container_have_its_environment_by_default() {
    let container = Container::new();
    let env = json!(["PATH=/usr/bin:/bin", "A=first", "B=b c", "A=last", "no variable"]);
    container.configure(|config| config["process"]["env"] = env);
    let script =
        |list: String| format!("/bin/cat /proc/$$/environ > {}", container.path(&list).display());
    for list in LISTS {
        container.spec_hook(list, &script(format!("{list}.none")), |_| {});
        let empty = |hook: &mut Value| hook["env"] = json!([]);
        container.spec_hook(list, &script(format!("{list}.empty")), empty);
        let own = |hook: &mut Value| hook["env"] = json!(["OWN=1"]);
        container.spec_hook(list, &script(format!("{list}.own")), own);
    }
    container.create().ok();
    std::fs::remove_file(container.path("config.json")).unwrap();
    container.start().ok();
    container.delete().ok();
    let seen = |name: String| strings(&std::fs::read(container.path(&name)).unwrap());
    for list in LISTS {
        let expected: &[&str] = match list {
            "createContainer" | "startContainer" => &["PATH=/usr/bin:/bin", "B=b c", "A=last"],
            _ => &[],
        };
        assert_eq!(seen(format!("{list}.none")), expected, "{list}");
        assert_eq!(seen(format!("{list}.empty")), expected, "{list}");
        assert_eq!(seen(format!("{list}.own")), ["OWN=1"], "{list}");
    }
}

#[test]
fn the_output_of_spec_hooks_is_in_the_error_and_not_in_the_containers_log() {
    let container = Container::new();
    container.spec_hook("prestart", "echo fine", |_| {});
    container.spec_hook("createRuntime", "echo oh no >&2; exit 6", |_| {});
    container.create().fails(&["createRuntime", "exited with status 6", "oh no"]);
    assert_eq!(container.printed(), "");
}

#[test]
fn a_hook_that_does_not_read_its_input_is_fine() {
    let container = Container::new();
    container.label("org.example.long", &"x".repeat(200_000));
    for list in LISTS {
        container.spec_hook(list, "exec <&-; exit 0", |_| {});
    }
    live(&container);
}

#[test]
fn a_failing_hook_of_create_undoes_everything_and_runs_poststop() {
    for list in ["prestart", "createRuntime", "createContainer"] {
        let container = Container::new();
        container.configure(|config| {
            config["linux"] = json!({ "cgroupsPath": format!("/{}", container.id) })
        });
        container.spec_hook(list, "exit 8", |_| {});
        container.spec_hook(
            list,
            &format!("touch {}", container.path("too-far").display()),
            |_| {},
        );
        container.spec_hook(
            "poststop",
            &format!("touch {}", container.path("stopped").display()),
            |_| {},
        );
        container.create().fails(&[list, "exited with status 8"]);
        assert!(container.has("stopped"), "{list}");
        assert!(!container.has("too-far"), "{list}");
        assert!(!container.pid_file().exists(), "{list}");
        container.left_nothing();
    }
}

#[test]
fn every_poststop_runs_after_a_failed_create_even_if_one_fails() {
    let container = Container::new();
    container.spec_hook("prestart", "exit 8", |_| {});
    container.spec_hook("poststop", "echo broken; exit 9", |_| {});
    container.spec_hook("poststop", &format!("touch {}", container.path("next").display()), |_| {});
    let finished = container.create();
    finished.fails(&["prestart", "exited with status 8"]);
    assert!(finished.to_string().contains("exited with status 9: broken"), "{finished}");
    assert!(container.has("next"));
    container.left_nothing();
}

#[test]
fn the_namespace_of_a_proxy_that_dies_meanwhile_is_kept_for_the_hooks_of_start() {
    let container = Container::new();
    container.configure(|config| {
        config["linux"] = json!({ "namespaces": [{ "type": "network" }] });
    });
    let seen = container.path("seen");
    let script = format!("readlink /proc/$$/ns/net >> {}", seen.display());
    let path = |hook: &mut Value| hook["env"] = json!(["PATH=/usr/bin:/bin"]);
    container.spec_hook("createContainer", &script, path);
    let kill = format!(
        "pid=$(cat {}); kill -KILL $pid; while readlink /proc/$pid/ns/net; do :; done",
        container.pid_file().display()
    );
    container.spec_hook("startContainer", &kill, path);
    container.spec_hook("startContainer", &script, path);
    container.hook("start", "touch started");
    container.create().ok();
    container.start().ok();
    assert!(container.has("started"));
    let (created, started) =
        container.read("seen").split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(created, started);
    assert_eq!(container.status(), "stopped");
}

#[test]
fn a_failing_hook_of_start_stops_the_container() {
    for list in ["startContainer", "poststart"] {
        let container = Container::new();
        container.spec_hook(list, "exit 8", |_| {});
        container.create().ok();
        container.start().fails(&[list, "exited with status 8"]);
        assert!(!process::is_alive(container.pid()), "{list}");
        assert_eq!(container.status(), "stopped");
        container.delete().ok();
    }
}

#[test]
fn a_failing_poststop_is_a_warning_and_the_next_one_runs() {
    let container = Container::new();
    container.spec_hook("poststop", "exit 0", |_| {});
    container.spec_hook("poststop", "echo broken; exit 8", |_| {});
    container.spec_hook("poststop", &format!("touch {}", container.path("next").display()), |_| {});
    container.create().ok();
    container.start().ok();
    let finished = container.delete().silent();
    assert!(finished.warnings().contains("exited with status 8: broken"), "{finished}");
    assert!(finished.warnings().contains("hooks.poststop[1]"), "{finished}");
    assert!(container.has("next"));
    container.left_nothing();
}

#[test]
fn poststop_is_remembered_from_create_and_runs_once() {
    let container = Container::new();
    container.spec_hook(
        "poststop",
        &format!("echo stopped >> {}", container.path("count").display()),
        |_| {},
    );
    container.create().ok();
    std::fs::remove_file(container.path("config.json")).unwrap();
    container.delete_by_force().ok();
    container.delete_by_force().ok();
    assert_eq!(container.read("count"), "stopped");
}

#[test]
fn the_proxy_is_there_from_the_first_hook_to_the_last_of_start() {
    let container = Container::new();
    for list in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        // A zombie would suffice for kill(2), but not for an engine that moves an interface into its namespace.
        let script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); test -n \"$(readlink /proc/$pid/ns/net)\"";
        container.spec_hook(list, script, |hook| hook["env"] = json!(["PATH=/usr/bin:/bin"]));
    }
    container.create().ok();
    container.start().ok();
}

#[test]
fn a_missing_program_is_named_with_its_place_in_the_list() {
    let container = Container::new();
    container.configure(|config| {
        config["hooks"] = json!({ "createRuntime": [{ "path": "/opt/none" }] })
    });
    container.create().fails(&["createRuntime", "/opt/none"]);
    container.left_nothing();
}

/// Adding to an `Instant` can overflow, and a guard reports milliseconds in 31 bits.
#[test]
fn a_timeout_of_any_size_is_a_timeout() {
    for timeout in [i64::MAX, 90_000_000_000_000_000, 9_000_000_000_000_000, 1 << 32] {
        let container = Container::new();
        for list in ["prestart", "poststart", "poststop"] {
            container.spec_hook(list, &format!("/bin/touch {list}"), |hook| {
                hook["timeout"] = timeout.into();
            });
        }
        container.create().ok();
        container.start().ok();
        container.delete().silent();
        assert!(container.has("prestart") && container.has("poststart"), "{timeout}");
        assert!(container.has("poststop"), "{timeout}");
        container.left_nothing();
    }
}

/// The runtime opens it to report why it cannot be run.
#[test]
fn a_fifo_in_the_place_of_a_hook_does_not_hang() {
    let container = Container::new();
    container.spec_hook("prestart", "true", |_| {});
    let path = container.path("prestart-2");
    std::fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    container.create().fails(&["hooks.prestart[0]", path.to_str().unwrap(), "cannot be run"]);
    container.left_nothing();
}
