//! Texts of a mebibyte in every place of an image, a bundle and a command line, and streams that are not read:
//! every call ends in time, and its error has at most 8 KiB, including the last cause.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::container::Container;
use crate::finished::ENGINES_REACT_TO;
use crate::full_pipe::{Full, fill};
use crate::process::{self, Started};
use crate::programs;

const MEBIBYTE: usize = 1024 * 1024;
/// The longest argument that execve(2) takes has 128 KiB.
const ARGUMENT: usize = 120_000;
/// An error with its newline, which conmon reads at once.
const ERROR_MAX: usize = 8191;
/// The limit of a call that only waits for a stream that is not read.
const PROMPT: Duration = Duration::from_secs(8);

/// The characters of a text.
fn texts() -> [String; 2] {
    ["v v ", "\u{1b}[2J\n€\"`\\ No such file or directory"]
        .map(|piece| piece.repeat(MEBIBYTE / piece.len()))
}

#[track_caller]
fn ends_in(limit: Duration, what: &str, started: &mut Started) -> i32 {
    process::wait_for_within(limit, what, || (!started.runs()).then_some(()));
    started.wait()
}

/// Fails the test unless the last error in the log is usable for an engine.
#[track_caller]
fn is_bounded(error: &str, what: &str) {
    assert!(!error.is_empty() && error.len() < ERROR_MAX, "{what}: {} bytes", error.len());
    assert!(!error.chars().any(char::is_control), "{what}: {error:?}");
    let lower = error.to_lowercase();
    for phrase in ENGINES_REACT_TO {
        assert!(!lower.contains(phrase), "{what}: {phrase:?} in {error}");
    }
}

/// Calls create with a full pipe as both streams, and returns the error.
#[track_caller]
fn error_of_create_without_a_reader(container: &Container, what: &str) -> Option<String> {
    let full = Full::new();
    error_of_create(container, what, full.end(), full.end())
}

#[track_caller]
fn error_of_create(container: &Container, what: &str, out: Stdio, err: Stdio) -> Option<String> {
    let mut command = container.create_command();
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let code = ends_in(PROMPT, what, &mut process::start(&mut command));
    let lines = container.new_log_lines();
    let line = lines.last().unwrap();
    assert!(line.to_string().len() < 4 * ERROR_MAX, "{what}: a line of {}", line.to_string().len());
    let error = (code != 0).then(|| line["msg"].as_str().unwrap().to_owned());
    if let Some(error) = &error {
        assert_eq!((code, line["level"].as_str()), (1, Some("error")), "{what}");
        is_bounded(error, what);
    }
    error
}

#[test]
fn a_mebibyte_in_any_place_of_the_bundle_is_refused_in_a_few_words_or_accepted() {
    type Change = fn(&mut Value, &str);
    let places: [(&str, Change, &str); 21] = [
        (
            "class",
            |it, text| it["annotations"]["io.balena.image.class"] = text.into(),
            "must be \"overlay\"",
        ),
        ("another label", |it, text| it["annotations"]["io.balena.image.x"] = text.into(), ""),
        (
            "a label's name",
            |it, text| {
                it["annotations"][format!("io.balena.image.{text}")] = "x".into();
            },
            "",
        ),
        (
            "os-version",
            |it, text| it["annotations"]["io.balena.image.os-version"] = text.into(),
            "",
        ),
        (
            "mount source",
            |it, text| {
                it["mounts"] = json!([{ "destination": "/x", "source": format!("/{text}") }]);
            },
            "",
        ),
        (
            "mount destination",
            |it, text| {
                it["mounts"] = json!([{ "destination": format!("/{text}"), "source": "/x" }]);
            },
            "",
        ),
        ("root.path", |it, text| it["root"]["path"] = text.into(), ""),
        ("absolute root.path", |it, text| it["root"]["path"] = format!("/{text}").into(), ""),
        ("ociVersion", |it, text| it["ociVersion"] = text.into(), "must be SemVer 1.x such as"),
        (
            "hook path",
            |it, text| {
                it["hooks"] = json!({ "prestart": [{ "path": format!("/{text}") }] });
            },
            "",
        ),
        (
            "relative hook path",
            |it, text| {
                it["hooks"] = json!({ "prestart": [{ "path": text }] });
            },
            "must be absolute",
        ),
        (
            "hook argument",
            |it, text| {
                it["hooks"] =
                    json!({ "prestart": [{ "path": "/bin/true", "args": ["true", text] }] });
            },
            "",
        ),
        (
            "hook variable",
            |it, text| {
                it["hooks"] =
                    json!({ "prestart": [{ "path": "/bin/true", "env": [format!("X={text}")] }] });
            },
            "",
        ),
        (
            "hook timeout",
            |it, text| {
                it["hooks"] = json!({ "prestart": [{ "path": "/bin/true", "timeout": text }] });
            },
            "column",
        ),
        (
            "cgroupsPath",
            |it, text| it["linux"] = json!({ "cgroupsPath": format!("/../{text}") }),
            "",
        ),
        ("slice", |it, text| it["linux"] = json!({ "cgroupsPath": format!("{text}:x:y") }), ""),
        (
            "network path",
            |it, text| {
                it["linux"] =
                    json!({ "namespaces": [{ "type": "network", "path": format!("/{text}") }] });
            },
            "",
        ),
        (
            "namespace type",
            |it, text| it["linux"] = json!({ "namespaces": [{ "type": text }] }),
            "",
        ),
        ("terminal", |it, text| it["process"]["terminal"] = text.into(), "column"),
        ("process", |it, text| it["process"] = text.into(), "column"),
        ("all of it", |it, text| *it = text.into(), "column"),
    ];
    for text in texts() {
        let begin: String = text.chars().take(3).collect();
        for (place, change, last) in &places {
            let what = format!("{place} of {begin:?}");
            let container = Container::new();
            container.configure(|config| change(config, &text));
            let error = error_of_create(&container, &what, Stdio::null(), Stdio::null());
            if !last.is_empty() {
                let error = error.unwrap_or_else(|| panic!("{what}: it is accepted"));
                assert!(error.contains(last), "{what}: {last:?} was expected in {error}");
            }
        }
    }
}

#[test]
fn a_mebibyte_that_a_hook_prints_ends_in_the_last_lines() {
    for (script, last) in [
        ("head -c 1048576 /dev/zero | tr '\\0' x; echo; echo the cause; exit 3", "the cause"),
        ("head -c 1048576 /dev/zero | tr '\\0' x >&2; echo the cause >&2; exit 3", "the cause"),
        ("yes 'No such file or directory' | head -n 50000; exit 3", "ENOENT | ENOENT"),
        ("yes \"$(printf '\\033[2J\\r\\t\"`')\" | head -c 1048576; echo end; exit 3", "end"),
    ] {
        let container = Container::new();
        container.hook("create", script);
        let error = error_of_create_without_a_reader(&container, script).unwrap();
        assert!(error.contains("hooks/create exited with status 3: "), "{error}");
        assert!(error.ends_with(last), "{script}: {error}");
    }
}

#[test]
fn the_output_of_a_hook_never_has_an_engines_phrase_except_in_the_containers_log() {
    for (printed, respelled) in [
        ("cp: /x: No such file or directory", "cp: /x: ENOENT"),
        ("mount: /x: PERMISSION DENIED.", "mount: /x: EACCES."),
        ("ls: /x: Not a directory", "ls: /x: ENOTDIR"),
        ("cat: read error: Is a directory", "cat: read error: EISDIR"),
        ("chown: Operation not permitted", "chown: EPERM"),
        ("kill: No such process", "kill: ESRCH"),
        ("exec: executable file not found in $PATH", "exec: executable: ENOENT in $PATH"),
        ("the container does not exist", "the container is missing"),
    ] {
        let container = Container::new();
        container.hook("create", &format!("echo '{printed}'; exit 1"));
        let finished = container.create();
        finished.fails(&[respelled]);
        assert_eq!(finished.out, format!("{printed}\n"), "the container's log has it as printed");
        let path = format!("/run/balena-extension-runtime-deploys/{}.json", container.id);
        let record = std::fs::read_to_string(path).unwrap();
        assert!(record.contains(printed) && record.contains(respelled), "{record}");
        // Engines read warnings as well.
        container.hook("create", "");
        container.hook("delete", &format!("echo '{printed}'; exit 1"));
        container.create().ok();
        container.start().ok();
        let finished = container.delete().ok();
        assert!(finished.warnings().contains(respelled), "{finished}");
        assert!(!finished.warnings().contains(printed), "{finished}");
    }
}

#[test]
fn a_debug_line_has_the_hooks_output_unchanged() {
    let container = Container::new();
    container.hook("create", "echo 'cp: /x: No such file or directory'");
    let finished = container.finish(&mut {
        let mut command = container.command(&["--debug", "create", "-b", container.text()]);
        command.arg(&container.id);
        command
    });
    let lines = finished.log.iter().map(|line| line["msg"].as_str().unwrap());
    assert!(lines.clone().any(|line| line.contains("No such file or directory")), "{finished}");
}

#[test]
fn an_argument_of_any_length_is_quoted_in_a_few_words() {
    let container = Container::new();
    let text = "No such file or directory ".repeat(ARGUMENT / 26);
    let path = format!("/{text}");
    let (log, id) = (container.log_file(), container.id.as_str());
    let log = log.to_str().unwrap();
    for words in [
        &["--root", &path, "--log", log, "state", id][..],
        &["--log", &path, "state", id],
        &["--log", log, "--log-format", &text, "state", id],
        &["--log", log, "--log-level", &text, "state", id],
        &["--log", log, &text],
        &["--log", log, "--frob", &text],
        &["--log", log, &format!("--{text}"), "state"],
        &["--log", log, "state", &text],
        &["--log", log, "state", &"v".repeat(ARGUMENT)],
        &["--log", log, "kill", id, &text],
        &["--log", log, "create", "--bundle", &path, id],
        &["--log", log, "create", "--bundle", container.text(), "--pid-file", &path, id],
        &["--log", log, "create", "--bundle", container.text(), "--console-socket", &path, id],
        &["--log", log, "create", "--bundle", container.text(), "--preserve-fds", &text, id],
        &["--log", log, "help", &text],
    ] {
        let mut command = Command::new(programs::runtime());
        command.env_clear();
        if !words.contains(&"--root") {
            command.arg("--root").arg(container.root());
        }
        let finished = crate::capture::run(command.args(words));
        let what: String = format!("{words:?}").chars().take(60).collect();
        assert_eq!(finished.code(), 1, "{what}: {}", finished.err);
        for line in finished.err.lines() {
            is_bounded(line, &what);
        }
    }
}

#[test]
fn a_state_of_a_mebibyte_is_damaged_in_a_few_words() {
    for text in texts() {
        let container = Container::created();
        let folder = container.root().join(&container.id);
        let state = std::fs::read(folder.join("state.json")).unwrap();
        let mut broken: Value = serde_json::from_slice(&state).unwrap();
        broken["status"] = text.as_str().into();
        std::fs::write(folder.join("state.json"), broken.to_string()).unwrap();
        for verb in ["state", "start", "kill"] {
            let finished = container.call(&[verb, &container.id]);
            is_bounded(finished.err.trim_end(), verb);
        }
        std::fs::write(folder.join("state.json"), state).unwrap();
    }
}

#[test]
fn a_create_whose_streams_are_one_full_pipe_fails_in_its_time() {
    let container = Container::new();
    container.label("io.balena.image.class", &"v".repeat(MEBIBYTE));
    let error = error_of_create_without_a_reader(&container, "class").unwrap();
    assert!(error.contains("bytes left out]\", must be \"overlay\""), "{error}");
}

#[test]
fn no_failing_call_waits_for_a_reader_of_its_error() {
    let container = Container::new();
    container.label("io.balena.image.class", &"v".repeat(MEBIBYTE));
    let (bundle, id) = (container.text(), container.id.as_str());
    for words in [
        &["create", "--bundle", bundle, id][..],
        &["run", "--bundle", bundle, id],
        &["start", id],
        &["kill", id],
        &["delete", id],
        &["state", id],
        &["exec", id],
        &["frob"],
        &["--debug", "delete", "--force", id],
    ] {
        let (pipe, (_peer, socket)) = (Full::new(), UnixStream::pair().unwrap());
        socket.set_nonblocking(true).unwrap();
        while (&socket).write(&[b'.'; 4096]).is_ok() {}
        socket.set_nonblocking(false).unwrap();
        for full in [pipe.end(), OwnedFd::from(socket).into()] {
            let mut command = Command::new(programs::runtime());
            command.env_clear().arg("--root").arg(container.root()).args(words);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(full);
            ends_in(PROMPT, &format!("{words:?}"), &mut process::start(&mut command));
        }
        assert!(
            !rustix::fs::fcntl_getfl(&pipe.write).unwrap().contains(rustix::fs::OFlags::NONBLOCK),
            "{words:?}: the flag belongs to the engine as well"
        );
    }
}

#[test]
fn an_error_reaches_a_reader_that_is_slow() {
    let container = Container::new();
    let full = Full::new();
    let mut command = container.command(&["start", &container.id]);
    let mut started = process::start(command.stdin(Stdio::null()).stderr(full.end()));
    std::thread::sleep(Duration::from_millis(200));
    let mut bytes = vec![0; 2 * MEBIBYTE];
    let mut seen = String::new();
    while !seen.ends_with(&format!("container does not exist: {}\n", container.id)) {
        let len = rustix::io::read(&full.read, &mut bytes).unwrap();
        seen.push_str(std::str::from_utf8(&bytes[..len]).unwrap());
    }
    assert_eq!(started.wait(), 1);
}

#[test]
fn no_call_waits_for_the_reader_of_a_log_that_is_a_fifo() {
    let container = Container::new();
    let fifo = container.beside("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _reader = File::options().read(true).write(true).open(&fifo).unwrap();
    fill(&fifo);
    for words in [&["--debug", "create", "-b", container.text()][..], &["start"], &["delete"]] {
        let mut command = Command::new(programs::runtime());
        command.env_clear().arg("--root").arg(container.root()).arg("--log").arg(&fifo);
        command.args(words).arg(&container.id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let code = ends_in(PROMPT, &format!("{words:?}"), &mut process::start(&mut command));
        assert_eq!(code, 0, "{words:?}: a log that cannot be written stops nothing");
    }
}

#[test]
fn a_console_socket_whose_queue_is_full_fails_create() {
    let container = Container::new();
    container.configure(|config| config["process"]["terminal"] = true.into());
    let path = container.beside("console");
    let socket = UnixListener::bind(&path).unwrap();
    // A second listen(2) changes the length of the queue.
    rustix::net::listen(&socket, 0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let mut command = container.command(&["create", "--console-socket", path.to_str().unwrap()]);
    command.args(["-b", container.text(), &container.id]);
    let begun = Instant::now();
    container.create_by(&mut command).fails(&["console socket", "full for 5 s"]);
    assert!(begun.elapsed() < 3 * PROMPT, "{:?}", begun.elapsed());
    container.left_nothing();
}
