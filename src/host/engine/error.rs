//! Errors between the manager and the engine. Each names the request.

use crate::host::engine::socket::Engine;
use crate::model::engine::api::NoCommonVersion;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the engine cannot be reached at unix://{} (is it running? to use another engine: \
         --host unix:///path/to.sock, or DOCKER_HOST)", socket.display()
    )]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("the engine at unix://{} cannot be used", socket.display())]
    Api { socket: PathBuf, source: NoCommonVersion },
    #[error("cannot {what}: the engine answered with status {status}{}", with_colon(message))]
    Refused { what: String, status: u16, message: String },
    #[error("cannot {what}: no answer from the engine within {} s", limit.as_secs_f32())]
    NoAnswer { what: String, limit: Duration },
    #[error(
        "cannot {what}: no answer from the engine within the time limit of the command (--timeout allows more)"
    )]
    OutOfTime { what: String },
    #[error("cannot {what}: stopped by a signal")]
    Stopped { what: String },
    #[error("cannot {what}: the engine's answer has more than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    #[error("cannot {what}: the engine's answer does not follow its API")]
    Garbage { what: String, source: serde_json::Error },
    #[error("cannot {what}: the connection broke before the answer was complete")]
    Broken { what: String, source: io::Error },
    #[error("cannot {what}: the engine does not speak HTTP")]
    Http { what: String, source: ureq::Error },
    #[error("cannot {what}: the request contains a name that cannot be sent")]
    Uri { what: String, source: ureq::http::Error },
    #[error("cannot {what}: the request cannot be written as JSON")]
    Unsendable { what: String, source: serde_json::Error },
}

fn with_colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Error {
    /// Classifies the failure of an exchange.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all others concern the bytes of the answer"
    )]
    pub(super) fn of_exchange(what: &str, engine: &Engine, source: ureq::Error) -> Self {
        use io::ErrorKind::{ConnectionRefused, Interrupted, NotFound, PermissionDenied};
        let what = what.to_owned();
        match source {
            ureq::Error::Timeout(_) if Instant::now() >= engine.deadline => {
                Self::OutOfTime { what }
            }
            ureq::Error::Timeout(_) => Self::NoAnswer { what, limit: engine.request_timeout },
            ureq::Error::Io(source) => match source.kind() {
                Interrupted => Self::Stopped { what },
                // Only connect(2) fails so, also if the file is not a socket.
                NotFound | ConnectionRefused | PermissionDenied => {
                    Self::Unreachable { socket: engine.socket.clone(), source }
                }
                _ => Self::Broken { what, source },
            },
            source => Self::Http { what, source },
        }
    }

    /// Whether the engine says that the object does not exist.
    pub(crate) fn is_absence(&self) -> bool {
        // An engine also answers 404 for a path that its API does not have, and a proxy may do so for every path.
        let Self::Refused { status: 404, message, .. } = self else { return false };
        let message = message.to_lowercase();
        message.contains("no such") || message.contains("not known")
    }

    /// Whether the engine reports a conflict, such as a removal in progress.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Whether the engine may be starting up: it cannot be reached, or it does not answer yet.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::Broken { .. })
    }

    /// Whether the engine did not answer, not even with an error.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.may_pass() || self.is_out_of_time()
    }

    /// Whether the result is unknown: the engine may have received the request, but its answer is missing.
    pub(crate) fn is_unknown(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable { .. }
                | Self::Api { .. }
                | Self::Refused { .. }
                | Self::Uri { .. }
                | Self::Unsendable { .. }
        )
    }

    /// Whether the deadline of the whole command was reached.
    pub(crate) fn is_out_of_time(&self) -> bool {
        matches!(self, Self::OutOfTime { .. })
    }

    /// Whether a signal came.
    pub(crate) fn is_stop(&self) -> bool {
        matches!(self, Self::Stopped { .. })
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Unreachable { socket, source }, Api { socket, source }, Refused { what, status, message },
        NoAnswer { what, limit = Duration::from_secs(7) }, OutOfTime { what }, Stopped { what },
        TooLarge { what, limit }, Garbage { what, source }, Broken { what, source },
        Http { what, source = ureq::Error::HostNotFound },
        Uri { what, source = "".parse::<ureq::http::Uri>().unwrap_err().into() },
        Unsendable { what, source },
    }
}
