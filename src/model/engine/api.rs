//! The engine's API: its version, its error messages, and paths of requests.

use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// A version of the API, `1.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    major: u32,
    minor: u32,
}

impl ApiVersion {
    /// The newest version this program is tested with, Moby 26's. Moby 20.10 has 1.41; Moby 29 requires 1.44.
    pub(crate) const NEWEST: Self = Self { major: 1, minor: 45 };
    /// The oldest version with all requests: label filters of volumes came with 1.24.
    const OLDEST: Self = Self { major: 1, minor: 24 };

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// Why no version of the API is common to both sides.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoCommonVersion {
    #[error("the answer does not name a version of the Docker API; is it an engine?")]
    Silent,
    #[error("{text:?} is not a version of the Docker API")]
    Unreadable { text: String },
    #[error("the engine has version {theirs} of the Docker API, but at least {OLDEST} is needed: update the engine", OLDEST = ApiVersion::OLDEST)]
    TooOld { theirs: ApiVersion },
}

/// Chooses the version of all further requests from the header `Api-Version` of `GET /_ping`.
pub(crate) fn negotiate(header: Option<&str>) -> Result<ApiVersion, NoCommonVersion> {
    let text = header.ok_or(NoCommonVersion::Silent)?;
    let theirs = ApiVersion::parse(text)
        .ok_or_else(|| NoCommonVersion::Unreadable { text: text.chars().take(40).collect() })?;
    if theirs < ApiVersion::OLDEST {
        return Err(NoCommonVersion::TooOld { theirs });
    }
    Ok(theirs.min(ApiVersion::NEWEST))
}

/// The answer to the request that makes a volume, or finds the one of that name.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreatedVolume {
    /// The directory with its content, as the engine sees it.
    pub(crate) mountpoint: String,
}

/// The text of an error: the API's `message`, or else the whole body, on one line of limited length.
pub(crate) fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct ErrorBody {
        message: String,
    }
    const MAX: usize = 600;
    let text = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        return None;
    }
    let mut beginning: String = text.chars().take(MAX).collect();
    if beginning.len() < text.len() {
        beginning.push('…');
    }
    Some(beginning)
}

/// Percent-encodes `text` for a path of a request. Names of images contain slashes, and the API's routes accept them.
pub(crate) fn in_path(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    let encoded = text.bytes().map(|byte| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

/// The path of the socket that a URL names, if it is a unix socket: `unix:///path`, or an absolute path.
pub(crate) fn socket_of(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("unix://").unwrap_or(url);
    Some(PathBuf::from(path)).filter(|_| path.starts_with('/') && !path.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_of_both_versions_is_used() {
        for (header, expected) in [
            ("1.41", "1.41"),
            ("1.50", "1.45"),
            ("1.24", "1.24"),
            (" 1.30", "1.30"),
            ("2.0", "1.45"),
        ] {
            assert_eq!(negotiate(Some(header)).unwrap().to_string(), expected, "{header}");
        }
        assert_eq!(negotiate(None), Err(NoCommonVersion::Silent));
        let error = negotiate(Some("1.23")).unwrap_err().to_string();
        assert!(error.contains("1.23") && error.contains("at least 1.24"), "{error}");
        for header in ["", "1", "one.two", "1.-2", "-1.41"] {
            let unreadable = NoCommonVersion::Unreadable { text: header.to_owned() };
            assert_eq!(negotiate(Some(header)), Err(unreadable));
        }
    }

    #[test]
    fn the_engines_own_message_is_found_and_bounded() {
        assert_eq!(message(br#"{"message":"no such\n thing"}"#).unwrap(), "no such thing");
        assert_eq!(message(b"page not found\n").unwrap(), "page not found");
        assert_eq!(message(b" \n"), None);
        assert_eq!(message(&[b'x'; 9000]).unwrap().chars().count(), 601);
    }

    #[test]
    fn a_name_cannot_change_the_request() {
        assert_eq!(in_path("a-b_c.d:1/e"), "a-b_c.d:1/e");
        assert_eq!(in_path("a?b#c d%é"), "a%3Fb%23c%20d%25%C3%A9");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum NoCommonVersion {
        Silent, Unreadable { text }, TooOld { theirs = ApiVersion { major: 1, minor: 7 } },
    }
}
