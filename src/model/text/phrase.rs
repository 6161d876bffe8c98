//! Phrases that engines search for in error texts. An image, a hook or a path may contain one by chance or on purpose,
//! and the engine would then report another exit status, suggest a wrong mount, or take a failure for success. In
//! quoted text they are respelled. `model/text/cause.rs` has the words for our own causes.

use crate::model::text::cut::{SentencePart, parts};
use std::borrow::Cow;
use std::ops::Range;

/// The replacements. None is longer than its phrase, so a text that was cut still fits.
type Respelling = (&'static str, &'static str);

/// Phrases that none of our own sentences needs, in lower case.
const ANYWHERE: [Respelling; 14] = [
    // dockerd and Podman: exit status 127 or 126, and a question about mounts.
    ("no such file or directory", "ENOENT"),
    ("permission denied", "EACCES"),
    ("operation not permitted", "EPERM"),
    ("not a directory", "ENOTDIR"),
    ("is a directory", "EISDIR"),
    ("executable file not found", "executable: ENOENT"),
    ("system cannot find the file specified", "ENOENT"),
    ("failed to run runc create/exec call", "runc failed"),
    // Podman, in what crun says.
    ("open executable", "open program"),
    ("`/proc/", "'/proc/"),
    // containerd's shim and CRI-O: the container is not running, so a kill that failed succeeded.
    ("no such process", "ESRCH"),
    ("process already finished", "process has ended"),
    ("invalid process", "wrong process"),
    ("no such container", "unknown container"),
];

/// Phrases that engines must find in our own sentences, and nowhere else.
const OURS: [Respelling; 2] =
    [("does not exist", "is missing"), ("container not running", "container has ended")];

/// The output of a hook, or another value, without any of the phrases.
pub(crate) fn respell(words: &str) -> String {
    let words = replaced(words.into(), &ANYWHERE);
    replaced(words, &OURS).into_owned()
}

/// A sentence of ours without phrases inside quotes. Those outside quotes are ours and are kept.
pub(crate) fn respell_quoted(sentence: &str) -> String {
    let mut text = String::with_capacity(sentence.len());
    for part in parts(sentence) {
        match part {
            SentencePart::Quoted(value) => text.push_str(&replaced(value.into(), &OURS)),
            SentencePart::Words(words) => text.push_str(words),
        }
    }
    replaced(text.into(), &ANYWHERE).into_owned()
}

fn replaced<'a>(text: Cow<'a, str>, respellings: &[Respelling]) -> Cow<'a, str> {
    let mut text = text;
    // Most texts have none of them. A replacement may make another phrase, with what stands beside it; that
    // ends, because each makes the text shorter or takes a backquote away.
    loop {
        let lower: String = text.chars().map(folded).collect();
        let found = respellings.iter().find(|(phrase, _)| lower.contains(phrase));
        let Some((phrase, replacement)) = found else { return text };
        while let Some(place) = position(&text, phrase) {
            text.to_mut().replace_range(place, replacement);
        }
    }
}

/// Where `phrase` stands in `text`, in letters of any case.
fn position(text: &str, phrase: &str) -> Option<Range<usize>> {
    text.char_indices().find_map(|(start, _)| {
        let mut found = text.get(start..)?.chars();
        let is_here = phrase.chars().all(|wanted| found.next().map(folded) == Some(wanted));
        is_here.then(|| start..text.len() - found.as_str().len())
    })
}

/// A character in lower case, as Go has it: dockerd lowers texts, and Podman matches them with `(?i)`, which
/// finds a long s for an s.
fn folded(found: char) -> char {
    match found {
        'ſ' => 's',
        'İ' => 'i',
        other => other.to_ascii_lowercase(),
    }
}

/// The phrases that no error of ours has, in lower case.
#[cfg(any(test, fuzzing))]
pub(crate) fn anywhere() -> impl Iterator<Item = &'static str> {
    ANYWHERE.iter().map(|(phrase, _)| *phrase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> impl Iterator<Item = &'static str> {
        ANYWHERE.iter().chain(&OURS).map(|(phrase, _)| *phrase)
    }

    /// As Go lowers it, and as Podman's `(?i)` reads it.
    fn lowered(text: &str) -> String {
        text.chars().map(folded).collect()
    }

    #[test]
    fn each_phrase_is_respelled_in_letters_of_any_case_and_gets_no_longer() {
        for (phrase, replacement) in ANYWHERE.iter().chain(&OURS) {
            assert!(replacement.len() <= phrase.len(), "{phrase}");
            for spelled in [(*phrase).to_owned(), phrase.to_uppercase(), phrase.replace('s', "ſ")]
            {
                assert_eq!(respell(&format!("a: {spelled}.")), format!("a: {replacement}."));
                let quoted = respell_quoted(&format!("a \"{spelled}\""));
                assert_eq!(quoted, format!("a \"{replacement}\""));
            }
        }
        assert_eq!(respell("No such fİle or directory"), "ENOENT");
        // Two that make a third.
        assert_eq!(respell("open executablno such file or directory"), "open programNOENT");
    }

    #[test]
    fn what_engines_must_find_stays_where_it_is_ours() {
        for ours in ["container does not exist: x", "container not running: x is stopped"] {
            assert_eq!(respell_quoted(ours), ours);
            let quoted = respell_quoted(&format!("{ours}: {ours:?}"));
            assert!(quoted.starts_with(ours) && quoted.matches(ours).count() == 1, "{quoted}");
        }
    }

    proptest! {
        #[test]
        fn no_phrase_is_left_or_made(
            pieces in proptest::collection::vec(prop_oneof![
                proptest::sample::select(all().collect::<Vec<_>>()).prop_map(str::to_owned),
                (proptest::sample::select(all().collect::<Vec<_>>()), 0_usize..40, any::<bool>())
                    .prop_map(|(phrase, at, first)| {
                        let (a, b) = phrase.split_at(at.min(phrase.len()));
                        if first { a.to_uppercase() } else { b.to_owned() }
                    }),
                proptest::sample::select(vec![" ", "\"", "`", "\\", "é", "no such ", "a directory"])
                    .prop_map(str::to_owned),
            ], 0..20)
        ) {
            let text = pieces.concat();
            let respelled = lowered(&respell(&text));
            for phrase in all() {
                prop_assert!(!respelled.contains(phrase), "{} in {}", phrase, respelled);
            }
            let sentence = lowered(&respell_quoted(&text));
            for phrase in anywhere() {
                prop_assert!(!sentence.contains(phrase), "{} in {}", phrase, sentence);
            }
        }
    }
}
