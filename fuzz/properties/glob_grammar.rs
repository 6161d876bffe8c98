//! A second implementation of the globs, for tests and fuzzing alone: slow, and made from nothing but the
//! grammar in the documentation of Go's `filepath.Match`:
//!
//! ```text
//! pattern:         { term }
//! term:            '*' | '?' | '[' [ '^' ] { character-range } ']' | c | '\\' c
//!                  (a class must be non-empty; c is none of '*' '?' '\\' '[')
//! character-range: c | '\\' c | lo '-' hi
//!                  (c is none of '\\' '-' ']')
//! ```
#![allow(clippy::indexing_slicing, reason = "it is compiled for tests and fuzzing alone")]

enum Term {
    Sequence,
    NonSeparator,
    Class(bool, Vec<(char, char)>),
    Literal(char),
}

/// Whether `text` matches `pattern`; none for what the grammar does not produce.
pub(crate) fn matches(pattern: &str, text: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Every place of the text that the terms so far can lead to: nothing has to be tried again.
    let mut places = vec![false; text.len() + 1];
    places[0] = true;
    for term in terms(&pattern)? {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            let found = text.get(at);
            if let Term::Sequence = term {
                next[at] |= places[at];
                // What leads here goes on from here, too.
                if next[at] && found.is_some_and(|found| *found != '/') {
                    next[at + 1] = true;
                }
            } else if let (true, Some(found)) = (places[at], found) {
                next[at + 1] = admits(&term, *found);
            }
        }
        places = next;
    }
    Some(places[text.len()])
}

fn admits(term: &Term, found: char) -> bool {
    match term {
        Term::Sequence | Term::NonSeparator => found != '/',
        Term::Literal(wanted) => *wanted == found,
        Term::Class(negated, ranges) => {
            ranges.iter().any(|(low, high)| *low <= found && found <= *high) != *negated
        }
    }
}

fn terms(mut text: &[char]) -> Option<Vec<Term>> {
    let mut terms = Vec::new();
    while let Some((first, rest)) = text.split_first() {
        let (term, rest) = match first {
            '*' => (Term::Sequence, rest),
            '?' => (Term::NonSeparator, rest),
            '\\' => (Term::Literal(*rest.first()?), &rest[1..]),
            '[' => class(rest)?,
            other => (Term::Literal(*other), rest),
        };
        terms.push(term);
        text = rest;
    }
    Some(terms)
}

fn class(text: &[char]) -> Option<(Term, &[char])> {
    let negated = text.first() == Some(&'^');
    let mut rest = &text[usize::from(negated)..];
    let mut ranges = Vec::new();
    while *rest.first()? != ']' {
        let (low, after) = character(rest)?;
        let (high, after) = match after.split_first() {
            Some(('-', after)) => character(after)?,
            _ => (low, after),
        };
        ranges.push((low, high));
        rest = after;
    }
    (!ranges.is_empty()).then_some((Term::Class(negated, ranges), &rest[1..]))
}

fn character(text: &[char]) -> Option<(char, &[char])> {
    match text.first()? {
        '-' | ']' => None,
        '\\' => Some((*text.get(1)?, &text[2..])),
        plain => Some((*plain, &text[1..])),
    }
}
