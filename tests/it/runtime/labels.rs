//! The sources of labels: the spec's annotations, otherwise the engine's store; and the labels that are
//! required.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::container::Container;

const CLASS: &str = "io.balena.image.class";

/// A container whose annotations do not make it an extension.
fn unlabelled() -> Container {
    let container = Container::new();
    container.configure(|config| config["annotations"] = Value::Null);
    container.hook("create", "env > seen");
    container
}

/// Writes the engine's record of a container below a data root, and returns its path.
fn store(root: &Path, id: &str, record: &str) -> PathBuf {
    let folder = root.join("containers").join(id);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("config.v2.json");
    std::fs::write(&path, record).unwrap();
    path
}

fn record(labels: Value) -> String {
    json!({ "ID": "x", "Image": "sha256:00ff", "Config": { "Labels": labels, "Cmd": ["/none"] }, "State": {} }).to_string()
}

fn create_with_root(container: &Container, root: &Path) -> crate::finished::Finished {
    let words = container.create_command();
    let mut command = std::process::Command::new(words.get_program());
    command.arg("--docker-root").arg(root).args(words.get_args());
    container.create_by(&mut command)
}

#[test]
fn a_class_in_the_annotations_is_enough() {
    Container::created();
}

#[test]
fn the_store_below_docker_root_has_them() {
    let container = unlabelled();
    let root = container.beside("docker");
    store(
        &root,
        &container.id,
        &record(json!({ CLASS: "overlay", "io.balena.image.override": "5" })),
    );
    create_with_root(&container, &root).ok();
    assert!(container.read("seen").contains("EXTENSION_IMAGE_OVERRIDE=5"));
}

#[test]
fn both_forms_of_the_flag_are_understood() {
    let container = unlabelled();
    let root = container.beside("docker");
    store(&root, &container.id, &record(json!({ CLASS: "overlay" })));
    let words = container.create_command();
    let mut command = std::process::Command::new(words.get_program());
    command.arg(format!("--docker-root={}", root.display())).args(words.get_args());
    container.create_by(&mut command).ok();
}

#[test]
fn the_data_root_is_derived_from_the_rootfs() {
    let container = unlabelled();
    let root = container.beside("second-engine");
    store(&root, &container.id, &record(json!({ CLASS: "overlay" })));
    let merged = root.join("overlay2/0123/merged");
    std::fs::create_dir_all(merged.parent().unwrap()).unwrap();
    std::fs::rename(container.path("rootfs"), &merged).unwrap();
    container.configure(|config| config["root"]["path"] = merged.to_str().unwrap().into());
    container.create().ok();
}

#[test]
fn annotations_with_a_class_win_whole_over_the_store() {
    let container = Container::new();
    container.hook("create", "env > seen");
    let root = container.beside("docker");
    store(
        &root,
        &container.id,
        &record(json!({ CLASS: "overlay", "io.balena.image.override": "5" })),
    );
    create_with_root(&container, &root).ok();
    assert!(!container.read("seen").contains("OVERRIDE"), "{}", container.read("seen"));
}

#[test]
fn all_labels_come_from_the_store_if_the_annotations_have_no_class() {
    let container = unlabelled();
    container
        .configure(|config| config["annotations"] = json!({ "io.balena.image.override": "9" }));
    let root = container.beside("docker");
    store(&root, &container.id, &record(json!({ CLASS: "overlay" })));
    create_with_root(&container, &root).ok();
    assert!(!container.read("seen").contains("OVERRIDE"), "{}", container.read("seen"));
}

#[test]
fn labels_from_the_store_are_remembered_for_start_and_delete() {
    let container = unlabelled();
    for verb in ["start", "delete"] {
        container.hook(verb, &format!("env > {verb}.seen"));
    }
    let root = container.beside("docker");
    store(&root, &container.id, &record(json!({ CLASS: "overlay", "io.balena.image.x": "1" })));
    create_with_root(&container, &root).ok();
    std::fs::remove_dir_all(&root).unwrap();
    container.start().ok();
    container.delete().ok();
    for verb in ["start", "delete"] {
        assert!(container.read(&format!("{verb}.seen")).contains("EXTENSION_IMAGE_X=1"), "{verb}");
    }
}

#[test]
fn an_image_without_the_label_is_refused_and_the_error_names_where_it_was_looked_for() {
    let container = unlabelled();
    let root = container.beside("docker");
    let path = root.join("containers").join(&container.id).join("config.v2.json");
    let finished = create_with_root(&container, &root);
    finished.fails(&["missing required label io.balena.image.class", path.to_str().unwrap()]);
    container.left_nothing();
    assert!(!container.has("seen"), "no hook may run");
}

#[test]
fn without_any_hint_the_default_store_is_named() {
    let container = unlabelled();
    let path = format!("/var/lib/docker/containers/{}/config.v2.json", container.id);
    container.create().fails(&[
        "missing required label io.balena.image.class",
        &path,
        "--docker-root",
    ]);
}

#[test]
fn a_record_without_the_label_is_named() {
    let container = unlabelled();
    for labels in [json!(null), json!({}), json!({ "maintainer": "x" })] {
        let root = container.beside("docker");
        let path = store(&root, &container.id, &record(labels));
        let finished = create_with_root(&container, &root);
        finished.fails(&["missing required label io.balena.image.class", path.to_str().unwrap()]);
    }
}

#[test]
fn another_class_is_unsupported() {
    for class in ["volume", "Overlay", "overlay ", ""] {
        let container = Container::new();
        container.label(CLASS, class);
        let expected = format!("unsupported io.balena.image.class={class:?}, must be \"overlay\"");
        container.create().fails(&[&expected]);
        container.left_nothing();
    }
}

#[test]
fn another_class_in_the_store_is_unsupported() {
    let container = unlabelled();
    let root = container.beside("docker");
    store(&root, &container.id, &record(json!({ CLASS: "volume" })));
    let finished = create_with_root(&container, &root);
    finished.fails(&["unsupported io.balena.image.class=\"volume\", must be \"overlay\""]);
}

#[test]
fn a_label_that_would_break_out_of_its_variable_is_refused_by_name() {
    for (name, text) in [("io.balena.image.a=b", "1"), ("io.balena.image.nul", "a\0b")] {
        let container = Container::new();
        container.label(name, text);
        container.create().fails(&[&format!("{name:?}")]);
        container.left_nothing();
    }
}

mod only_ours {
    //! Podman's store, which the contract does not require.

    use super::*;

    /// Moves the rootfs to where Podman has it, next to its lists, and returns the root of the store.
    fn podman(container: &Container, list: &str) -> PathBuf {
        let root = container.beside("storage");
        let merged = root.join("overlay/0123/merged");
        std::fs::create_dir_all(merged.parent().unwrap()).unwrap();
        std::fs::rename(container.path("rootfs"), &merged).unwrap();
        container.configure(|config| config["root"]["path"] = merged.to_str().unwrap().into());
        std::fs::create_dir_all(root.join("overlay-containers")).unwrap();
        std::fs::write(root.join("overlay-containers/containers.json"), list).unwrap();
        root
    }

    #[test]
    fn the_image_in_podmans_store_has_them() {
        let container = unlabelled();
        let root =
            podman(&container, &json!([{ "id": container.id, "image": "00ff" }]).to_string());
        // The key of the blob is its digest, `sha256:00ff`, in base 64.
        let image = root.join("overlay-images/00ff");
        std::fs::create_dir_all(&image).unwrap();
        let config =
            json!({ "config": { "Labels": { CLASS: "overlay", "io.balena.image.x": "1" } } });
        std::fs::write(image.join("=c2hhMjU2OjAwZmY="), config.to_string()).unwrap();
        container.create().ok();
        assert!(container.read("seen").contains("EXTENSION_IMAGE_X=1"));
    }

    #[test]
    fn a_list_that_is_cut_off_is_named() {
        let container = unlabelled();
        let root = podman(&container, r#"[{"id":"x","im"#);
        let list = root.join("overlay-containers/containers.json");
        let texts = ["missing required label io.balena.image.class", list.to_str().unwrap(), "EOF"];
        container.create().fails(&texts);
    }

    #[test]
    fn a_list_without_the_container_is_named() {
        let container = unlabelled();
        let root = podman(&container, "[]");
        let list = root.join("overlay-containers/containers.json");
        container.create().fails(&["has no record of it", list.to_str().unwrap()]);
    }
}

mod bad_store {
    //! A store that cannot be read is named in the error about the missing label.

    use super::*;

    /// Fails unless the error names the file that cannot be read and has the texts `why`.
    fn is_reported(container: &Container, root: &Path, why: &str) {
        let path = root.join("containers").join(&container.id).join("config.v2.json");
        let finished = create_with_root(container, root);
        finished.fails(&[
            "missing required label io.balena.image.class",
            path.to_str().unwrap(),
            why,
        ]);
        container.left_nothing();
    }

    #[test]
    fn truncated() {
        let container = unlabelled();
        let root = container.beside("docker");
        let whole = record(json!({ CLASS: "overlay" }));
        for len in [0, 1, whole.len() / 2, whole.len() - 1] {
            store(&root, &container.id, &whole[..len]);
            is_reported(&container, &root, "EOF");
        }
    }

    #[test]
    fn of_wrong_types() {
        let container = unlabelled();
        let root = container.beside("docker");
        store(&root, &container.id, r#"{"Config":{"Labels":["io.balena.image.class=overlay"]}}"#);
        is_reported(&container, &root, "invalid type");
    }

    #[test]
    fn a_directory_in_its_place() {
        let container = unlabelled();
        let root = container.beside("docker");
        let path = store(&root, &container.id, "");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        is_reported(&container, &root, "not a regular file");
    }

    #[test]
    fn a_fifo_in_its_place_does_not_hang() {
        let container = unlabelled();
        let root = container.beside("docker");
        let path = store(&root, &container.id, "");
        std::fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        is_reported(&container, &root, "not a regular file");
    }

    #[test]
    fn a_loop_of_links() {
        let container = unlabelled();
        let root = container.beside("docker");
        let path = store(&root, &container.id, "");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("config.v2.json", &path).unwrap();
        is_reported(&container, &root, "cannot be read");
    }

    #[test]
    fn enormous() {
        let container = unlabelled();
        let root = container.beside("docker");
        let path = store(&root, &container.id, "");
        std::fs::File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
        is_reported(&container, &root, "1099511627776 bytes");
    }
}
