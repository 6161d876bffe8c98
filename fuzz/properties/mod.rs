//! The entry points of the fuzz targets in `fuzz/`, compiled for them alone (`--cfg fuzzing`). Each
//! takes any bytes and panics when something does not hold that must hold of every input;
//! docs/fuzzing.md lists what that is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a property that does not hold is told by a panic"
)]

pub mod check;
pub mod block;
mod glob_grammar;
pub mod engine;
pub mod manager;
pub mod override_records;
pub mod store;

use crate::cli::log_options::{LogOptions, Need, Stderr};
use crate::cli::manager as manager_line;
use crate::cli::runtime::{Command, parse};
use crate::host::container::guard::Report;
use crate::model::container::cgroup;
use crate::model::container::environment;
use crate::model::container::exit::{Unrunnable, elf_machine, interpreter, quote};
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::Status;
use crate::model::container::proxy::{self, Life, Stat};
use crate::model::container::signal::Signal;
use crate::model::container::spec::{Mount, Network, Spec, SpecHooks, Terminal};
use crate::model::container::state::{Parsed, ProxyIs, State};
use crate::model::extension::hook::PATH;
use crate::model::text::cause::chain;
use crate::model::text::cut;
use crate::model::text::log::{Fact, Format, Level, line};
use crate::model::text::phrase;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path};

/// `config.json` (`model/container/spec.rs`), and what is made of it: the hooks' environment, the cgroup.
pub fn config(bytes: &[u8]) {
    let spec = match Spec::parse(bytes) {
        Ok(spec) => spec,
        Err(error) => return assert_one_line(&error),
    };
    assert!(!spec.root_path.is_empty() && !spec.root_path.contains('\0'));
    assert!(spec.cgroups_path.as_deref() != Some(""));
    if let Network::Joined(path) = &spec.network {
        assert!(!path.is_empty() && !path.contains('\0'));
    }
    for (_, hooks) in spec.hooks.lists() {
        for hook in hooks {
            assert!(hook.path.starts_with('/') && hook.timeout.is_none_or(|seconds| seconds > 0));
            // execve(2) takes no string with a NUL.
            let strings = hook.args.iter().chain(&hook.env).chain([&hook.path]);
            assert!(strings.into_iter().all(|text| !text.contains('\0')));
        }
    }
    let recorded = serde_json::to_vec(&spec.hooks).expect("hooks are JSON");
    let read: SpecHooks = serde_json::from_slice(&recorded).expect("what was written is read");
    assert_eq!(read, spec.hooks);

    assert_no_prefix(bytes, |prefix| Spec::parse(prefix).is_ok());
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        assert_reads_the_same(&spec, &value);
    }
    if let Some(path) = &spec.cgroups_path {
        check_cgroup(path);
    }
    check_environment(&spec.root_path, &spec.annotations, &spec.mounts);
}

/// What another reader finds in the same document.
fn assert_reads_the_same(spec: &Spec, value: &Value) {
    assert!(["process", "root"].iter().all(|name| value[name].is_object()), "{value}");
    assert!(value["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")));
    assert_eq!(value["root"]["path"].as_str(), Some(spec.root_path.as_str()));
    let terminal = value["process"]["terminal"] == true;
    assert_eq!(spec.terminal != Terminal::None, terminal);
    let annotations = value["annotations"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(spec.annotations.len(), annotations);
    for (name, text) in &spec.annotations {
        assert_eq!(value["annotations"][name].as_str(), Some(text.as_str()));
    }
    let none = Vec::new();
    let mounts = value["mounts"].as_array().unwrap_or(&none);
    assert_eq!(spec.mounts.len(), mounts.len());
    for (mount, found) in spec.mounts.iter().zip(mounts) {
        assert_eq!(found["destination"].as_str(), Some(mount.destination.as_str()));
        assert_eq!(found["source"].as_str().unwrap_or_default(), mount.source);
    }
    if value["hooks"].is_object() {
        for (list, hooks) in spec.hooks.lists() {
            assert_eq!(value["hooks"][list].as_array().map_or(0, Vec::len), hooks.len(), "{list}");
        }
    }
    let mut wider = value.clone();
    wider["org.example.unknown"] = serde_json::json!({ "a": [null, 1] });
    let wider = serde_json::to_vec(&wider).expect("a value is JSON");
    let again = Spec::parse(&wider).expect("an unknown property is ignored");
    assert_eq!(format!("{again:?}"), format!("{spec:?}"));
}

/// `state.json` (`model/container/state.rs`).
pub fn state(bytes: &[u8]) {
    let state = match State::parse(bytes) {
        Parsed::Ours(state) => state,
        Parsed::Foreign => return,
        Parsed::Damaged { why, .. } | Parsed::Unidentified { why } => {
            return assert_one_line(&io::Error::other(why));
        }
    };
    let written = state.to_bytes().expect("a state is JSON");
    let Parsed::Ours(read) = State::parse(&written) else { panic!("what was written is not read") };
    assert_eq!(read, state);
    let is_ours = |prefix: &[u8]| matches!(State::parse(prefix), Parsed::Ours(_));
    assert_no_prefix(bytes, is_ours);
    assert_no_prefix(&written, is_ours);
    assert!(state.proxy().is_none_or(|identity| identity.pid > 0));
    for proxy_is in [ProxyIs::Alive, ProxyIs::Gone] {
        let status = state.true_status(proxy_is);
        match proxy_is {
            ProxyIs::Gone => assert!(!matches!(status, Status::Created | Status::Running)),
            ProxyIs::Alive => assert_ne!(status, Status::Stopped),
        }
        let view = serde_json::to_value(state.view(status)).expect("a view is JSON");
        assert_eq!(view["status"], status.to_string());
        assert_eq!(view["id"], state.id);
        if status == Status::Stopped {
            assert_eq!(view["pid"], 0);
        }
    }
}

/// A container id (`model/container/id.rs`).
pub fn container_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match ContainerId::parse(text) {
        Ok(id) => {
            assert_eq!(id.as_str(), text);
            assert!(text.len() <= 1024);
            assert_one_component(text);
            let first = text.as_bytes()[0];
            assert!(first.is_ascii_alphanumeric() || first == b'_');
            assert!(
                text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte))
            );
            // The proxy is recognized by its command line, which no id may blur.
            let words: Vec<Vec<u8>> =
                proxy::command_line(text).split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
            assert_eq!(words.len(), 5);
            assert_eq!((words[3].as_slice(), words[4].as_slice()), (bytes, [].as_slice()));
        }
        Err(error) => assert_one_line(&error),
    }
}

/// A signal (`model/container/signal.rs`).
pub fn signal(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let signal = match Signal::parse(text) {
        Ok(signal) => signal,
        Err(error) => {
            // kill(1) and engines send these.
            assert!(!text.parse::<u8>().is_ok_and(|number| number <= 64) || text.starts_with('+'));
            return assert_one_line(&error);
        }
    };
    let number = signal.number();
    assert!((0..=64).contains(&number));
    assert_eq!(Signal::parse(&number.to_string()), Ok(signal));
    assert_eq!(Signal::parse(&text.to_ascii_lowercase()), Ok(signal));
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        assert_eq!(Signal::parse(&format!("SIG{name}")), Ok(signal));
        assert_eq!(Signal::parse(name), Ok(signal));
    }
}

/// `linux.cgroupsPath` (`model/container/cgroup.rs`).
pub fn cgroups_path(bytes: &[u8]) {
    if let Ok(path) = std::str::from_utf8(bytes) {
        check_cgroup(path);
    }
}

fn check_cgroup(path: &str) {
    let leaf = match cgroup::leaf(path) {
        Ok(leaf) => leaf,
        Err(error) => return assert_one_line(&error),
    };
    // Joined to the root of a hierarchy, it names something below it.
    let joined = Path::new("/sys/fs/cgroup").join(&leaf);
    assert!(joined.components().all(|part| part != Component::ParentDir));
    assert!(joined.starts_with("/sys/fs/cgroup") && joined != Path::new("/sys/fs/cgroup"));
    assert!(!leaf.contains('\0'));
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    assert!(leaf.split('/').all(plain), "{leaf:?}");
    assert_eq!(cgroup::leaf(&format!("/{leaf}")), Ok(leaf));
}

/// Labels and mounts as the hooks' environment (`model/extension/hook.rs`). The input is a list of fields with
/// 0xFF between them, which no text has: the rootfs, then for each label `L` and its name, and its
/// value; for each mount `M` and its destination, and its source.
pub fn environment(bytes: &[u8]) {
    let mut fields = bytes.split(|&byte| byte == 0xff).map(String::from_utf8_lossy);
    let rootfs = fields.next().unwrap_or_default().into_owned();
    let (mut labels, mut mounts) = (BTreeMap::new(), Vec::new());
    while let (Some(name), Some(text)) = (fields.next(), fields.next()) {
        if let Some(name) = name.strip_prefix('L') {
            labels.insert(name.to_owned(), text.into_owned());
        } else if let Some(destination) = name.strip_prefix('M') {
            mounts.push(Mount { destination: destination.to_owned(), source: text.into_owned() });
        }
    }
    check_environment(&rootfs, &labels, &mounts);
}

fn check_environment(rootfs: &str, labels: &BTreeMap<String, String>, mounts: &[Mount]) {
    let environment = match environment::environment(rootfs, labels, mounts) {
        Ok(environment) => environment,
        Err(error) => return assert_one_line(&error),
    };
    let (labels, mounts) = (named(labels), mounts_named(mounts));
    let variables = &environment.variables;
    assert_eq!(variables[0], PATH);
    assert_eq!(variables[1], format!("EXTENSION_ROOTFS={rootfs}"));
    let mut names = BTreeSet::new();
    let mut sections = Vec::new();
    for variable in variables {
        // As the kernel takes it, and as getenv(3) reads it.
        assert!(!variable.contains('\0') && variable.len() < 128 * 1024);
        let (name, text) = variable.split_once('=').expect("a name and a value");
        assert!(!name.chars().any(char::is_control));
        assert!(names.insert(name), "{name} is set twice");
        if let Some(sources) = labels.get(name) {
            assert!(sources.contains(text));
            sections.push((2, name));
        } else if let Some(sources) = mounts.get(name) {
            assert!(sources.contains(text));
            sections.push((3, name));
        } else {
            assert!(name == "PATH" || name == "EXTENSION_ROOTFS", "{name} is nobody's");
        }
    }
    assert!(sections.is_sorted());
    assert_eq!(names.len(), 2 + labels.len() + mounts.len());
    let shared = labels.values().chain(mounts.values()).filter(|sources| sources.len() > 1);
    assert!(shared.count() <= environment.collisions.len());
}

/// The variables that labels make, each with the values it may have, by the words of the contract.
fn named(labels: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<&str>> {
    let mut named: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (label, text) in labels {
        if let Some(name) = label.strip_prefix("io.balena.image.") {
            let name = name.to_uppercase().replace('-', "_");
            named.entry(format!("EXTENSION_IMAGE_{name}")).or_default().insert(text);
        }
    }
    named
}

fn mounts_named(mounts: &[Mount]) -> BTreeMap<String, BTreeSet<&str>> {
    let mut named: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for mount in mounts.iter().filter(|mount| mount.destination != "/") {
        if let Some(name) = mount.destination.strip_prefix('/') {
            let name = name.to_uppercase().replace(['/', '-'], "_");
            named.entry(format!("EXTENSION_VOLUME_{name}")).or_default().insert(&mount.source);
        }
    }
    named
}

/// The command lines of both programs (`cli`). The input is the words with a NUL between them, as
/// `/proc/PID/cmdline` has them.
pub fn command_line(bytes: &[u8]) {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let words: Vec<OsString> =
        bytes.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    if let Err(answer) = manager_line::parse(&words) {
        // clap's answers have several lines; each tells where the help is.
        assert!(!answer.use_stderr() || answer.exit_code() == 2);
        assert!(!answer.to_string().is_empty());
    }
    let (globals, command) = parse(&words);
    match command {
        // These two end the line where they stand.
        Ok(Command::Help { .. } | Command::Version) => {}
        Ok(command) => {
            let mut expected = log_flags(&words);
            if matches!(command, Command::Create(_)) {
                expected.stderr = Stderr::Container;
            }
            if matches!(command, Command::Create(_) | Command::Start { .. } | Command::Run { .. }) {
                expected.need = Need::Demanded;
            }
            assert_eq!(globals.log, expected);
        }
        Err(error) => assert_one_line(&error),
    }
}

/// The log flags as the parser of the whole command line sees them.
fn log_flags(words: &[OsString]) -> LogOptions {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_args(words.iter().cloned());
    let mut options = LogOptions::default();
    loop {
        match parser.next().expect("the line is right") {
            Some(Long("log")) => options.file = Some(parser.value().unwrap().into()),
            Some(Long("log-format")) => {
                let json = parser.value().unwrap() == "json";
                options.format = Some(if json { Format::Json } else { Format::Text });
            }
            Some(Long("log-level")) => {
                options.level = Level::parse(&parser.value().unwrap().to_string_lossy());
            }
            Some(Long("debug")) => options.level = Some(Level::Debug),
            Some(Long("rootless")) => drop(parser.optional_value()),
            Some(Long("root" | "docker-root" | "criu" | "cgroup-manager")) => {
                parser.value().unwrap();
            }
            Some(Long(_) | Short(_)) => {}
            Some(Value(_)) | None => return options,
        }
    }
}

/// `/proc/PID/stat` (`model/container/proxy.rs`): as it is; and as the name of a command in one that the kernel
/// wrote, which may be anything.
pub fn proc_stat(bytes: &[u8]) {
    proxy::parse_stat(bytes);
    let head = u64::from(u32::from_le_bytes(*bytes.first_chunk().unwrap_or(&[7; 4])));
    for (letter, life) in [("S", Life::Alive), ("R", Life::Alive), ("Z", Life::Ended)] {
        let start_time = head * 1_000_003;
        let mut text = b"77 (".to_vec();
        text.extend(bytes);
        let rest = "1 77 76 0 -1 4194560 10 0 0 0 0 0 0 0 20 0 1 0";
        text.extend(format!(") {letter} {rest} {start_time} 1 2 3\n").into_bytes());
        let stat = Stat { start_time, parent: 1, session: 76, life };
        assert_eq!(proxy::parse_stat(&text), Some(stat));
    }
}

/// What is said of a hook that failed (`model/container/exit.rs`), from its output or the file's head,
/// and what its guard reports (`host/container/guard.rs`).
pub fn hook_failure(bytes: &[u8]) {
    if let Some(said) = quote(bytes) {
        assert!(!said.trim().is_empty() && said.chars().count() <= 1025);
        assert_printable(&said);
    }
    if let Some(path) = interpreter(bytes) {
        assert!(bytes.starts_with(b"#!"));
        assert!(!path.is_empty() && !path.contains([' ', '\t', '\n']));
    }
    if elf_machine(bytes).is_some() {
        assert!(bytes.starts_with(b"\x7fELF"));
    }
    for errno in [1, 2, 5, 8, 12, 13, 20, 26, 80] {
        let why = Unrunnable { head: bytes, errno, machine: "x86_64" }.to_string();
        assert!(!why.is_empty());
        assert_one_line(&io::Error::other(why));
    }
    Report::parse(bytes);
}

/// A line of the log (`model/text/log.rs`) with any message and any field.
pub fn log_line(bytes: &[u8]) {
    let message = String::from_utf8_lossy(bytes);
    let fields =
        [("id", Fact::Text(message.to_string())), ("level", Fact::Text("info".to_owned()))];
    for format in [Format::Json, Format::Text] {
        let text = line(format, "2026-01-02T03:04:05Z", Level::Error, &message, &fields);
        let text = text.strip_suffix('\n').expect("a line ends");
        // A reader of lines sees one, and a terminal no escape sequence.
        assert!(!text.chars().any(|found| found < ' '), "{text:?}");
        if format == Format::Json {
            let value: Value = serde_json::from_str(text).expect("a line is JSON");
            assert_eq!(value["level"], "error");
            assert_eq!(value["msg"], message.as_ref());
            // A value has a limit, which the message has been given before.
            assert_eq!(value["id"], cut::value(&message).as_ref());
        } else {
            assert!(text.starts_with("time=\"2026-01-02T03:04:05Z\" level=error msg=\""));
        }
    }
}

/// An error is one line of printable text wherever it is written.
fn assert_one_line(error: &(dyn Error + 'static)) {
    assert_fit(&chain(error));
}

fn assert_printable(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// What an error must be, whatever it quotes: engines read it.
fn assert_fit(text: &str) {
    assert_printable(text);
    assert!(text.len() <= cut::SENTENCE_MAX, "{} bytes", text.len());
    let lower = text.to_lowercase();
    for phrase in phrase::anywhere() {
        assert!(!lower.contains(phrase), "{phrase:?} in {text}");
    }
}

fn assert_one_component(text: &str) {
    let mut components = Path::new(text).components();
    assert!(matches!(components.next(), Some(Component::Normal(name)) if name == text), "{text:?}");
    assert_eq!(components.next(), None);
}

/// No document that is cut off is taken for a whole one.
fn assert_no_prefix(bytes: &[u8], accepted: impl Fn(&[u8]) -> bool) {
    let whole = bytes.trim_ascii_end();
    let step = (whole.len() / 16).max(1);
    for end in (0..whole.len()).step_by(step).chain(whole.len().checked_sub(1)) {
        assert!(!accepted(&whole[..end]), "the first {end} of {} bytes", whole.len());
    }
}
