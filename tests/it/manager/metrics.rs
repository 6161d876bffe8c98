//! `status --format prometheus`: from a recorded engine, from its store, and what remains of an old file.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::host::{BLOCK, BOOT, Host};
use super::recorded_engine::Answer;
use super::recorded_store::{Container, Contents, KERNEL, Store, labels};
use crate::capture::run;

const WORDS: [&str; 3] = ["status", "--format", "prometheus"];
const RECORD: &str = "run/balena-extension-manager-cleanup.json";

/// The value of a series.
fn value(text: &str, series: &str) -> Option<String> {
    let mut lines = text.lines();
    lines.find_map(|line| Some(line.strip_prefix(series)?.strip_prefix(' ')?.to_owned()))
}

#[track_caller]
fn is_readable(text: &str, fact: &str) -> bool {
    let found = value(text, &format!("balena_extension_readable{{fact=\"{fact}\"}}"));
    found.unwrap_or_else(|| panic!("no {fact}: {text}")) == "1"
}

fn digest(text: &str) -> Option<&str> {
    let start = "balena_extension_applied_set_info{digest=\"";
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(start)?.strip_suffix("\"} 1"))
}

fn applied(id: &str, image: &str) -> Container {
    Container { image: image.to_owned(), ..Container::new(id) }
}

/// The metrics of a host on which these containers were deployed.
fn metrics_of(host: &Host, containers: &[Container]) -> String {
    containers.iter().for_each(|one| host.deployed(&one.id, &["hooks/start"]));
    let _engine = host.engine(&Store::of(containers));
    host.manager(&WORDS).ok().out
}

#[test]
fn a_file_is_replaced_whole_and_for_everybody_to_read() {
    let host = Host::new();
    host.deployed("a", &["hooks/start"]);
    let _engine = host.engine(&Store::of(&[applied("a", "sha256:i")]));
    let printed = host.manager(&WORDS).ok().out;
    assert!(
        printed.contains("balena_extension_verdict{name=\"name-of-a\",verdict=\"applied\"} 1\n")
    );
    let directory = host.path("collector");
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("x.prom");
    for _ in 0..2 {
        // As the unit sets it.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 0077 && exec \"$@\"", "sh"]);
        let call = host.command(&WORDS);
        command.arg(call.get_program()).args(call.get_args()).arg("--output").arg(&file);
        let finished = run(&mut command).ok();
        assert!(finished.out.is_empty() && finished.err.is_empty(), "{finished}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), printed);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    }
    for (path, why) in [("collector", "not a regular file"), ("nowhere/x.prom", "missing")] {
        let path = host.path(path);
        let finished = run(host.command(&WORDS).arg("--output").arg(&path));
        assert_eq!(finished.code(), 1, "{finished}");
        let expected = format!("cannot replace {path:?}: ");
        assert!(finished.err.contains(&expected) && finished.err.contains(why), "{finished}");
    }
}

#[test]
fn without_engine_and_store_or_on_a_signal_the_old_file_remains() {
    let host = Host::new();
    host.write("x.prom", "old");
    let file = host.path("x.prom");
    let remains = || std::fs::read_to_string(&file).unwrap() == "old";
    let finished = run(host.command(&WORDS).arg("--output").arg(&file));
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("container store") && remains(), "{finished}");
    let printed = host.manager(&WORDS);
    assert_eq!((printed.code(), printed.out.as_str()), (1, ""));

    let engine = host.engine_but(&Store::of(&[applied("a", "sha256:i")]), |_, path| {
        path.starts_with("/images").then_some(Answer::Hang)
    });
    let mut call = host.command(&WORDS);
    let mut started = crate::process::start(call.arg("--output").arg(&file));
    let hangs = || engine.requests().iter().any(|one| one.contains("/images")).then_some(());
    crate::process::wait_for("the list of images", hangs);
    crate::process::signal(started.pid(), rustix::process::Signal::TERM);
    assert_eq!(started.wait(), 4);
    assert!(remains());
    // An engine that does not answer in time is no engine without images.
    let finished = run(host.command(&WORDS).args(["--request-timeout", "2"])).ok();
    assert!(!is_readable(&finished.out, "stale-images"), "{finished}");
    assert!(!finished.out.contains("_stale_images_bytes"), "{finished}");
    assert!(finished.err.contains("the size of stale images is unknown: "), "{finished}");
}

#[test]
fn the_digest_is_that_of_the_images_in_any_order_under_any_name() {
    let ids = ["sha256:bb", "sha256:aa"];
    let host = Host::new();
    let text = metrics_of(&host, &[applied("1", ids[0]), applied("2", ids[1])]);
    let own = digest(&text).unwrap().to_owned();
    let sum = run(Command::new("sh").args(["-c", "printf 'aa\\nbb\\n' | sha256sum"])).ok().out;
    assert_eq!(sum.split(' ').next().unwrap(), own);
    let text =
        metrics_of(&host, &[applied("8", ids[1]), applied("9", ids[1]), applied("3", ids[0])]);
    assert_eq!(digest(&text), Some(own.as_str()));
    let text = metrics_of(&host, &[applied("1", ids[0])]);
    assert!(digest(&text).is_some_and(|other| other != own), "{text}");
    // A verdict that is unknown makes the set unknown.
    let running = Container { state: "running", ..applied("2", ids[1]) };
    let text = metrics_of(&host, &[applied("1", ids[0]), running]);
    assert!(digest(&text).is_none() && !is_readable(&text, "applied-set"), "{text}");
    // So does an item of the list that may be an extension.
    let _engine = host.engine_but(&Store::of(&[]), |_, path| {
        path.starts_with("/containers/json?").then(|| Answer::Json(200, json!([{ "Id": 7 }])))
    });
    let text = host.manager(&WORDS).ok().out;
    assert!(digest(&text).is_none() && !is_readable(&text, "containers"), "{text}");
}

#[test]
fn from_the_store_of_an_engine_that_is_down_only_what_it_shows() {
    let host = Host::new();
    let record = json!({
        "ID": "a", "Name": "/a", "State": { "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0 },
        "Image": "sha256:i", "Config": { "Image": "img", "Labels": labels(&[]) },
    });
    host.write("var/lib/docker/containers/a/config.v2.json", &record.to_string());
    host.deployed("a", &["hooks/start"]);
    let text = host.manager(&WORDS).ok().out;
    assert_eq!(value(&text, "balena_extension_containers").unwrap(), "1");
    let info = "balena_extension_info{id=\"a\",image=\"img\",image_id=\"sha256:i\",name=\"a\",reason=\"hooks-ran\"}";
    assert_eq!(value(&text, info).unwrap(), "1");
    assert!(!is_readable(&text, "engine") && !is_readable(&text, "stale-images"), "{text}");
    assert!(is_readable(&text, "containers") && digest(&text).is_some(), "{text}");
    assert!(!text.contains("_stale_images_bytes"), "{text}");
    host.write("var/lib/docker/containers/broken/config.v2.json", "{");
    let text = host.manager(&WORDS).ok().out;
    assert!(!is_readable(&text, "containers") && digest(&text).is_none(), "{text}");
}

#[test]
fn stale_images_are_those_that_cleanup_would_remove() {
    let old = labels(&[(KERNEL, "5.10.0")]);
    let user = |state| Container { state, image: "used".to_owned(), ..Container::new("user") };
    let contents = |state| Contents {
        containers: vec![Container { labels: json!({}), ..user(state) }],
        images: vec![
            ("used".to_owned(), old.clone()),
            ("unused".to_owned(), old.clone()),
            ("other".to_owned(), labels(&[])),
        ],
        volumes: vec![("v".to_owned(), old.clone())],
    };
    let host = Host::new();
    let engine = host.engine(&Store::new(contents("exited")));
    let text = host.manager(&WORDS).ok().out;
    assert_eq!(value(&text, "balena_extension_stale_images_bytes").unwrap(), "1000");
    let asked = engine.requests();
    assert!(!asked.iter().any(|one| one.contains("/system/df")), "slow for an engine: {asked:?}");
    // It cannot be judged.
    std::fs::remove_file(host.path("proc/sys/kernel/osrelease")).unwrap();
    let text = host.manager(&WORDS).ok().out;
    assert!(!is_readable(&text, "stale-images"), "{text}");
    assert!(!text.contains("_stale_images_bytes"), "{text}");
}

#[test]
fn the_boots_of_a_trial_are_those_of_the_block_or_unknown() {
    let host = Host::new();
    let _engine = host.engine(&Store::of(&[]));
    let boots = || value(&host.manager(&WORDS).ok().out, "balena_extension_kernel_trial_boots");
    assert_eq!(boots().unwrap(), "0", "there is no block");
    host.mounts(BOOT);
    host.write("mnt/boot/bootenv", &format!("{BLOCK}kernel_override_trial=2\n####"));
    assert_eq!(boots().unwrap(), "0", "the count is left over: no kernel is armed");
    let armed = format!("{BLOCK}kernel_override_abi={}\nkernel_override_trial=2\n", "a".repeat(64));
    host.write("mnt/boot/bootenv", &format!("{armed}####"));
    assert_eq!(boots().unwrap(), "2");
    let committed = format!("{armed}kernel_override_abi_committed_A={}\n####", "a".repeat(64));
    host.write("mnt/boot/bootenv", &committed);
    assert_eq!(boots(), None, "it is on trial in slot B only, and the slot is unknown");
    host.write("mnt/boot/bootenv", "torn");
    assert_eq!(boots(), None);
    let finished = host.manager(&WORDS).ok();
    assert!(!is_readable(&finished.out, "kernel-trial"), "{finished}");
    assert!(finished.err.contains("boot environment"), "{finished}");
}

#[test]
fn a_cleanup_leaves_its_time_and_its_failures() {
    let failed = Container { error: "no", state: "created", ..Container::new("x") };
    let host = Host::new();
    let engine = host.engine_but(&Store::of(&[failed]), |method, _| {
        (method == "DELETE").then(|| Answer::Json(500, json!({ "message": "no" })))
    });
    let time = |text: &str| value(text, "balena_extension_last_cleanup_timestamp_seconds");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    host.manager(&["cleanup", "--dry-run"]).ok();
    let text = host.manager(&WORDS).ok().out;
    assert!(time(&text).is_none() && is_readable(&text, "last-cleanup"), "{text}");
    let before = now();
    assert_eq!(host.manager(&["cleanup"]).code(), 1);
    let text = host.manager(&WORDS).ok().out;
    let recorded: u64 = time(&text).unwrap().parse().unwrap();
    assert!((before..=now()).contains(&recorded), "{text}");
    assert_eq!(value(&text, "balena_extension_last_cleanup_failures").unwrap(), "1");
    drop(engine);
    let _engine = host.engine(&Store::of(&[]));
    host.manager(&["cleanup"]).ok();
    let text = host.manager(&WORDS).ok().out;
    assert_eq!(value(&text, "balena_extension_last_cleanup_failures").unwrap(), "0");

    host.write(RECORD, "{\"time\":1");
    let finished = host.manager(&WORDS).ok();
    assert!(time(&finished.out).is_none() && !is_readable(&finished.out, "last-cleanup"));
    assert!(finished.err.contains("cannot parse"), "{finished}");
    // Only a record is missing then.
    std::fs::remove_file(host.path(RECORD)).unwrap();
    std::fs::create_dir(host.path(RECORD)).unwrap();
    let finished = host.manager(&["cleanup"]).ok();
    assert!(finished.err.contains("cannot record this cleanup in"), "{finished}");
    let names = std::fs::read_dir(host.path("run")).unwrap();
    let names: Vec<_> = names.map(|one| one.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{names:?}");
}
