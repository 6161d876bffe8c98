//! The manager's `check` on archives from a real dockerd. Their format depends on its version: layers named by
//! their own id in 20.10, an OCI layout besides the old manifest later.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::command::run;
use crate::docker::Docker;
use crate::engine::{Engine as _, Engines};
use crate::finished::Finished;
use crate::image::Image;
use crate::sandbox::MANAGER;
use crate::test_list::Suite;

type Shared = fn(&Docker);

const ON_THE_SHARED_DAEMON: [(&str, Shared); 3] = [
    ("an_image_of_the_engine_is_checked_like_its_archive", image_and_archive),
    ("both_images_of_an_archive_are_checked", two_images),
    ("an_image_that_the_engine_does_not_have_is_an_error", no_such_image),
];

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    for (name, scenario) in ON_THE_SHARED_DAEMON {
        let engines = Arc::clone(engines);
        suite.test(format!("check::{name}"), move || scenario(engines.docker()));
    }
}

#[track_caller]
fn check(docker: &Docker, arguments: &[&str]) -> Finished {
    let socket = format!("unix://{}", docker.socket().display());
    run(Command::new(MANAGER).args(["--host", &socket, "check"]).args(arguments))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn image_and_archive(docker: &Docker) {
    let good = Image::extension().hook("start", "true");
    docker.import(&good);
    check(docker, &[&good.name]).ok().says("(image): fine: 0 errors, 0 warnings, 0 notes");

    let mut bad = Image::unlabelled().hook("start", "true");
    bad.label("io.balena.image.class", "volume");
    docker.import(&bad);
    let saved = bad.note("saved.tar");
    docker.docker(&["save", "--output", path(&saved), &bad.name]).ok();
    for subject in [bad.name.as_str(), path(&saved)] {
        let judged = check(docker, &[subject]).fails_with(4);
        judged.says("[class]").says("unsupported io.balena.image.class=\"volume\"");
    }

    // The files of a container, without the labels of its image.
    docker.docker(&["create", "--name", "exported", &bad.name]).ok();
    let exported = bad.note("exported.tar");
    docker.docker(&["export", "--output", path(&exported), "exported"]).ok();
    let judged = check(docker, &[path(&exported)]).ok();
    judged
        .says("[no-labels]")
        .says("(export): no errors, but the labels were not checked: 0 errors, 0 warnings, 1 note");
    docker.docker(&["rm", "exported"]).ok();
    docker.remove_image(&good);
    docker.remove_image(&bad);
}

/// The images share their layer, which the archive contains once.
fn two_images(docker: &Docker) {
    let image = Image::extension().hook("start", "true");
    docker.import(&image);
    let first = image.name.clone();
    docker.docker(&["create", "--name", "base", &first]).ok();
    docker
        .docker(&["commit", "--change", "LABEL io.balena.image.override=no", "base", "second"])
        .ok();
    let saved = image.note("saved.tar");
    docker.docker(&["save", "--output", path(&saved), &first, "second"]).ok();
    let judged = check(docker, &[path(&saved)]).fails_with(4);
    judged.says(&format!("{first}:latest (image): fine")).says("second:latest (image): would fail");
    docker.docker(&["rm", "base"]).ok();
    docker.docker(&["rmi", "second"]).ok();
    docker.remove_image(&image);
}

fn no_such_image(docker: &Docker) {
    let failed = check(docker, &["registry.example/none:1"]).fails_with(1);
    failed.says("registry.example/none:1").says("the engine answered with status 404");
}
