//! The effects of a failing hook under every engine: the user sees the hook's own output, nothing keeps
//! running, and the container can be deployed after the cause is fixed.

use std::sync::Arc;

use crate::deployment::Deployment;
use crate::engine::{Engine, Engines, Kind};
use crate::image::Image;
use crate::processes::{assert_no_process, assert_no_proxy};
use crate::test_list::Suite;

type Scenario = fn(&dyn Engine);

const SCENARIOS: [(&str, Scenario); 7] = [
    ("a_failing_create_hook_is_quoted_and_can_be_fixed", failing_create),
    ("a_failing_start_hook_is_quoted_and_can_be_fixed", failing_start),
    ("a_failing_delete_hook_does_not_stop_the_removal", failing_delete),
    ("a_hook_killed_by_a_signal_is_reported_as_such", killed_hook),
    ("a_hook_that_cannot_be_executed_is_reported_as_such", unexecutable_hook),
    ("an_image_of_another_class_is_refused", another_class),
    ("the_output_of_a_hook_does_not_trigger_the_engines_phrases", misleading_words),
];

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    for kind in Kind::ALL {
        for (name, scenario) in SCENARIOS {
            let engines = Arc::clone(engines);
            suite.test(format!("{}::{name}", kind.name()), move || scenario(engines.get(kind)));
        }
    }
}

/// A hook that fails until the note `fixed` exists.
const FAILING: &str = "[ -e $NOTES/fixed ] && exit 0; \
     echo no room left for the extension >&2; exit 3";

fn failing_create(engine: &dyn Engine) {
    fails_until_fixed("create", engine);
}

fn failing_start(engine: &dyn Engine) {
    fails_until_fixed("start", engine);
}

fn fails_until_fixed(hook: &str, engine: &dyn Engine) {
    let extension = Deployment::of(Image::extension().hook(hook, FAILING), engine);
    let failed = extension.run(&[]).fails_with(engine.failure_code());
    let reason = format!("hook hooks/{hook} exited with status 3: no room left for the extension");
    failed.says(&engine.error(hook, &reason));
    let id = extension.id();
    assert_no_proxy(&id);
    let again = engine.start_after_failure(&extension.name);
    assert!(!again.succeeded(), "{again}");
    again.says("no room left for the extension");
    assert_no_proxy(&id);
    extension.image.write("fixed", "");
    engine.start_after_failure(&extension.name).ok();
    extension.assert_deployed();
    extension.remove();
}

fn failing_delete(engine: &dyn Engine) {
    let image = Image::extension().hook("delete", "echo delete >> $NOTES/runs; exit 3");
    let extension = Deployment::of(image, engine);
    extension.run(&[]).ok();
    extension.assert_deployed();
    extension.start().ok();
    extension.assert_deployed();
    let (id, notes) = (extension.id(), extension.image.note("runs"));
    engine.remove(&extension.name).ok();
    assert_no_process(&id);
    assert_eq!(std::fs::read_to_string(notes).unwrap(), "delete\ndelete\n");
}

fn killed_hook(engine: &dyn Engine) {
    let extension = Deployment::of(Image::extension().hook("start", "kill -9 $$"), engine);
    let failed = extension.run(&[]).fails_with(engine.failure_code());
    failed.says("hook hooks/start was killed by signal 9");
    assert_no_proxy(&extension.id());
}

fn unexecutable_hook(engine: &dyn Engine) {
    use std::os::unix::fs::PermissionsExt as _;
    let image = Image::extension().hook("create", "true");
    let path = image.rootfs().join("hooks/create");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let extension = Deployment::of(image, engine);
    // Not 126 or 127, which would tell the user about a different problem.
    let failed = extension.run(&[]).fails_with(engine.failure_code());
    failed.says("hook hooks/create").says("not executable");
}

fn another_class(engine: &dyn Engine) {
    let mut image = Image::extension().hook("create", "touch $NOTES/ran");
    image.label("io.balena.image.class", "volume");
    let extension = Deployment::of(image, engine);
    let failed = extension.run(&[]).fails_with(engine.failure_code());
    failed.says("unsupported io.balena.image.class=\"volume\", must be \"overlay\"");
    assert!(!extension.image.note("ran").exists(), "a hook ran");
}

/// For these phrases, engines report a missing or forbidden command, or ask about mounts.
fn misleading_words(engine: &dyn Engine) {
    for (printed, respelled) in [
        ("cp: /x: No such file or directory", "cp: /x: ENOENT"),
        ("mount: /x: Permission denied", "mount: /x: EACCES"),
        ("ls: /x: Not a directory", "ls: /x: ENOTDIR"),
        ("chown: Operation not permitted", "chown: EPERM"),
    ] {
        let hook = format!("echo '{printed}'; exit 1");
        let extension = Deployment::of(Image::extension().hook("create", &hook), engine);
        let failed = extension.run(&[]).fails_with(engine.failure_code());
        let reason = format!("hook hooks/create exited with status 1: {respelled}");
        let text = failed.says(&engine.error("create", &reason)).to_string();
        for guess in ["mount a directory onto a file", "not found", printed] {
            assert!(!text.contains(guess), "{guess:?} in {text}");
        }
        extension.remove();
    }
}
