//! The words for a cause. Engines search error texts for the C library's own sentences and then
//! change the exit code or drop the error, so those sentences never appear in ours.

use crate::model::text::cut;
use crate::model::text::phrase;
use std::error::Error;
use std::io;

/// Joins an error and its sources with `: `, the outermost first, to a [`sentence`].
///
/// The sentences of the C library are replaced: dockerd turns "no such file or directory" into exit
/// status 127 and "permission denied" into 126, and containerd's shim takes "does not exist" in the
/// output of `delete` for success.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut last = 0;
    // Links in full: a cut one would not be recognized when it is repeated.
    let mut whole = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let link = match error.downcast_ref::<io::Error>() {
            Some(error) => in_words(error),
            None => error.to_string(),
        };
        // A transparent variant repeats its source's text.
        if !whole.ends_with(&link) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            let link_cut = on_one_line(link.as_str());
            let link_cut = cut::values(&link_cut);
            last = link_cut.len();
            text.push_str(&link_cut);
            whole = link;
        }
        next = error.source();
    }
    phrase::respell_quoted(&cut::middle(&text, last, cut::SENTENCE_MAX))
}

/// `text` as a sentence for a log or for standard error: on one line, no longer than whoever captures it
/// reads, and without phrases that engines react to.
pub(crate) fn sentence(text: &str) -> String {
    let line = on_one_line(text);
    phrase::respell_quoted(&cut::middle(&cut::values(&line), 0, cut::SENTENCE_MAX))
}

/// Escapes control characters: text from a command line, a document or an image must not forge a second line or move
/// the cursor of a terminal.
pub(crate) fn on_one_line(text: impl Into<String>) -> String {
    let text = text.into();
    let escaped = |found: char| match found.is_control() {
        true => found.escape_default().to_string(),
        false => found.to_string(),
    };
    if text.contains(char::is_control) { text.chars().map(escaped).collect() } else { text }
}

/// Its kind has no stable name before Rust 1.87.
const ENAMETOOLONG: i32 = 36;

/// The cause in words that no engine reacts to.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds are open-ended, all others are alike"
)]
pub(crate) fn in_words(error: &io::Error) -> String {
    let words = match error.kind() {
        io::ErrorKind::NotFound => "missing",
        // EPERM and EACCES share a kind and say different things.
        io::ErrorKind::PermissionDenied if error.raw_os_error() == Some(1) => {
            "the kernel does not permit this"
        }
        io::ErrorKind::PermissionDenied => "access is refused",
        io::ErrorKind::NotADirectory => "part of the path does not name a directory",
        io::ErrorKind::IsADirectory => "names a directory",
        io::ErrorKind::AlreadyExists => "already there",
        io::ErrorKind::StorageFull => "the filesystem is full",
        io::ErrorKind::QuotaExceeded => "the disk quota is used up",
        io::ErrorKind::ReadOnlyFilesystem => "the filesystem is read-only",
        io::ErrorKind::OutOfMemory => "memory has run out",
        _ if error.raw_os_error() == Some(ENAMETOOLONG) => "the file name is too long",
        io::ErrorKind::TimedOut => "timed out",
        _ => return without_number(error),
    };
    words.to_owned()
}

/// The C library's sentence, starting in lower case, without the ` (os error N)` that Rust adds.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    let sentence = match error.raw_os_error() {
        Some(_) => text.split(" (os error ").next().unwrap_or_default(),
        None => text.as_str(),
    };
    let mut chars = sentence.chars();
    let first = chars.next().into_iter().flat_map(char::to_lowercase);
    first.chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read /x")]
    struct Outer {
        source: io::Error,
    }

    #[test]
    fn no_sentence_that_engines_match_on_survives() {
        for errno in 1..=133 {
            let text = chain(&Outer { source: io::Error::from_raw_os_error(errno) }).to_lowercase();
            assert!(text.starts_with("read /x: "), "{text}");
            assert!(!text.contains("os error"), "{text}");
            for phrase in phrase::anywhere() {
                assert!(!text.contains(phrase), "errno {errno}: {text}");
            }
        }
    }

    #[test]
    fn a_sentence_is_bounded_whatever_it_quotes_and_its_last_cause_stays() {
        #[derive(Debug, thiserror::Error)]
        #[error("label {value:?} of {name}")]
        struct Loud {
            value: String,
            name: String,
            source: Outer,
        }
        for huge in
            ["v", "v v", "\u{1b}[2J\n", "€", "\"", "`\\", "/x", "No such file or directory "]
        {
            let value = huge.repeat(1024 * 1024 / huge.len());
            let source = Outer { source: io::Error::from_raw_os_error(5) };
            let text = chain(&Loud { name: value.clone(), value, source });
            assert!(text.len() <= cut::SENTENCE_MAX, "{} bytes for {huge:?}", text.len());
            assert!(text.starts_with("label \"") && text.contains(" bytes left out]"), "{text}");
            let end = format!(": read /x: {}", in_words(&io::Error::from_raw_os_error(5)));
            assert!(text.ends_with(&end), "{text}");
            let again = sentence(&text);
            assert!(again.len() <= cut::SENTENCE_MAX && again.ends_with(&end), "{again}");
        }
    }

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let error = io::Error::other("bad\nlevel=error\u{1b}[2J\u{85}é");
        assert_eq!(chain(&Outer { source: error }), r"read /x: bad\nlevel=error\u{1b}[2J\u{85}é");
    }

    #[test]
    fn other_causes_keep_the_c_librarys_sentence_without_the_number() {
        assert_eq!(in_words(&io::Error::from_raw_os_error(5)).to_lowercase(), {
            let raw = io::Error::from_raw_os_error(5).to_string();
            raw.split(" (os").next().unwrap().to_lowercase()
        });
        assert_eq!(in_words(&io::Error::other("Odd thing")), "odd thing");
    }
}
