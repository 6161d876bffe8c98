//! The globs of the `os-version` label, which mean the same as in Go's `filepath.Match` on Linux: `*` and `?`
//! match anything except `/`, `[a-c]` and `[^a-c]` match one character, `\` quotes one.
//!
//! The length of a label is not limited, so a pattern is matched in place, without allocating.

use std::str::Chars;

/// Why a text is not a pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed glob {pattern:?}: {why}")]
pub(crate) struct Malformed {
    pattern: String,
    why: &'static str,
}

/// One part of a pattern.
enum Part<'a> {
    /// `*`
    Any,
    /// `?`
    One,
    Exactly(char),
    /// `members` begins after `[` or `[^`.
    Class {
        negated: bool,
        members: Chars<'a>,
    },
}

/// A checked pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glob<'a>(&'a str);

impl<'a> Glob<'a> {
    /// Checks a whole pattern, even the parts that a match may never reach.
    pub(crate) fn parse(pattern: &'a str) -> Result<Self, Malformed> {
        let mut rest = pattern.chars();
        loop {
            match part(&mut rest) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Self(pattern)),
                Err(why) => {
                    return Err(Malformed { pattern: pattern.chars().take(80).collect(), why });
                }
            }
        }
    }

    /// The characters that stand for themselves.
    pub(crate) fn literals(&self) -> impl Iterator<Item = char> {
        let mut rest = self.0.chars();
        // A checked pattern has no errors.
        let parts = std::iter::from_fn(move || part(&mut rest).unwrap_or_default());
        parts.filter_map(|part| match part {
            Part::Exactly(letter) => Some(letter),
            Part::Any | Part::One | Part::Class { .. } => None,
        })
    }

    /// Whether the whole of `text` matches.
    ///
    /// Only the last `*` is ever extended, as in Go: extending an earlier one could not help a later one. So the
    /// time is at most the square of the text's length times the length of the longest class.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.chars(), text.chars());
        // What follows the last `*`, and the text from where its match ends.
        let mut star: Option<(Chars<'_>, Chars<'_>)> = None;
        loop {
            let text_before = rest.clone();
            // A checked pattern has no errors.
            match (part(&mut pattern).unwrap_or_default(), rest.next()) {
                (None, None) => return true,
                (Some(Part::Any), _) => {
                    star = Some((pattern.clone(), text_before.clone()));
                    rest = text_before;
                    continue;
                }
                (Some(wanted), Some(found)) if wanted.admits(found) => continue,
                (Some(_), _) | (None, Some(_)) => {}
            }
            let Some((after, reach)) = &mut star else { return false };
            if reach.next().is_none_or(|found| found == '/') {
                return false;
            }
            (pattern, rest) = (after.clone(), reach.clone());
        }
    }
}

impl Part<'_> {
    fn admits(&self, found: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => found != '/',
            Self::Exactly(wanted) => found == *wanted,
            Self::Class { negated, members } => {
                let mut members = members.clone();
                let mut ranges = std::iter::from_fn(|| range(&mut members).ok());
                ranges.any(|(low, high)| (low..=high).contains(&found)) != *negated
            }
        }
    }
}

/// Takes the next part from a pattern; none at its end.
fn part<'a>(pattern: &mut Chars<'a>) -> Result<Option<Part<'a>>, &'static str> {
    let Some(found) = pattern.next() else { return Ok(None) };
    Ok(Some(match found {
        '*' => Part::Any,
        '?' => Part::One,
        '\\' => Part::Exactly(pattern.next().ok_or("it ends with a backslash")?),
        '[' => {
            let negated = next_if(pattern, '^');
            let members = pattern.clone();
            // As in Go, `]` in the first place is not a member but the end of an empty class.
            range(pattern)?;
            while !next_if(pattern, ']') {
                range(pattern)?;
            }
            Part::Class { negated, members }
        }
        plain => Part::Exactly(plain),
    }))
}

/// Takes one range of a class; a single character is a range, too.
fn range(class: &mut Chars<'_>) -> Result<(char, char), &'static str> {
    let low = member(class)?;
    let high = if next_if(class, '-') { member(class)? } else { low };
    Ok((low, high))
}

fn member(class: &mut Chars<'_>) -> Result<char, &'static str> {
    match class.next() {
        None => Err("a class [ is not closed"),
        Some(']') => Err("a class [ is empty, or a range in it has no end"),
        Some('-') => Err("a range in a class [ has no beginning"),
        Some('\\') => class.next().ok_or("it ends with a backslash"),
        Some(plain) => Ok(plain),
    }
}

fn next_if(chars: &mut Chars<'_>, wanted: char) -> bool {
    let mut ahead = chars.clone();
    let found = ahead.next() == Some(wanted);
    if found {
        *chars = ahead;
    }
    found
}

#[cfg(test)]
#[path = "glob_tests.rs"]
mod tests;

#[cfg(test)]
crate::golden_tests::errors! {
    struct Malformed { pattern, why };
}
