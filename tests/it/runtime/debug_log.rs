//! `--log-level debug`: every decision of a deployment is logged where it is made. The line of a verb has its
//! times, also if it fails.

mod only_ours {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use serde_json::{Value, json};

    use crate::container::Container;
    use crate::finished::Finished;

    /// The messages of a call with `flags`, one per line.
    fn logged(container: &Container, flags: &[&str], words: &[&str]) -> (String, Finished) {
        let mut command = container.command(&["--log-level", "debug"]);
        command.args(flags).args(words).arg(&container.id);
        let create = words.first() == Some(&"create");
        let finished =
            if create { container.create_by(&mut command) } else { container.finish(&mut command) };
        let messages = finished.log.iter().map(|line| line["msg"].as_str().unwrap().to_owned());
        (messages.collect::<Vec<_>>().join("\n"), finished)
    }

    /// Fails unless `log` has all of `parts`, in this order.
    #[track_caller]
    fn in_order(log: &str, parts: &[&str]) {
        let mut rest = log;
        for part in parts {
            let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} in its place:\n{log}"));
            rest = &rest[at + part.len()..];
        }
    }

    #[test]
    fn debug_logs_a_deployment_from_the_labels_to_the_last_cgroup() {
        let container = Container::new();
        let socket = UnixListener::bind(container.beside("console")).unwrap();
        let (pid_file, socket_path) = (container.pid_file(), container.beside("console"));
        let (pid_file, socket_path) = (pid_file.to_str().unwrap(), socket_path.to_str().unwrap());
        container.configure(|config| {
            config["process"]["terminal"] = true.into();
            config["process"]["consoleSize"] = json!({ "height": 24, "width": 80 });
            config["linux"] = json!({
                "namespaces": [{ "type": "network" }],
                "cgroupsPath": format!("/{}", container.id),
            });
        });
        container.label("io.balena.image.override", "7");
        container.hook("create", "echo hello");
        container.hook("delete", "true");
        container.spec_hook("createContainer", "true", |_| {});
        let create = [
            "create",
            "-b",
            container.text(),
            "--pid-file",
            pid_file,
            "--console-socket",
            socket_path,
        ];
        let (log, finished) = logged(&container, &[], &create);
        finished.ok();
        let pid = container.pid();
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        in_order(
            &log,
            &[
                &format!("bundle {}: rootfs {}/rootfs, ", container.text(), container.text()),
                "labels from the annotations of config.json: ",
                "io.balena.image.class=\"overlay\"",
                "io.balena.image.override=\"7\"",
                &format!("the state is kept in {}", container.root().join(&container.id).display()),
                &format!("sent the master of a pty (80x24) to {socket_path}"),
                "running hooks/create: ",
                "hooks/create took ",
                "printed: hello",
                &format!(
                    "proxy {pid} started in the network namespace {}, a new one",
                    namespace.display()
                ),
                "moved the proxy into the cgroups /sys/fs/cgroup",
                &format!("hooks.createContainer run in the network namespace /proc/{pid}/ns/net"),
                "running hooks.createContainer[0] ",
                "hooks.createContainer[0] ",
                &format!("wrote the pid {pid} to {pid_file}"),
                &format!("created with proxy {pid}"),
            ],
        );
        let (log, finished) = logged(&container, &[], &["start"]);
        finished.ok();
        in_order(
            &log,
            &[
                &format!("the container is created, its proxy is {pid}"),
                "the image has no hooks/start",
                "recorded as stopped",
                &format!("signalled the proxy {pid} to exit with status 0"),
                "applied",
            ],
        );
        let proxy = std::path::PathBuf::from(format!("/proc/{pid}"));
        crate::process::wait_for("the end of the proxy", || (!proxy.exists()).then_some(()));
        let (log, finished) = logged(&container, &[], &["kill", "--all"]);
        finished.ok();
        in_order(&log, &["the container is stopped; its proxy has ended", "was not sent"]);
        let (log, finished) = logged(&container, &[], &["delete"]);
        finished.ok();
        in_order(
            &log,
            &[
                "the container is stopped; its proxy has ended",
                "running hooks/delete: ",
                "removed the cgroups /sys/fs/cgroup",
                "deleted",
            ],
        );
        drop(socket);
    }

    #[test]
    fn debug_logs_what_was_not_requested() {
        let container = Container::new();
        let (log, finished) = logged(&container, &[], &["create", "-b", container.text()]);
        finished.ok();
        in_order(
            &log,
            &[
                "no pty: the proxy has this process's standard streams",
                "the one of create, because config.json names none",
                "config.json names no cgroup",
            ],
        );
    }

    #[test]
    fn debug_logs_a_joined_namespace_and_a_sandbox() {
        let container = Container::new();
        container.configure(|config| {
            config["annotations"] = json!({ "io.kubernetes.cri.container-type": "sandbox" });
            let joined = json!({ "type": "network", "path": "/proc/self/ns/net" });
            config["linux"] = json!({ "namespaces": [joined] });
        });
        let (log, finished) = logged(&container, &[], &["create", "-b", container.text()]);
        finished.ok();
        in_order(&log, &["a sandbox of Kubernetes", ", joined at /proc/self/ns/net"]);
    }

    #[test]
    fn the_store_that_had_the_labels_is_named() {
        let container = Container::new();
        container.configure(|config| config["annotations"] = Value::Null);
        let root = container.beside("docker");
        let folder = root.join("containers").join(&container.id);
        std::fs::create_dir_all(&folder).unwrap();
        let record = json!({ "Config": { "Labels": { "io.balena.image.class": "overlay" } } });
        std::fs::write(folder.join("config.v2.json"), record.to_string()).unwrap();
        let flags = ["--docker-root", root.to_str().unwrap()];
        let (log, finished) = logged(&container, &flags, &["create", "-b", container.text()]);
        finished.ok();
        let from = format!("labels from {}/config.v2.json: ", folder.display());
        in_order(&log, &[&from, "class=\"overlay\""]);
    }

    #[test]
    fn a_create_that_fails_logs_what_it_undoes() {
        let container = Container::new();
        container.hook("create", "true");
        container.hook("delete", "true");
        container.spec_hook("prestart", "exit 3", |_| {});
        let (log, finished) = logged(&container, &[], &["create", "-b", container.text()]);
        finished.fails(&["hooks.prestart[0]", "exited with status 3"]);
        in_order(
            &log,
            &[
                "hooks.prestart[0] ",
                " failed after ",
                "undoing its steps",
                "running hooks/delete",
                "status 3",
            ],
        );
    }

    #[test]
    fn the_level_info_logs_no_debug_lines() {
        let container = Container::new();
        container.hook("create", "true");
        assert_eq!(container.create().ok().log.len(), 1);
        assert_eq!(container.start().ok().log.len(), 1);
    }

    #[test]
    fn the_times_of_hooks_stand_in_the_order_in_which_they_ran() {
        let container = Container::new();
        container.hook("create", "true");
        for list in ["prestart", "createRuntime", "createContainer"] {
            container.spec_hook(list, "true", |_| {});
        }
        container.create().ok();
        let text = std::fs::read_to_string(container.log_file()).unwrap();
        let parts = [
            "\"hooksMs\":{\"hooks/create\":",
            "\"hooks.prestart[0]",
            "\"hooks.createRuntime[0]",
            "\"hooks.createContainer[0]",
        ];
        in_order(&text, &parts);
    }

    #[test]
    fn a_verb_that_fails_logs_its_times_as_well() {
        let container = Container::new();
        container.hook("create", "sleep 0.05; exit 1");
        let finished = container.create();
        finished.fails(&["hooks/create exited with status 1"]);
        let line = finished.log.last().unwrap();
        let hook = line["hooksMs"]["hooks/create"].as_f64().unwrap();
        let whole = line["durationMs"].as_f64().unwrap();
        assert!(hook >= 50.0 && whole > hook, "{line}");
        let line = container.start().log.pop().unwrap();
        assert!(line["durationMs"].as_f64().unwrap() > 0.0, "{line}");
        assert_eq!(line["hooksMs"], json!({}));
    }

    #[test]
    fn errors_of_what_is_not_supported_and_of_questions_name_command_and_container() {
        let container = Container::new();
        let id = container.id.as_str();
        for (command, words) in [
            ("exec", &["exec", "--detach", "--process", "/p", id, "sh"][..]),
            ("events", &["events", "--stats", id]),
            ("checkpoint", &["checkpoint", "--image-path=/i", id]),
            ("state", &["state", id]),
            ("ps", &["ps", id]),
        ] {
            let line = container.call(words).log.pop().unwrap();
            assert_eq!(
                (&line["command"], &line["id"]),
                (&command.into(), &id.into()),
                "{words:?}: {line}"
            );
        }
    }

    /// A log in the default form has the same.
    #[test]
    fn the_text_form_has_the_times_in_order_too() {
        let container = Container::new();
        container.hook("start", "true");
        container.create().ok();
        let log = container.beside("text");
        let mut command = Command::new(crate::programs::runtime());
        command.arg("--root").arg(container.root()).arg("--log").arg(&log);
        crate::capture::run(command.args(["start", &container.id])).ok();
        let text = std::fs::read_to_string(log).unwrap();
        in_order(
            &text,
            &["level=info", "command=\"start\"", "durationMs=", " hooksMs={\"hooks/start\":"],
        );
    }
}
