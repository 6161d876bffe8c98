//! Reads a folder that holds a saved image: an OCI layout, a `docker save` that was unpacked, or what
//! `skopeo copy … dir:` and `podman save --format docker-dir` make. Its files are those of an archive.

use crate::check::read::archive::{DOCUMENT_MAX, Error, Image, Pass};
use crate::check::read::folder::open;
use crate::check::read::tar_stream::{self, Budget};
use crate::check::rules::image_documents::{self, INDEX, Invalid, MANIFEST};
use crate::check::rules::tree::join;
use std::io::{self, Read as _};
use std::path::Path;

/// How deep a saved image lies in its folder at most: `blobs/sha256/…`.
const DEPTH_MAX: usize = 4;

/// Whether the folder at `path` holds a saved image, by its manifest.
///
/// # Errors
/// A manifest is there that cannot be read.
pub(crate) fn is_saved_image(path: &Path) -> io::Result<bool> {
    if path.join("oci-layout").exists() && path.join(INDEX).exists() {
        return Ok(true);
    }
    let manifest = path.join(MANIFEST);
    if !std::fs::symlink_metadata(&manifest).is_ok_and(|found| found.is_file()) {
        // Docker before version 1.10 wrote no manifest.
        let is_old = path.join("repositories").is_file() && !path.join("usr").exists();
        return Ok(is_old);
    }
    let mut bytes = Vec::new();
    open(&manifest)?.take(DOCUMENT_MAX).read_to_end(&mut bytes)?;
    Ok(!matches!(image_documents::manifests(&bytes), Err(Invalid::NoManifest)))
}

/// Reads the images in the folder at `path`.
///
/// # Errors
/// What is wrong with it; nothing of it is used then.
pub(crate) fn read(path: &Path) -> Result<Vec<Image>, Error> {
    let budget = Budget::new();
    let mut pass = Pass::default();
    let mut ahead = vec![(String::new(), 0)];
    while let Some((folder, depth)) = ahead.pop() {
        for item in std::fs::read_dir(path.join(&folder)).map_err(tar_stream::Error::Read)? {
            let item = item.map_err(tar_stream::Error::Read)?;
            let name = join(&folder, &item.file_name().to_string_lossy());
            let found = std::fs::symlink_metadata(item.path()).map_err(tar_stream::Error::Read)?;
            pass.count(0)?;
            if found.is_dir() && depth < DEPTH_MAX {
                ahead.push((name, depth + 1));
            } else if found.is_symlink() {
                let target = std::fs::read_link(item.path()).map_err(tar_stream::Error::Read)?;
                pass.link(&name, &target.to_string_lossy());
            } else if found.is_file() {
                let mut file = open(&item.path()).map_err(tar_stream::Error::Read)?;
                pass.file_beside(&name, found.len(), &mut file, &budget)?;
            }
        }
    }
    match pass.manifests() {
        Some(manifests) => pass.images(manifests?),
        None => Err(Error::NoManifest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, create_dir};
    use std::io::Write as _;
    use std::path::PathBuf;

    fn write(path: PathBuf, text: &str) {
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_folder_is_a_saved_image_by_its_manifest_and_not_by_a_file_of_that_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(!is_saved_image(path).unwrap());
        for (text, expected) in [
            ("{}", false),
            (r#"{"name":"app","config":"x"}"#, false),
            (r#"[{"Config":"c.json","Layers":null}]"#, true),
            (r#"{"config":{"digest":"sha256:c"},"layers":[]}"#, true),
        ] {
            write(path.join(MANIFEST), text);
            assert_eq!(is_saved_image(path).unwrap(), expected, "{text}");
        }
        std::fs::remove_file(path.join(MANIFEST)).unwrap();
        write(path.join("repositories"), "{}");
        assert!(is_saved_image(path).unwrap());
        create_dir(path.join("usr")).unwrap();
        assert!(!is_saved_image(path).unwrap());
        write(path.join("oci-layout"), "{}");
        write(path.join(INDEX), "{}");
        assert!(is_saved_image(path).unwrap());
    }
}
