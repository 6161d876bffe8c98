//! The OCI bundle: where it is, and the bytes of its `config.json`, which `model/container/spec.rs` reads.

use crate::host::os::read::read_bounded;
use crate::model::container::spec::{self, Spec};
use std::io;
use std::path::{Path, PathBuf};

/// A bundle with its checked configuration.
pub(crate) struct Bundle {
    /// Absolute, UTF-8: it goes into JSON and into environments.
    pub(crate) path: String,
    pub(crate) spec: Spec,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot find the bundle {path:?}")]
    Locate { path: PathBuf, source: io::Error },
    #[error("the path of the bundle is not UTF-8: {path:?}")]
    NotUtf8 { path: PathBuf },
    #[error("cannot read {path:?} (--bundle names the directory that holds config.json)")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path:?} is refused")]
    Invalid { path: PathBuf, source: spec::InvalidSpec },
}

/// Loads the bundle at `path`, or that in the working directory.
pub(crate) fn load(path: Option<&Path>) -> Result<Bundle, Error> {
    let given = path.unwrap_or(Path::new("."));
    let path =
        absolute(given).map_err(|source| Error::Locate { path: given.to_owned(), source })?;
    let config = path.join("config.json");
    let bytes =
        read_bounded(&config).map_err(|source| Error::Read { path: config.clone(), source })?;
    let spec = Spec::parse(&bytes).map_err(|source| Error::Invalid { path: config, source })?;
    let path =
        path.into_os_string().into_string().map_err(|path| Error::NotUtf8 { path: path.into() })?;
    Ok(Bundle { path, spec })
}

/// Without `.`, a doubled or a trailing slash; symlinks stay as the caller wrote them.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    Ok(std::path::absolute(path)?.components().collect())
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Locate { path, source }, NotUtf8 { path }, Read { path, source }, Invalid { path, source },
    }
}
