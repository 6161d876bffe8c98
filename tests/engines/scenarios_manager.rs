//! The manager on a real dockerd: what cleanup removes and what it never touches, the answers of status with
//! the engine up, stopped and removed, and the record of a create that failed.
//!
//! Each scenario has its own daemon, because cleanup would remove the failed containers of other tests.

use std::process::Command;

use serde_json::Value;

use crate::command::{LIMIT, run};
use crate::docker::Docker;
use crate::engine::Engine as _;
use crate::finished::Finished;
use crate::image::Image;
use crate::sandbox::{MANAGER, RUNTIME};
use crate::test_list::Suite;

pub(crate) const KERNEL: &str = "io.balena.image.kernel-version";
pub(crate) const ABI: &str = "io.balena.image.kernel-abi-id";
pub(crate) const OS: &str = "io.balena.image.os-version";

type Scenario = fn(&Docker);

const SCENARIOS: [(&str, Scenario); 9] = [
    ("failed_and_dead_extensions_are_removed_and_nothing_else", failed_and_dead),
    ("stale_extensions_are_removed_with_images_and_volumes_on_request", stale),
    ("images_are_removed_after_the_images_built_on_them_or_kept_with_them", built_on_each_other),
    ("deactivate_runs_before_its_container_is_removed", deactivate),
    ("a_cleanup_during_deploys_removes_only_failed_containers", beside_deploys),
    ("status_comes_from_the_data_directory_when_the_engine_does_not_answer", without_an_engine),
    ("the_output_of_a_deploy_is_kept", said_at_a_deploy),
    ("a_container_of_another_runtime_is_not_applied", another_runtime),
    ("a_refused_extension_is_kept_and_status_says_why", refused),
];

pub(crate) fn add_to(suite: &mut Suite) {
    for (name, scenario) in SCENARIOS {
        suite.test(format!("manager::{name}"), move || scenario(&Docker::start(&[])));
    }
}

/// Calls the manager.
#[track_caller]
pub(crate) fn manager(docker: &Docker, arguments: &[&str]) -> Finished {
    let socket = format!("unix://{}", docker.socket().display());
    run(Command::new(MANAGER).args(["--host", &socket]).args(arguments))
}

#[track_caller]
pub(crate) fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.out).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// Imports an image with labels and runs a container called `name`, which may fail.
pub(crate) fn deploy(docker: &Docker, name: &str, image: Image, arguments: &[&str]) -> Image {
    docker.import(&image);
    drop(docker.begin_run(name, &image, arguments).finish_within(LIMIT));
    image
}

pub(crate) fn labelled(name: &str, value: &str) -> Image {
    let mut image = Image::extension();
    image.label(name, value);
    image
}

/// The names of all containers, sorted.
fn containers(docker: &Docker) -> Vec<String> {
    let listed = docker.docker(&["ps", "--all", "--format", "{{.Names}}"]).ok();
    let mut names: Vec<String> = listed.out.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// `name verdict reason` of every extension, sorted.
#[track_caller]
fn verdicts(finished: &Finished) -> Vec<String> {
    let document = json(finished);
    let extensions = document["extensions"].as_array().unwrap();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let mut verdicts: Vec<String> = extensions
        .iter()
        .map(|one| {
            format!("{} {} {}", text(one, "name"), text(one, "verdict"), text(one, "reason"))
        })
        .collect();
    verdicts.sort();
    verdicts
}

/// The directory of all containers, mounted so that nothing can be removed from it until this is dropped. One
/// container's directory would not suffice, because the engine unmounts mounts below the directories that it
/// removes.
pub(crate) struct Pinned<'a> {
    docker: &'a Docker,
    folder: String,
}

impl<'a> Pinned<'a> {
    pub(crate) fn pin(docker: &'a Docker) -> Self {
        let folder = docker.data_root().join("containers").display().to_string();
        docker.on_its_host(&["mount", "--bind", &folder, &folder]).ok();
        docker.on_its_host(&["mount", "-o", "remount,bind,ro", &folder]).ok();
        Self { docker, folder }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        drop(self.docker.on_its_host(&["umount", &self.folder]));
    }
}

/// An extension whose hook works once.
fn works_once(docker: &Docker, name: &str, hook: &str) -> Image {
    let image = Image::extension();
    let mark = image.notes().join("ran");
    let script = format!("[ ! -e {0} ] || exit 3; touch {0}", mark.display());
    deploy(docker, name, image.hook(hook, &script), &[])
}

fn failed_and_dead(docker: &Docker) {
    let _images = [
        deploy(docker, "bad-create", Image::extension().hook("create", "echo no; exit 3"), &[]),
        deploy(docker, "bad-start", Image::extension().hook("start", "echo no; exit 4"), &[]),
        works_once(docker, "second-create", "create"),
        works_once(docker, "second-start", "start"),
        deploy(docker, "clean", Image::extension().hook("start", "true"), &[]),
        deploy(docker, "files", Image::extension(), &[]),
        deploy(docker, "stale", labelled(KERNEL, "1.2.3"), &[]),
        deploy(docker, "dead", Image::extension(), &[]),
        // It is not an extension, so it is not removed.
        deploy(docker, "foreign", Image::unlabelled(), &[]),
    ];
    // They succeeded before. The list of the engine still says so; the inspection does not.
    for name in ["second-create", "second-start"] {
        assert_eq!(docker.inspect(name, "{{.State.ExitCode}}"), "0");
        docker.docker(&["start", name]).fails_with(1);
    }
    let pinned = Pinned::pin(docker);
    docker.docker(&["rm", "dead"]).fails_with(1);
    let all = containers(docker);
    let seen = verdicts(&manager(docker, &["status", "--format", "json"]).ok());
    assert_eq!(
        seen,
        [
            "bad-create failed create-failed",
            "bad-start failed start-failed",
            "clean applied hooks-ran",
            "dead dead engine-dead",
            "files pending-reboot no-hooks",
            "second-create failed create-failed",
            "second-start failed start-failed",
            "stale stale kernel-version-mismatch",
        ]
    );
    drop(pinned);
    let dry = json(&manager(docker, &["cleanup", "--dry-run", "--format", "json"]).ok());
    assert_eq!(containers(docker), all, "a dry run removes nothing");
    let real = json(&manager(docker, &["cleanup", "--format", "json"]).ok());
    assert_eq!(dry["summary"], real["summary"], "{dry:#} {real:#}");
    assert_eq!(real["summary"]["remove"], 5);
    assert_eq!(containers(docker), ["clean", "files", "foreign", "stale"]);

    // A container that cannot be removed yet and is dead afterwards counts as removed. The next cleanup removes
    // it.
    let pinned = Pinned::pin(docker);
    docker.docker(&["rm", "clean"]).fails_with(1);
    let tried = json(&manager(docker, &["cleanup", "--format", "json"]).ok());
    let results = |one: &Value| one["result"] == "left-dead";
    assert!(tried["objects"].as_array().unwrap().iter().any(results), "{tried:#}");
    assert_eq!(containers(docker), ["clean", "files", "foreign", "stale"]);
    drop(pinned);
    manager(docker, &["cleanup"]).ok().says("1 removed, 2 kept, 0 failed");
    assert_eq!(containers(docker), ["files", "foreign", "stale"]);
    manager(docker, &["cleanup"]).ok().says("0 removed, 2 kept, 0 failed");
}

fn stale(docker: &Docker) {
    let release = rustix::system::uname();
    let release = release.release().to_str().unwrap();
    let version = release.split('-').next().unwrap();
    let images = [
        deploy(docker, "kernel", labelled(KERNEL, "1.2.3"), &["--volume", "old:/data"]),
        deploy(docker, "abi", labelled(ABI, &"ab".repeat(32)), &[]),
        deploy(docker, "os", labelled(OS, "1.0,0.*"), &[]),
        deploy(docker, "glob", labelled(OS, "0.*,1*"), &["--volume", "used:/data"]),
        deploy(docker, "malformed", labelled(OS, "[,0.*"), &[]),
        deploy(docker, "fresh", labelled(KERNEL, version), &["--volume", "/data"]),
        deploy(docker, "none", Image::extension(), &[]),
    ];
    let [kernel, .., none] = &images;
    for (name, labels) in
        [("free", "--label=io.balena.image.class=overlay"), ("other", "--label=x=y")]
    {
        let claim = format!("--label={KERNEL}=1.2.3");
        docker.docker(&["volume", "create", labels, &claim, name]).ok();
    }
    // An image with two names is removed too.
    docker.docker(&["tag", &kernel.name, "second-name"]).ok();
    manager(docker, &["cleanup"]).ok().says("0 removed");
    let dry = manager(docker, &["cleanup", "--stale-os", "--dry-run", "--format", "json"]).ok();
    let real = manager(docker, &["cleanup", "--stale-os", "--format", "json"]).ok();
    let (dry, real) = (json(&dry), json(&real));
    assert_eq!(dry["summary"], real["summary"]);
    assert_eq!(real["summary"]["remove"], 3 + 3 + 1, "{real:#}");
    assert_eq!(containers(docker), ["fresh", "glob", "malformed", "none"]);
    let left = docker.docker(&["images", "--format", "{{.Repository}}"]).ok().out;
    let left: Vec<&str> = left.lines().collect();
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left.contains(&none.name.as_str()) && !left.contains(&"second-name"));
    let volumes = docker.docker(&["volume", "ls", "--quiet"]).ok().out;
    // `old` has no labels, so it has no claims. The anonymous volume is in use.
    for (name, there) in [("old", true), ("used", true), ("other", true), ("free", false)] {
        assert_eq!(volumes.lines().any(|volume| volume == name), there, "{name} in {volumes}");
    }
    manager(docker, &["cleanup", "--stale-os"]).ok().says("0 removed");
}

fn built_on_each_other(docker: &Docker) {
    let parents: Vec<Image> = (0..2).map(|_| labelled(OS, "0.*")).collect();
    for (image, child, claim) in
        [(&parents[0], "stale-child", "0.1*"), (&parents[1], "child", "1*")]
    {
        docker.import(image);
        let created = docker.docker(&["create", "--name", child, &image.name, "x"]);
        assert!(created.out.len() > 12, "{created}");
        // Twice, so that an image without a name is between the two.
        let (between, last) = ("--change=LABEL step=1", format!("--change=LABEL {OS}={claim}"));
        let id = docker.docker(&["commit", between, child]).ok().out;
        docker.docker(&["rm", "--force", child]).ok();
        docker.docker(&["create", "--name", child, id.trim(), "x"]).ok();
        docker.docker(&["commit", &last, child, child]).ok();
        docker.docker(&["rm", "--force", child]).ok();
    }
    let dry = manager(docker, &["cleanup", "--stale-os", "--dry-run", "--format", "json"]).ok();
    let real = manager(docker, &["cleanup", "--stale-os", "--format", "json"]).ok();
    let (dry, real) = (json(&dry), json(&real));
    assert_eq!(dry["summary"], real["summary"]);
    assert_eq!(
        (&real["summary"]["remove"], &real["summary"]["keep"]),
        (&2.into(), &2.into()),
        "{real:#}"
    );
    let left = docker.docker(&["images", "--format", "{{.Repository}}"]).ok().out;
    let mut left: Vec<&str> = left.lines().collect();
    left.sort_unstable();
    let mut expected = vec!["child", parents[1].name.as_str()];
    expected.sort_unstable();
    assert_eq!(left, expected);
}

/// Deploys, some of which fail, with cleanups between all their steps. Every extension that was deployed exists
/// at the end.
fn beside_deploys(docker: &Docker) {
    let good = Image::extension().hook("create", "sleep 0.1").hook("start", "sleep 0.1");
    let bad = Image::extension().hook("start", "sleep 0.1; exit 3");
    docker.import(&good);
    docker.import(&bad);
    let mut cleanups = 0;
    for round in 0..4 {
        let begun: Vec<_> = (0..4)
            .map(|number| {
                let good_one = docker.begin_run(&format!("good-{round}-{number}"), &good, &[]);
                let bad_one = docker.begin_run(&format!("bad-{round}-{number}"), &bad, &[]);
                (good_one, bad_one)
            })
            .collect();
        for _ in 0..5 {
            manager(docker, &["cleanup"]).ok();
            cleanups += 1;
        }
        for (good_one, bad_one) in begun {
            good_one.finish_within(LIMIT).ok();
            assert_ne!(bad_one.finish_within(LIMIT).code(), 0);
        }
    }
    assert_eq!(cleanups, 20);
    manager(docker, &["cleanup"]).ok();
    let left = containers(docker);
    assert_eq!(left.len(), 16, "{left:?}");
    assert!(left.iter().all(|name| name.starts_with("good-")), "{left:?}");
}

fn deactivate(docker: &Docker) {
    let image = labelled(KERNEL, "1.2.3");
    let notes = image.notes();
    let volumes = ["--volume", "good:/good", "--volume", "bad:/bad", "--volume", "/anonymous"];
    let shared = ["--volume", "shared:/shared", "--volume", "bound:/bound"];
    let image = deploy(docker, "stale", image, &[&volumes[..], &shared].concat());
    let put = |path: &str, script: &str| {
        let path = std::path::Path::new(path).join("deactivate");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    };
    let mounted = |destination: &str| {
        let template = format!(
            "{{{{range .Mounts}}}}{{{{if eq .Destination {destination:?}}}}}{{{{.Source}}}}{{{{end}}}}{{{{end}}}}"
        );
        docker.inspect("stale", &template)
    };
    let note = |name: &str| format!("echo $EXTENSION_ROOTFS > {}/{name}", notes.display());
    for (destination, script) in [
        ("/good", note("good")),
        ("/bad", "echo cannot; exit 5".to_owned()),
        ("/anonymous", note("anonymous")),
        ("/shared", note("shared")),
        ("/bound", note("bound")),
    ] {
        put(&mounted(destination), &script);
    }
    let paths = ["/good", "/anonymous"].map(&mounted);
    // Two containers that are not extensions and have never run. One uses the volume, the other its directory.
    let bind = format!("{}:/app", mounted("/bound"));
    let app = deploy(docker, "app", Image::unlabelled(), &["--volume", "shared:/app"]);
    let other = deploy(docker, "other", Image::unlabelled(), &["--volume", &bind]);
    let dry = manager(docker, &["cleanup", "--stale-os", "--dry-run"]).fails_with(1);
    for path in &paths {
        assert!(dry.out.contains(&format!("runs {path}/deactivate")), "{dry}");
    }
    let finished = manager(docker, &["cleanup", "--stale-os"]).fails_with(1);
    let finished = finished.says("hook deactivate exited with status 5: cannot");
    assert_eq!(image.read("good").trim(), paths[0]);
    assert_eq!(image.read("anonymous").trim(), paths[1]);
    finished
        .says("container app, which is not an extension, also uses the volume")
        .says("container other, which is not an extension, also uses the volume's directory");
    assert_eq!((image.read("shared"), image.read("bound")), (String::new(), String::new()));
    assert_eq!(containers(docker), ["app", "other"]);
    drop((app, other));
}

/// An extension that was run without `--runtime` and whose command succeeds.
fn another_runtime(docker: &Docker) {
    let image = Image::extension().hook("start", "touch $NOTES/ran");
    // Any program that needs no library.
    std::fs::copy(RUNTIME, image.rootfs().join("program")).unwrap();
    docker.import(&image);
    let words = ["run", "--network=none", "--name=forgot", &image.name, "/program", "--version"];
    docker.docker(&words).ok();
    assert_eq!(docker.inspect("forgot", "{{.State.ExitCode}}"), "0");
    assert!(!image.note("ran").exists());
    let status = manager(docker, &["status", "--format", "json"]).ok();
    assert_eq!(verdicts(&status), ["forgot failed other-runtime"]);
    let next = json(&status)["extensions"][0]["next"].as_str().unwrap().to_owned();
    assert!(next.contains("docker run --runtime extension"), "{next}");
    docker.docker(&["rm", "forgot"]).ok();
    let run = docker.begin_run("forgot", &image, &["--network=none"]).finish_within(LIMIT);
    run.ok();
    let status = manager(docker, &["status", "--format", "json"]).ok();
    assert_eq!(verdicts(&status), ["forgot applied hooks-ran"]);
}

fn without_an_engine(docker: &Docker) {
    let reboot = labelled("io.balena.update.requires-reboot", "1");
    let _images = [
        deploy(docker, "clean", Image::extension().hook("start", "true"), &[]),
        deploy(docker, "bad", Image::extension().hook("create", "echo no; exit 3"), &[]),
        deploy(docker, "reboot", reboot.hook("start", "true"), &[]),
        deploy(docker, "stale", labelled(OS, "0.*"), &[]),
        deploy(docker, "foreign", Image::unlabelled(), &[]),
    ];
    let expected = [
        "bad failed create-failed",
        "clean applied hooks-ran",
        "reboot pending-reboot requires-reboot",
        "stale stale os-version-mismatch",
    ];
    let status =
        |words: &[&str]| manager(docker, &[&["status", "--format", "json"], words].concat());
    let up = status(&[]).ok();
    assert_eq!(verdicts(&up), expected, "{up}");
    assert_eq!(json(&up)["source"], "engine", "{up}");
    let root = docker.data_root();
    let root = root.to_str().unwrap();
    docker.stop_daemon();
    let stopped = status(&["--request-timeout", "1", "--docker-root", root]).ok();
    docker.continue_daemon();
    assert_eq!(verdicts(&stopped), expected, "{stopped}");
    assert_eq!(json(&stopped)["source"], "store", "{stopped}");
    stopped.says("no answer from the engine");
    let gone = status(&["--host", "unix:///run/nowhere.sock", "--docker-root", root]).ok();
    assert_eq!(verdicts(&gone), expected, "{gone}");
}

fn said_at_a_deploy(docker: &Docker) {
    let script = "echo from the hook; echo to stderr >&2; exit 3";
    let image = deploy(docker, "bad", Image::extension().hook("create", script), &[]);
    let logs = manager(docker, &["logs", "bad"]).ok();
    for text in ["create failed", "from the hook", "to stderr", "exited with status 3"] {
        assert!(logs.out.contains(text), "{text:?} was expected of {logs}");
    }
    assert!(docker.docker(&["logs", "bad"]).out.is_empty(), "the engine has thrown it away");
    let inspected = json(&manager(docker, &["inspect", "bad"]).ok());
    assert_eq!(inspected["extension"]["verdict"], "failed");
    assert_eq!(inspected["deploy"]["steps"][0]["verb"], "create");
    assert!(inspected["extension"]["detail"].as_str().unwrap().starts_with("hook hooks/create"));

    docker.docker(&["rm", "bad"]).ok();
    let good = Image::extension().hook("create", "echo one").hook("start", "echo two");
    let good = deploy(docker, "good", good, &[]);
    let logs = manager(docker, &["logs", "good"]).ok();
    for text in ["create succeeded", "one", "start succeeded", "two"] {
        assert!(logs.out.contains(text), "{text:?} was expected of {logs}");
    }
    drop((image, good));
}

fn refused(docker: &Docker) {
    let image = labelled(ABI, "not-an-ABI");
    std::fs::create_dir(image.rootfs().join("boot")).unwrap();
    std::fs::write(image.rootfs().join("boot/vmlinuz"), "").unwrap();
    let _image = deploy(docker, "kernel", image, &[]);
    manager(docker, &["cleanup"]).ok();
    let status = manager(docker, &["status", "--format", "json"]).ok();
    assert_eq!(verdicts(&status), ["kernel refused refused-by-runtime"]);
    let detail = json(&status)["extensions"][0]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("the image brings its own kernel"), "{detail}");
    manager(docker, &["logs", "kernel"]).ok().says("start refused the extension");
}
