//! The globs against facts that Go publishes (the table of its own tests of `filepath.Match`, for
//! Linux), and against a second implementation (`fuzz/properties/glob_grammar.rs`), made from the grammar in Go's documentation.

#[path = "../../../fuzz/properties/glob_grammar.rs"]
mod glob_grammar;

use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn matches(pattern: &str, text: &str) -> bool {
    Glob::parse(pattern).unwrap().matches(text)
}

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
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
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
        ("a[^a][^a][^a]b", "a☺b", false),
        ("[a-ζ]*", "α", true),
        ("*[a-ζ]", "A", false),
        ("a?b", "a/b", false),
        ("a*b", "a/b", false),
        ("[\\]a]", "]", true),
        ("[\\-]", "-", true),
        ("[x\\-]", "x", true),
        ("[x\\-]", "-", true),
        ("[x\\-]", "z", false),
        ("[\\-x]", "x", true),
        ("[\\-x]", "-", true),
        ("[\\-x]", "a", false),
        ("*x", "xxx", true),
        ("", "", true),
        ("", "x", false),
        ("*", "", true),
        ("?", "", false),
        // A range that ends before it begins has nothing in it.
        ("[c-a]", "b", false),
        ("[^c-a]", "b", true),
        // `]`, `-` and `^` are themselves outside of a class, `*`, `?`, `[` and `,` in one.
        ("]-^", "]-^", true),
        ("[*?[,]", "[", true),
        ("[*?[,]", "x", false),
        ("[a^]", "^", true),
        ("[\\^a]", "^", true),
        // A class may have a `/`, and what it leaves out has it.
        ("a[/]b", "a/b", true),
        ("a[^x]b", "a/b", true),
        // A star is never tried again behind a later one, which shows when a class takes a `/`.
        ("*[^a]*b", "xx/yb", false),
        ("2.113.*", "2.113.4", true),
        ("2.113.*", "2.114.0", false),
        ("*", "2.113.4+rev1", true),
        ("2.1[12]?.*", "2.115.0", true),
        ("2.113", "2.113.4", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
    }
}

/// Go finds them whatever the text is, also where an earlier part does not match it.
#[test]
fn what_go_calls_a_bad_pattern_is_malformed() {
    for pattern in [
        "[]a]", "[-]", "[x-]", "[-x]", "a\\", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a/b[",
        "[]", "[^]", "[x-]]", "[a-]", "[a-\\", "[\\", "[a", "[^]a]", "*[", "zzz[", "a*b[]",
    ] {
        assert!(Glob::parse(pattern).is_err(), "{pattern}");
        let error = Glob::parse(pattern).unwrap_err().to_string();
        assert!(error.starts_with("malformed glob \""), "{error}");
    }
}

#[test]
fn hostile_patterns_take_no_time() {
    const LEN: usize = 64 * 1024;
    let fill = |text: &str| text.repeat(LEN / text.len());
    let version = "1.2.3-".repeat(10);
    let many = "a".repeat(4000);
    let started = Instant::now();
    for (pattern, text, expected) in [
        (fill("*a"), many.as_str(), false),
        (fill("*a") + "*b", &many, false),
        ("*a".repeat(2000) + "*", &many, true),
        (fill("*"), &many, true),
        (fill("*") + "b", &many, false),
        (fill("*?"), &many, false),
        ("*?".repeat(4000), &many, true),
        (fill("*[^b]"), &many, false),
        (String::from("*") + &"a".repeat(2000) + "b", &many, false),
        (fill("*1.2.3-"), &version, false),
        (format!("*[{}]", fill("b")), &version, false),
        (format!("*[{}-]", fill("b")).replace("-]", "\\-]"), &version, true),
        (fill("\\a"), &many, false),
    ] {
        let shown: String = pattern.chars().take(20).collect();
        assert_eq!(matches(&pattern, text), expected, "{shown}…");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_text_is_a_pattern_or_not_as_documented(
        pattern in "[\\[\\]ab^*?\\\\/é-]{0,10}|[a*]?\\[\\^?([a-bé]|[\\]\\[\\\\-]|b-){0,4}\\]{0,2}[a*\\\\]?",
    ) {
        let documented = glob_grammar::matches(&pattern, "").is_some();
        prop_assert_eq!(Glob::parse(&pattern).is_ok(), documented);
    }

    /// Versions have no `/`; what a class may do with one is in the table above.
    #[test]
    fn any_pattern_matches_as_documented(
        pattern in "([*?]|[a-cé.]|\\\\[*\\[a-c]|\\[\\^?([a-c]|a-b|b-é|\\\\[\\]\\\\-]|\\*){1,3}\\]|[ab]\\*){0,7}",
        text in "[a-cé.*\\]\\\\-]{0,9}",
    ) {
        let documented = glob_grammar::matches(&pattern, &text).expect("it is well-formed");
        prop_assert_eq!(matches(&pattern, &text), documented);
    }

    #[test]
    fn separators_stop_stars_as_documented(
        pattern in "([*?/]|[ab]|\\\\[*/a]){0,8}",
        text in "[ab/]{0,9}",
    ) {
        let documented = glob_grammar::matches(&pattern, &text).expect("it is well-formed");
        prop_assert_eq!(matches(&pattern, &text), documented);
    }

    /// Most texts do not match most patterns: here the pattern is made from the text.
    #[test]
    fn a_text_matches_itself_with_parts_made_general(text in "[a-z0-9.+~/-]{0,16}", choices in prop::collection::vec(0..6_u8, 16)) {
        let general = |(found, choice): (char, &u8)| match (choice, found) {
            (0, found) if found != '/' => "*".to_owned(),
            (1, found) if found != '/' => "?".to_owned(),
            (2, found) => format!("[\\{found}]"),
            (3, found) => format!("[^\\{}]", if found == 'q' { 'r' } else { 'q' }),
            (4, found) => format!("\\{found}"),
            (_, found) => found.to_string(),
        };
        // A class may take a `/` away that a star would need; see the table above.
        let choices = choices.iter().map(|choice| if text.contains('/') && *choice == 3 { &4 } else { choice });
        let pattern: String = text.chars().zip(choices).map(general).collect();
        prop_assert!(matches(&pattern, &text), "{pattern}");
        prop_assert!(matches(&text, &text));
    }
}
