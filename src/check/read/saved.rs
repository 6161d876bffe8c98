//! Reads a directory that holds a saved image: an OCI layout, an unpacked `docker save`, or the output of
//! `skopeo copy … dir:` and `podman save --format docker-dir`. Its files are those of an archive.

use crate::check::read::archive::{ArchiveError, DOCUMENT_MAX, Pass};
use crate::check::read::directory::open;
use crate::check::rules::Subject;
use crate::check::rules::image_documents::{self, INDEX, InvalidDocument, MANIFEST};
use crate::check::rules::tree::join;
use std::io::{self, Read as _};
use std::path::Path;

/// The depth at which a saved image has its last files: `blobs/sha256/…`.
const DEPTH_MAX: usize = 4;

/// Whether the manifest in the directory at `path` is that of a saved image.
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
    Ok(!matches!(image_documents::manifests(&bytes), Err(InvalidDocument::NoManifest)))
}

/// Reads the images in the directory at `path`.
pub(crate) fn read(path: &Path) -> Result<Vec<Subject>, ArchiveError> {
    let mut pass = Pass::default();
    let mut ahead = vec![(String::new(), 0)];
    while let Some((directory, depth)) = ahead.pop() {
        for item in std::fs::read_dir(path.join(&directory))? {
            let item = item?;
            let name = join(&directory, &item.file_name().to_string_lossy());
            let found = std::fs::symlink_metadata(item.path())?;
            pass.count(0)?;
            if found.is_dir() && depth < DEPTH_MAX {
                ahead.push((name, depth + 1));
            } else if found.is_symlink() {
                let target = std::fs::read_link(item.path())?;
                pass.add_link(&name, &target.to_string_lossy());
            } else if found.is_file() {
                let file = open(&item.path())?;
                pass.add_file(&name, found.len(), file)?;
            }
        }
    }
    match pass.manifests() {
        Some(manifests) => pass.images(manifests?),
        None => Err(ArchiveError::NoManifest),
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
    fn a_directory_is_a_saved_image_by_its_manifest_and_not_by_a_file_of_that_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
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
