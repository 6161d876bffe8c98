//! `check` on archives that are cut off, on directories that hold a saved image, and with `--allow` for a path.

use std::process::Command;

use serde_json::json;

use super::image::{Image, Item, archive, diff_id};
use super::{CLASS, findings, manager, write};
use crate::capture::run;

#[test]
fn an_archive_without_an_end_mark_is_read_and_said_to_be_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.tar");
    let whole = archive(&[Item::File("usr/share/x", 0o644, b"x".to_vec())]);
    std::fs::write(&path, &whole[..whole.len() - 1024]).unwrap();
    let label = format!("{CLASS}=overlay");
    let finished =
        manager(&["check", "--format", "json", "--label", &label, path.to_str().unwrap()]);
    assert_eq!(findings(&finished).into_iter().collect::<Vec<_>>(), ["cut-off"]);
    // The hash of a layer shows that it is complete.
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 1024].to_vec();
    let (_folder, path) = Image { pack: cut, ..Image::good() }.save();
    let finished = manager(&["check", "--format", "json", path.to_str().unwrap()]);
    assert_eq!(findings(&finished).into_iter().collect::<Vec<_>>(), ["layer"]);
    assert!(finished.out.contains("the configuration names sha256:"), "{finished}");
}

#[test]
fn allow_for_one_path_does_not_allow_another() {
    let image = || Image::good().file("usr/bin/su", 0o4755, "x").file("usr/bin/x", 0o4755, "x");
    let (_folder, path) = image().save();
    let path = path.to_str().unwrap();
    for (allow, status) in [
        ("setuid:/usr/bin/su", 3),
        ("setuid:usr/bin/su,setuid:usr/bin/x", 0),
        ("setuid:usr/bin", 0),
        ("owner:usr/bin", 3),
    ] {
        assert_eq!(manager(&["check", "--allow", allow, path]).code(), status, "{allow}");
    }
}

#[test]
fn a_directory_that_holds_a_saved_image_is_checked_like_its_archive() {
    let image = Image::good().file("hooks/create", 0o644, "#!/bin/sh\n");
    let (folder, path) = image.save();
    let unpacked = folder.path().join("saved");
    std::fs::create_dir(&unpacked).unwrap();
    let mut tar = Command::new("tar");
    run(tar.arg("-C").arg(&unpacked).arg("-xf").arg(&path)).ok();
    let finished = manager(&["check", "--format", "json", unpacked.to_str().unwrap()]);
    assert_eq!(findings(&finished).into_iter().collect::<Vec<_>>(), ["hook hooks/create"]);
    // As skopeo and Podman write it: the name of every part is its hash.
    let other = folder.path().join("dir");
    std::fs::create_dir(&other).unwrap();
    let hash = |name: &str| {
        let bytes = std::fs::read(unpacked.join(name)).unwrap();
        let digest = diff_id(&bytes);
        std::fs::write(other.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        json!({ "digest": digest })
    };
    let manifest = json!({ "config": hash("c.json"), "layers": [hash("1/layer.tar")] });
    write(&other, "manifest.json", &manifest.to_string());
    let finished = manager(&["check", "--format", "json", other.to_str().unwrap()]);
    assert_eq!(findings(&finished).into_iter().collect::<Vec<_>>(), ["hook hooks/create"]);
    // A file whose hash does not match is not trusted.
    let name = manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let text = std::fs::read_to_string(other.join(name)).unwrap();
    write(&other, name, &format!("{text} "));
    let finished = manager(&["check", "--format", "json", other.to_str().unwrap()]);
    let found: Vec<_> = findings(&finished).into_iter().collect();
    assert_eq!(found, ["hook hooks/create", "layer"]);
}
