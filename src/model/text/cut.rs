//! Cuts texts to a length that fits: text from an image, a bundle or a hook may have megabytes, and a program that
//! captures an error may read it late, or only the first 8 KiB.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The longest value that a sentence quotes, in bytes.
pub(crate) const VALUE_MAX: usize = 1024;
/// The longest path (`PATH_MAX` of limits.h).
pub(crate) const PATH_MAX: usize = 4096;
/// The longest sentence. With its newline it fits into the single read of 8,191 bytes that conmon does.
pub(crate) const SENTENCE_MAX: usize = 8 * 1024 - 2;
/// The length of the longest mark: `…[18446744073709551615 bytes left out]…`.
const MARK_MAX: usize = 48;

/// Part of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentencePart<'a> {
    /// The sentence's own words, and values without quotes.
    Words(&'a str),
    /// A value between quotes of one kind, which are part of it.
    Quoted(&'a str),
}

/// The beginning of `value`, with a mark that says how much is left out.
pub(crate) fn value(value: &str) -> Cow<'_, str> {
    let most = if looks_like_a_path(value) { PATH_MAX } else { VALUE_MAX };
    beginning(value, most)
}

/// Cuts the values in a sentence, one by one: each quoted value, and each word.
///
/// A sentence is looked at as it will be printed, so this covers the messages of other libraries too.
pub(crate) fn values(sentence: &str) -> Cow<'_, str> {
    if sentence.len() <= VALUE_MAX {
        return sentence.into();
    }
    let mut text = String::with_capacity(sentence.len().min(SENTENCE_MAX));
    for part in parts(sentence) {
        match part {
            SentencePart::Quoted(quoted) => {
                let mut inner = quoted.chars();
                let quote = inner.next().unwrap_or('"');
                inner.next_back();
                text.push(quote);
                text.push_str(&value(inner.as_str()));
                text.push(quote);
            }
            SentencePart::Words(words) => {
                for word in words.split_inclusive(' ') {
                    let bare = word.trim_end_matches(' ');
                    text.push_str(&value(bare));
                    text.push_str(word.get(bare.len()..).unwrap_or_default());
                }
            }
        }
    }
    text.into()
}

/// `sentence` in at most `most` bytes. The middle is left out: the beginning says what failed, and the last `last`
/// bytes are the last cause.
pub(crate) fn middle(sentence: &str, last: usize, most: usize) -> Cow<'_, str> {
    if sentence.len() <= most {
        return sentence.into();
    }
    let room = most.saturating_sub(MARK_MAX);
    let end = last.clamp(room / 2, room / 4 * 3);
    let from = first_boundary(sentence, sentence.len().saturating_sub(end));
    let until = last_boundary(sentence, room - end);
    let mut text = sentence.get(..until).unwrap_or_default().to_owned();
    // Writing into a String cannot fail.
    let _ = write!(text, "…[{} bytes left out]…", from - until);
    text.push_str(sentence.get(from..).unwrap_or_default());
    text.into()
}

/// The end of `text`, with a mark where its beginning is left out.
pub(crate) fn ending(text: &str, most: usize) -> Cow<'_, str> {
    const MARK: &str = "…";
    if text.len() <= most {
        return text.into();
    }
    let room = most.saturating_sub(MARK.len());
    let from = first_boundary(text, text.len() - room);
    format!("{MARK}{}", text.get(from..).unwrap_or_default()).into()
}

fn beginning(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let until = last_boundary(text, most.saturating_sub(MARK_MAX));
    let kept = text.get(..until).unwrap_or_default();
    format!("{kept}…[{} bytes left out]", text.len() - until).into()
}

/// Whether `value` may be an absolute path, also as `unix:///path`, `(/path)` or `"/path`.
fn looks_like_a_path(value: &str) -> bool {
    value.trim_start_matches("unix://").trim_start_matches(['(', '"', '`']).starts_with('/')
}

/// Splits a sentence into quoted values and the text between them. A quote that is not closed is an ordinary character.
pub(crate) fn parts(sentence: &str) -> impl Iterator<Item = SentencePart<'_>> {
    let mut rest = sentence;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (part, len) = match opening(rest) {
            Some((0, len)) => (SentencePart::Quoted(rest.get(..len)?), len),
            Some((start, _)) => (SentencePart::Words(rest.get(..start)?), start),
            None => (SentencePart::Words(rest), rest.len()),
        };
        rest = rest.get(len..)?;
        Some(part)
    })
}

/// Where the first quoted value begins, and how long it is with its quotes.
fn opening(text: &str) -> Option<(usize, usize)> {
    // A quote of a kind that is not closed once is not closed further on either.
    let mut unclosed = String::new();
    let mut escaped = false;
    for (start, found) in text.char_indices() {
        if matches!(found, '"' | '`') && !escaped && !unclosed.contains(found) {
            match closing(text.get(start..)?, found) {
                Some(len) => return Some((start, len)),
                None => unclosed.push(found),
            }
        }
        escaped = found == '\\' && !escaped;
    }
    None
}

/// How long the value is that `text` begins with, up to the quote that closes it.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, found) in text.char_indices().skip(1) {
        if found == quote && !escaped {
            return Some(at + quote.len_utf8());
        }
        escaped = found == '\\' && !escaped;
    }
    None
}

/// The last place at or before `most` where neither a character nor an escape is split.
fn last_boundary(text: &str, most: usize) -> usize {
    boundaries(text).take_while(|&at| at <= most).last().unwrap_or_default()
}

/// The first such place at or after `least`.
fn first_boundary(text: &str, least: usize) -> usize {
    boundaries(text).find(|&at| at >= least).unwrap_or(text.len())
}

/// Where the units of an escaped text begin: `a`, `\n`, `\"`, `\u{1b}`.
fn boundaries(text: &str) -> impl Iterator<Item = usize> {
    let mut chars = text.char_indices();
    let units = std::iter::from_fn(move || {
        let (at, found) = chars.next()?;
        if found == '\\' {
            for _ in 1..escape_len(chars.as_str()) {
                chars.next();
            }
            chars.next();
        }
        Some(at)
    });
    units.chain(std::iter::once(text.len()))
}

/// How many characters follow the backslash of an escape.
fn escape_len(behind: &str) -> usize {
    /// `u{10ffff}`
    const MAX: usize = 9;
    let digits = behind.strip_prefix("u{").unwrap_or_default();
    let end = digits.chars().take(MAX - 2).position(|digit| !digit.is_ascii_hexdigit());
    match end.filter(|&end| digits.chars().nth(end) == Some('}')) {
        Some(end) => end + 3,
        None => 1,
    }
}

/// The first 12 characters of an id of a container, image or kernel, without the name of the hash.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.trim_start_matches("sha256:");
    let end = id.char_indices().nth(12).map_or(id.len(), |(end, _)| end);
    id.get(..end).unwrap_or(id)
}

/// A size in decimal units, rounded down, as engines print it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            let tenths = bytes / (unit / 10);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_rounded_down_to_a_tenth() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_999_999, "1.9 MB"),
            (5_250_000_000, "5.2 GB"),
            (u64::MAX, "18446744.0 TB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn an_id_is_cut_to_twelve_characters() {
        for (id, expected) in [
            ("sha256:0123456789abcdef", "0123456789ab"),
            ("0123456789ab", "0123456789ab"),
            ("name", "name"),
            ("é123456789abc", "é123456789ab"),
            ("", ""),
        ] {
            assert_eq!(short_id(id), expected);
        }
    }

    fn mark_in(text: &str) -> usize {
        let (_, behind) = text.split_once("…[").unwrap();
        behind.split_once(" bytes left out]").unwrap().0.parse().unwrap()
    }

    #[test]
    fn a_value_is_cut_at_its_end_and_the_mark_says_by_how_much() {
        assert_eq!(value("short"), "short");
        assert_eq!(value(&"v".repeat(VALUE_MAX)), "v".repeat(VALUE_MAX));
        let cut = value(&"v".repeat(100_000)).into_owned();
        assert!(cut.len() <= VALUE_MAX && cut.starts_with("vvv"), "{cut}");
        assert_eq!(cut.chars().filter(|&found| found == 'v').count() + mark_in(&cut), 100_000);
        assert_eq!(value(&cut), cut, "a second cut changes nothing");
    }

    #[test]
    fn a_path_is_whole_up_to_the_longest_that_a_file_can_have() {
        for prefix in ["/", "unix:///", "(/"] {
            let path = format!("{prefix}{}", "p".repeat(4000));
            assert_eq!(value(&path), path);
            assert!(value(&path.repeat(100)).len() <= PATH_MAX);
        }
    }

    #[test]
    fn no_escape_is_split() {
        for unit in ["\\u{1b}", "\\\"", "\\n", "\\\\", "é", "\\u{10ffff}"] {
            for before in 0..12 {
                let text = format!("{}{}", "a".repeat(before), unit.repeat(2000));
                let cut = value(&text).into_owned();
                let kept = cut.split_once("…[").unwrap().0;
                let kept = kept.trim_start_matches('a');
                assert_eq!(kept, unit.repeat(kept.len() / unit.len()), "{before} before {unit}");
                let end = ending(&text, 100).into_owned();
                let kept = end.trim_start_matches('…');
                assert_eq!(kept, unit.repeat(kept.len() / unit.len()), "{before} before {unit}");
            }
        }
    }

    #[test]
    fn each_value_of_a_sentence_is_cut_and_all_else_stays() {
        let long = "v ".repeat(50_000);
        for (open, close) in [("\"", "\""), ("`", "`")] {
            let text = format!("label {open}{long}{close} is not {open}overlay{close}: bad");
            let cut = values(&text).into_owned();
            let end = format!(" is not {open}overlay{close}: bad");
            assert!(cut.starts_with(&format!("label {open}v v")) && cut.ends_with(&end), "{cut}");
            assert!(cut.len() < VALUE_MAX + 50);
            assert_eq!(values(&cut), cut);
        }
        let bare = format!("no command {} here", "v".repeat(100_000));
        let cut = values(&bare).into_owned();
        assert!(cut.starts_with("no command vvv") && cut.ends_with("left out] here"), "{cut}");
    }

    #[test]
    fn a_quote_that_is_not_closed_hides_no_value() {
        let text = format!("it printed \" and ` in {:?}: gone", "v".repeat(100_000));
        let cut = values(&text).into_owned();
        assert!(cut.len() < 3 * VALUE_MAX && cut.ends_with(" gone"), "{cut}");
        // Quadratic time would take minutes here.
        for hostile in ["`\"", "\\\"", "\"\"`", "\""] {
            values(&hostile.repeat(500_000));
        }
    }

    #[test]
    fn of_a_sentence_the_middle_is_left_out() {
        let last = "x".repeat(5000);
        let text = format!("tried {}: {last}", "y ".repeat(20_000));
        let cut = middle(&text, last.len(), SENTENCE_MAX).into_owned();
        assert!(cut.len() <= SENTENCE_MAX && cut.starts_with("tried y") && cut.ends_with(&last));
        assert_eq!(middle(&cut, 0, SENTENCE_MAX), cut);
        assert!(middle(&text, usize::MAX, SENTENCE_MAX).starts_with("tried y"));
    }

    fn awkward() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-z /:]{0,400}",
            "\\PC{0,60}",
            "[\"`\\\\un{}0-9a]{0,300}",
            "[€é𝄞]{0,400}",
            Just("\\u{10ffff}".repeat(30)),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_cut_exceeds_its_limit(text in awkward(), last in any::<usize>(), most in 100_usize..9000) {
            prop_assert!(value(&text).len() <= PATH_MAX);
            prop_assert!(ending(&text, most).len() <= most);
            prop_assert!(beginning(&text, most).len() <= most);
            prop_assert!(middle(&text, last, most).len() <= most);
        }

        #[test]
        fn the_last_cause_is_kept(text in awkward(), cause in "[a-z €]{1,1000}") {
            let whole = format!("{text}: {cause}");
            let cut = middle(&whole, cause.len(), SENTENCE_MAX).into_owned();
            prop_assert!(cut.ends_with(&cause));
        }

        #[test]
        fn a_sentence_falls_into_parts_without_a_loss(text in awkward()) {
            let whole: String = parts(&text).map(|part| match part {
                SentencePart::Words(text) | SentencePart::Quoted(text) => text,
            }).collect();
            prop_assert_eq!(whole, text);
        }

        #[test]
        fn what_is_short_is_left_alone(text in "\\PC{0,200}") {
            prop_assert_eq!(values(&text), text.as_str());
            prop_assert_eq!(middle(&text, 0, SENTENCE_MAX), text.as_str());
        }
    }
}
