//! The manager's `try` on images of a real dockerd, whose overlay2 writes the layers, whiteouts and opaque directories that
//! the view is made of.
//!
//! The root of the sandbox is an overlay whose layers it cannot reach, so the host of these tests is a small root
//! filesystem with the sandbox's own directories mounted in it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::command::run;
use crate::docker::Docker;
use crate::engine::{Engine as _, Status};
use crate::finished::Finished;
use crate::image::{CLASS, Image};
use crate::sandbox::MANAGER;
use crate::test_list::Suite;

pub(crate) fn add_to(suite: &mut Suite) {
    suite.test("manager::an_image_of_the_engine_is_tried_without_a_container", images);
    suite.test("manager::an_image_of_another_storage_driver_is_not_tried", other_driver);
    suite.test("manager::a_host_whose_own_layers_are_out_of_reach_is_refused", || {
        let docker = Docker::start(&[]);
        let image = Image::extension();
        docker.import(&image);
        let tried = run(&mut tried(&docker, &[&image.name, "--", "true"])).fails_with(125);
        tried.says("the OS's own files cannot be told from those of extensions").says("/mnt/upper");
    });
}

/// A call of `try` that finds the store by the engine's answer.
fn tried(docker: &Docker, words: &[&str]) -> Command {
    let mut command = Command::new(MANAGER);
    let socket = format!("unix://{}", docker.socket().display());
    command.args(["try", "--host", &socket]).args(words);
    command
}

/// The same on a host whose root filesystem is no overlay.
fn tried_on_a_host(docker: &Docker, words: &[&str]) -> Finished {
    let script = "
        mount -t tmpfs host /mnt; cd /mnt; mkdir usr proc dev run sys etc tmp
        for name in bin sbin lib lib64 lib32 libx32; do test ! -L /$name || cp -a /$name .; done
        echo VERSION_ID=5.0.0 >etc/os-release
        for name in usr proc dev run sys; do mount --rbind /$name $name; done
        exec chroot . \"$@\"";
    let call = tried(docker, words);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(call.get_program());
    run(command.args(call.get_args()))
}

/// Loads an image of two layers: the upper one deletes `b`, and replaces the directory `deep`.
fn load_two_layers(docker: &Docker, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for (path, text) in [("a", "a of base\n"), ("b", "b\n"), ("deep/c", "c\n")] {
        write(&format!("base/opt/tried/{path}"), text);
    }
    for (path, text) in
        [("a", "a of top\n"), (".wh.b", ""), ("deep/d", "d\n"), ("deep/.wh..wh..opq", "")]
    {
        write(&format!("top/opt/tried/{path}"), text);
    }
    let layers = ["base", "top"].map(|layer| {
        let archive = folder.path().join(format!("{layer}.tar"));
        let from = folder.path().join(layer);
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(from).arg(".")).ok();
        let sum = run(Command::new("sha256sum").arg(&archive)).ok().out;
        format!("sha256:{}", sum.split(' ').next().unwrap())
    });
    let config = json!({
        "architecture": crate::image::oci_architecture(), "os": "linux",
        "config": { "Cmd": ["extension"], "Labels": { CLASS.0: CLASS.1 } },
        "rootfs": { "type": "layers", "diff_ids": layers },
    });
    let tag = format!("{name}:latest");
    let manifest = json!([{
        "Config": "config.json", "RepoTags": [tag], "Layers": ["base.tar", "top.tar"],
    }]);
    write("config.json", &config.to_string());
    write("manifest.json", &manifest.to_string());
    let image = folder.path().join("image.tar");
    let parts = ["config.json", "base.tar", "top.tar", "manifest.json"];
    run(Command::new("tar").arg("-cf").arg(&image).arg("-C").arg(folder.path()).args(parts)).ok();
    docker.docker(&["load", "--input", image.to_str().unwrap()]).ok();
}

/// What the engine and its store have.
fn contents(docker: &Docker) -> (String, String, Vec<String>) {
    let list = |words: &[&str]| docker.docker(words).ok().out;
    let layers = fs::read_dir(docker.data_root().join("overlay2")).unwrap();
    let mut layers: Vec<String> =
        layers.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    layers.sort();
    let containers = list(&["ps", "--all", "--no-trunc", "--format={{.ID}} {{.Names}} {{.State}}"]);
    (containers, list(&["images", "--all", "--no-trunc", "--quiet"]), layers)
}

fn images() {
    let docker = Docker::start(&[]);
    load_two_layers(&docker, "two");
    let deployed = Image::extension();
    let place = deployed.rootfs().join("opt/tried");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("deployed"), "").unwrap();
    docker.import(&deployed);
    docker.begin_run("deployed", &deployed, &[]).finish_within(crate::command::LIMIT).ok();
    assert_eq!(docker.status("deployed"), Status::Exited(0));
    let before = contents(&docker);

    let list = ["--", "sh", "-c", "cd /opt/tried; find . -type f | sort; cat a"];
    let id = docker.docker(&["images", "--quiet", "--no-trunc", "two"]).ok().out;
    for name in
        ["two", "two:latest", "docker.io/library/two", id.trim(), &id["sha256:".len()..][..12]]
    {
        let seen = tried_on_a_host(&docker, &[&[name], &list[..]].concat()).ok();
        assert_eq!(seen.out, "./a\n./deep/d\n./deployed\na of top\n", "{seen}");
        assert_eq!(seen.err, "", "{seen}");
    }
    let write = ["--writable", "--", "sh", "-c", "cd /opt/tried; rm a; echo x >b; echo *; exit 9"];
    let written = tried_on_a_host(&docker, &[&["two", "--with", "deployed"], &write[..]].concat());
    assert_eq!(written.fails_with(9).out, "b deep deployed\n");
    let refused = tried_on_a_host(&docker, &["two", "--", "touch", "/opt/tried/a"]);
    refused.fails_with(1).says("Read-only file system");
    assert_eq!(contents(&docker), before);
    assert!(!Path::new("/opt/tried").exists());
}

fn other_driver() {
    let docker = Docker::start(&["--storage-driver=vfs"]);
    let image = Image::extension();
    docker.import(&image);
    let refused = tried_on_a_host(&docker, &[&image.name, "--", "true"]).fails_with(125);
    refused.says("with the storage driver \"vfs\"");
}
