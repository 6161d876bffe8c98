//! Globs with the semantics of Go's `filepath.Match` on Linux, in which the claims on the OS version
//! are written: `*` and `?` match anything but `/`, `[a-c]` and `[^a-c]` one character, `\` quotes one.

/// Why a text is no pattern: a class that is empty or does not end, a range without its end, or a
/// quote of nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed glob {pattern:?}: {why}")]
pub(crate) struct Malformed {
    pattern: String,
    why: &'static str,
}

/// One part of a pattern.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// `*`
    Any,
    /// `?`
    One,
    Exactly(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A checked pattern.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Glob(Vec<Part>);

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn parse(pattern: &str) -> Result<Self, Malformed> {
        let malformed = |why| Malformed { pattern: pattern.chars().take(80).collect(), why };
        let mut parts = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(found) = chars.next() {
            parts.push(match found {
                '*' => Part::Any,
                '?' => Part::One,
                '\\' => {
                    Part::Exactly(chars.next().ok_or_else(|| malformed("it ends with a quote"))?)
                }
                '[' => class(&mut chars).map_err(malformed)?,
                plain => Part::Exactly(plain),
            });
        }
        Ok(Self(parts))
    }

    /// Whether the whole of `text` matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut part, mut at) = (0, 0);
        // Where the last `*` stands, and how far it has reached: only that one must ever be tried
        // again, so the time is bounded by the product of both lengths.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match (self.0.get(part), text.get(at)) {
                (None, None) => return true,
                (Some(Part::Any), _) => {
                    star = Some((part, at));
                    part += 1;
                    continue;
                }
                (Some(wanted), Some(found)) if wanted.admits(*found) => {
                    part += 1;
                    at += 1;
                    continue;
                }
                (Some(_), _) | (None, Some(_)) => {}
            }
            match star {
                Some((of_star, reach)) if text.get(reach).is_some_and(|found| *found != '/') => {
                    star = Some((of_star, reach + 1));
                    part = of_star + 1;
                    at = reach + 1;
                }
                Some(_) | None => return false,
            }
        }
    }
}

impl Part {
    fn admits(&self, found: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => found != '/',
            Self::Exactly(wanted) => found == *wanted,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&found)) != *negated
            }
        }
    }
}

/// What follows `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Part, &'static str> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        // As in Go, `]` in the first place is not a member but the end of an empty class.
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Part::Class { negated, ranges });
        }
        let low = member(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => member(chars)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

fn member(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, &'static str> {
    match chars.next() {
        None => Err("a class [ has no end"),
        Some(']') => Err("a class [ is empty, or a range in it has no end"),
        Some('-') => Err("a range in a class [ has no beginning"),
        Some('\\') => chars.next().ok_or("it ends with a quote"),
        Some(plain) => Ok(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(text)
    }

    /// The table of Go's own tests of `filepath.Match` (semantics, not code), Linux side.
    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "x", false),
            ("2.113.*", "2.113.4", true),
            ("2.113.*", "2.114.0", false),
            ("*", "2.113.4+rev1", true),
            ("2.1[12]?.*", "2.115.0", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_go_calls_a_bad_pattern_is_malformed() {
        for pattern in
            ["[]a]", "[-]", "[x-]", "[-x]", "a\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "[]", "[a-]"]
        {
            assert!(Glob::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches(&"*a".repeat(500), &"a".repeat(400)));
        assert!(matches(&"*a".repeat(300), &"a".repeat(4000)));
    }

    proptest! {
        #[test]
        fn a_text_without_signs_matches_itself_alone(text in "[a-z0-9.+~-]{0,12}", other in "[a-z0-9.]{0,12}") {
            prop_assert!(matches(&text, &text));
            prop_assert_eq!(matches(&text, &other), text == other);
            prop_assert!(matches("*", &text));
        }

        #[test]
        fn no_pattern_panics(pattern in "[\\[\\]a-c^*?\\\\-]{0,12}", text in "[a-c/-]{0,12}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                glob.matches(&text);
            }
        }
    }
}
