//! The engine's socket: from `--host`, `DOCKER_HOST` or the usual paths.

use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::engine::api::socket_of;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The usual sockets.
const BALENA_SOCKET: &str = "/var/run/balena-engine.sock";
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// An engine, and how long it may take.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) socket: PathBuf,
    /// The limit of one request.
    pub(crate) request_timeout: Duration,
    /// The limit of all requests.
    pub(crate) deadline: Instant,
}

/// `DOCKER_HOST` does not name a unix socket. The manager never asks another engine than the one that was
/// named, let alone cleans it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "DOCKER_HOST={value:?} cannot be used: it must be unix:///path/to.sock or the absolute path of a unix \
     socket (unset it, or name another socket with --host)"
)]
pub(crate) struct UnusableHost {
    value: String,
}

/// Chooses the engine's socket. `named` is `--host`, `docker_host` the value of `DOCKER_HOST`.
pub(crate) fn choose(
    named: Option<&PathBuf>,
    docker_host: Option<OsString>,
    host: &HostRoot,
) -> Result<PathBuf, UnusableHost> {
    if let Some(socket) = named {
        return Ok(socket.clone());
    }
    if let Some(value) = docker_host.filter(|value| !value.is_empty()) {
        return value
            .to_str()
            .and_then(socket_of)
            .ok_or_else(|| UnusableHost { value: value.to_string_lossy().into_owned() });
    }
    Ok(match host.find(BALENA_SOCKET) {
        Ok(balena) => balena,
        // A socket that cannot be reached may exist, so no other socket is used in its place.
        Err(error) if !is_absence(&error) => host.display_path(BALENA_SOCKET),
        Err(_) => host.find(DOCKER_SOCKET).unwrap_or_else(|_| host.display_path(BALENA_SOCKET)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_host_names_a_unix_socket_or_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        let balena = host.display_path(BALENA_SOCKET);
        for (value, expected) in [
            (None, Ok(&*balena)),
            (Some(""), Ok(&*balena)),
            (Some("unix:///run/x.sock"), Ok("/run/x.sock".as_ref())),
            (Some("/run/x.sock"), Ok("/run/x.sock".as_ref())),
            (Some("unix://x.sock"), Err("unix://x.sock")),
            (Some("x.sock"), Err("x.sock")),
            (Some("tcp://192.0.2.1:2375"), Err("tcp://192.0.2.1:2375")),
            (Some("ssh://device"), Err("ssh://device")),
        ] {
            let chosen = choose(None, value.map(OsString::from), &host);
            let expected = expected
                .map(PathBuf::from)
                .map_err(|value: &str| UnusableHost { value: value.to_owned() });
            assert_eq!(chosen, expected, "{value:?}");
            let named = PathBuf::from("/named.sock");
            assert_eq!(choose(Some(&named), value.map(OsString::from), &host), Ok(named.clone()));
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct UnusableHost { value };
}
