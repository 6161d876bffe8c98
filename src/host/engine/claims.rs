//! The claims: the kernels that deployed extensions need, from the engine's container store on disk, because the engine
//! may be down when they are needed. The initramfs reads the same store before it boots one of them.
//! `model/engine/stored_claim.rs` parses a record.

use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::engine::stored_claim::parse_stored_claim;
use crate::model::kernel::abi::Abi;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The records of the containers. `/var/lib/docker` is a bind mount of this data root, which the initramfs does not
/// see.
const CONTAINERS: &str = "/mnt/data/docker/containers";
/// The OS purges the data partition at the next boot if this file is missing.
const PURGE_MARK: &str = "/mnt/data/remove_me_to_reset";

/// Why the claims cannot be determined. This never means that there are none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnknownClaims {
    /// The partition may not be mounted, or the engine may never have run.
    #[error("cannot determine which kernels are claimed: cannot list the containers in {path:?}")]
    List { path: PathBuf, source: io::Error },
    #[error(
        "cannot determine which kernels are claimed: a purge of the data partition is pending, because {path:?} \
         cannot be read"
    )]
    PurgePending { path: PathBuf, source: io::Error },
    #[error(
        "cannot determine which kernels are claimed: cannot read the container's record {path:?}"
    )]
    ReadRecord { path: PathBuf, source: io::Error },
    #[error("cannot determine which kernels are claimed: the link {path:?} is dangling")]
    Dangling { path: PathBuf },
    #[error(
        "cannot determine which kernels are claimed: the container's record {path:?} is malformed"
    )]
    ParseRecord { path: PathBuf, source: serde_json::Error },
}

/// Reads the claims of all containers. The operation lock is held, so that no extension is being activated meanwhile.
///
/// # Errors
/// One record that cannot be read hides all claims, since its container may claim any kernel.
pub(crate) fn load_claims(host: &HostRoot) -> Result<BTreeSet<Abi>, UnknownClaims> {
    let path = |path: &Path| host.display_path(path);
    host.bytes(PURGE_MARK).map_err(|source| {
        let path = path(Path::new(PURGE_MARK));
        UnknownClaims::PurgePending { path, source }
    })?;
    let containers = Path::new(CONTAINERS);
    let names = host.names(containers);
    let names = names.map_err(|source| UnknownClaims::List { path: path(containers), source })?;
    let mut claimed = BTreeSet::new();
    for name in names {
        let record = containers.join(name).join("config.v2.json");
        let bytes = match host.bytes(&record) {
            Ok(bytes) => bytes,
            // Not a container's directory, or that of a container which the engine is removing. What a dangling link
            // leads to may be on a partition that is not mounted.
            Err(error) if is_absence(&error) => match host.dangling(&record) {
                Some(path) => return Err(UnknownClaims::Dangling { path }),
                None => continue,
            },
            Err(source) => return Err(UnknownClaims::ReadRecord { path: path(&record), source }),
        };
        let claim = parse_stored_claim(&bytes).map_err(|source| {
            let path = path(&record);
            UnknownClaims::ParseRecord { path, source }
        })?;
        claimed.extend(claim);
    }
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::extension::labels::{ABI, CLASS};
    use std::fs::{File, create_dir, create_dir_all, remove_dir_all, remove_file};
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    /// A host with no containers.
    fn host() -> (tempfile::TempDir, HostRoot) {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        create_dir_all(host.display_path(CONTAINERS)).unwrap();
        File::create(host.display_path(PURGE_MARK)).unwrap();
        (folder, host)
    }

    fn record(host: &HostRoot, id: &str, text: &str) -> PathBuf {
        let container = host.display_path(CONTAINERS).join(id);
        create_dir_all(&container).unwrap();
        let path = container.join("config.v2.json");
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    fn extension(abi: &str, state: &str) -> String {
        format!(
            r#"{{"State":{state},"Config":{{"Labels":{{"{CLASS}":"overlay","{ABI}":"{abi}"}}}}}}"#
        )
    }

    fn abi(digit: char) -> Abi {
        Abi::parse(&digit.to_string().repeat(64)).unwrap()
    }

    #[test]
    fn the_claims_of_all_deployed_extensions_are_read() {
        let (_folder, host) = host();
        assert_eq!(load_claims(&host).unwrap(), BTreeSet::new(), "none are claimed");
        record(&host, "1", &extension(abi('1').as_str(), "{}"));
        record(&host, "2", &extension(abi('2').as_str(), r#"{"Error":"no"}"#));
        record(&host, "3", &extension(abi('2').as_str(), "{}"));
        record(&host, "4", &extension(abi('4').as_str(), r#"{"Dead":true}"#));
        record(&host, "5", &extension(abi('5').as_str(), r#"{"RemovalInProgress":true}"#));
        record(&host, "6", &extension("malformed", "{}"));
        record(&host, "7", r#"{"Config":{"Labels":{}}}"#);
        let containers = host.display_path(CONTAINERS);
        // Half removed, and no container's.
        create_dir(containers.join("8")).unwrap();
        File::create(containers.join("8/hostconfig.json")).unwrap();
        File::create(containers.join("file")).unwrap();
        assert_eq!(load_claims(&host).unwrap(), BTreeSet::from([abi('1'), abi('2')]));
    }

    #[test]
    fn without_the_store_nothing_is_known() {
        let (_folder, host) = host();
        for directory in [CONTAINERS, "/mnt/data/docker"] {
            remove_dir_all(host.display_path(directory)).unwrap();
            let error = load_claims(&host).unwrap_err();
            assert!(matches!(error, UnknownClaims::List { .. }), "{error}");
        }
        File::create(host.display_path("/mnt/data/docker")).unwrap();
        assert!(matches!(load_claims(&host), Err(UnknownClaims::List { .. })));
    }

    #[test]
    fn a_pending_purge_hides_all_claims() {
        let (_folder, host) = host();
        record(&host, "1", &extension(abi('1').as_str(), "{}"));
        let mark = host.display_path(PURGE_MARK);
        for replace in [
            |_: &Path| {},
            |mark: &Path| create_dir(mark).unwrap(),
            |mark: &Path| {
                remove_dir_all(mark).unwrap();
                symlink("nowhere", mark).unwrap();
            },
        ] {
            drop(remove_file(&mark));
            replace(&mark);
            let error = load_claims(&host).unwrap_err();
            assert!(matches!(error, UnknownClaims::PurgePending { .. }), "{error}");
            assert!(error.to_string().contains("remove_me_to_reset"), "{error}");
        }
    }

    #[test]
    fn one_record_that_cannot_be_read_hides_all_claims_and_is_named() {
        let (_folder, host) = host();
        record(&host, "1", &extension(abi('1').as_str(), "{}"));
        let bad = record(&host, "2", "{");
        let error = load_claims(&host).unwrap_err();
        assert!(
            matches!(&error, UnknownClaims::ParseRecord { path, .. } if *path == bad),
            "{error}"
        );
        remove_file(&bad).unwrap();
        create_dir(&bad).unwrap();
        let error = load_claims(&host).unwrap_err();
        assert!(
            matches!(&error, UnknownClaims::ReadRecord { path, .. } if *path == bad),
            "{error}"
        );
        std::fs::remove_dir(&bad).unwrap();
        symlink("/nowhere", &bad).unwrap();
        let error = load_claims(&host).unwrap_err();
        assert!(matches!(&error, UnknownClaims::Dangling { path } if *path == bad), "{error}");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum UnknownClaims {
        List { path, source }, PurgePending { path, source }, ReadRecord { path, source },
        Dangling { path }, ParseRecord { path, source },
    }
}
