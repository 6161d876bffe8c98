//! The paths that a source file uses: `std::io::Error`, `crate::host::process`. This parses only as much Rust
//! as these sources need: imports are expanded, and a path that starts with an imported name is resolved
//! through it.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;

/// The paths that the code of a file uses outside its tests, in full.
pub(crate) fn used(source: &Source) -> BTreeSet<String> {
    let code = &code_without_tests(&source.text);
    let module = module(&source.path);
    let mut imports = BTreeMap::new();
    let mut paths = BTreeSet::new();
    for declaration in code.split(';').filter_map(declaration) {
        for (name, path) in expand(&declaration) {
            let path = absolute(&path, &module);
            paths.insert(path.clone());
            imports.insert(name, path);
        }
    }
    for path in inline(code) {
        let (first, rest) = path.split_once("::").unwrap();
        let start = imports.get(first).cloned().unwrap_or_else(|| first.to_owned());
        paths.insert(absolute(&format!("{start}::{rest}"), &module));
    }
    paths
}

/// The code of a file up to its tests, which stand at the end.
pub(crate) fn code_without_tests(text: &str) -> String {
    code(text).split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// The module path of a file: `src/host/container/hook.rs` is `crate::host::hook`.
pub(crate) fn module(path: &str) -> String {
    let stem = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    match stem {
        "lib" => "crate".to_owned(),
        stem => format!("crate::{}", stem.replace('/', "::")),
    }
}

/// `self` and `super` replaced, seen from `module`.
fn absolute(path: &str, module: &str) -> String {
    let mut base = module;
    let mut path = path.strip_prefix("self::").unwrap_or(path);
    let mut relative = false;
    while let Some(rest) = path.strip_prefix("super::") {
        // Modules inside a file are not distinguished, so one level may be lost. In this repository only tests
        // are such modules.
        base = base.rsplit_once("::").map_or(base, |(parent, _)| parent);
        (path, relative) = (rest, true);
    }
    if relative { format!("{base}::{path}") } else { path.to_owned() }
}

/// The text after `use` if this statement is an import.
fn declaration(statement: &str) -> Option<String> {
    let start = statement.rfind("use ")?;
    let before = statement[..start].trim_end();
    let is_start =
        before.is_empty() || before.ends_with(['}', ']', '{', ')']) || before.ends_with("pub");
    is_start.then(|| statement[start + 4..].split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The names that an import makes, with the path of each.
fn expand(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let (path, name) = match tree.split_once(" as ") {
            Some((path, name)) => (path, name),
            None => (tree, tree.rsplit("::").next().unwrap_or(tree)),
        };
        let path = path.trim_end_matches("::self").to_owned();
        let name = match name {
            "self" => path.rsplit("::").next().unwrap_or_default().to_owned(),
            name => name.trim().to_owned(),
        };
        return vec![(name, path)];
    };
    let (prefix, inside) = (&tree[..open], tree[open + 1..].trim_end().trim_end_matches('}'));
    // The last brace of this tree is cut off, and the braces of its branches are restored.
    let missing = inside.matches('{').count() - inside.matches('}').count();
    let inside = format!("{inside}{}", "}".repeat(missing));
    branches(&inside).iter().flat_map(|branch| expand(&format!("{prefix}{branch}"))).collect()
}

/// The parts between the commas that are outside of braces.
fn branches(text: &str) -> Vec<String> {
    let (mut depth, mut found) = (0, vec![String::new()]);
    for letter in text.chars() {
        match letter {
            ',' if depth == 0 => found.push(String::new()),
            letter => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                found.last_mut().unwrap().push(letter);
            }
        }
    }
    found
        .iter()
        .map(|branch| branch.trim().to_owned())
        .filter(|branch| !branch.is_empty())
        .collect()
}

/// All paths of at least two parts.
fn inline(code: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = code.split(|letter| !is_part(letter));
    let paths = words.map(|word| word.trim_matches(':')).filter(|word| word.contains("::"));
    paths.map(str::to_owned).collect()
}

/// The text without comments and without the contents of strings and characters.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if first == '"' {
            end_of_string(rest)
        } else if first == '\'' {
            end_of_character(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of the string literal at the start of `text`, with its quotes.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (index, letter) in text.char_indices().skip(1) {
        match letter {
            '"' if !escaped => return index + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of the character literal at the start of `text`; 0 if it is a lifetime.
fn end_of_character(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => text[2..].find('\'').map_or(0, |end| if end == 0 { 4 } else { end + 3 }),
        Some((start, letter)) if text[start + letter.len_utf8()..].starts_with('\'') => {
            start + letter.len_utf8() + 1
        }
        _ => 0,
    }
}

#[test]
fn comments_strings_and_characters_are_not_code() {
    let text = "a // std::fs\n\"std::net \\\" std::env\" '\"' '\\'' '\\\\' r#\"x\"y\"# <'a> b";
    assert_eq!(code(text).split_whitespace().collect::<Vec<_>>(), ["a", "<'a>", "b"]);
}

#[test]
fn imports_are_expanded() {
    let names = expand("crate::host::{self, a::{B, C as D}, e}");
    let expected = [
        ("host", "crate::host"),
        ("B", "crate::host::a::B"),
        ("D", "crate::host::a::C"),
        ("e", "crate::host::e"),
    ];
    let expected: Vec<(String, String)> =
        expected.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect();
    assert_eq!(names, expected);
}

#[test]
fn paths_are_found_wherever_they_are_hidden() {
    let text = "//! x\nuse std::{fs as files, io};\npub use super::b::C;\nfn f() {\n    use crate::cli;\n\
                files::read(io::stdin()); super::super::host::x(); <cli::T>::new();\n}\n\
                #[cfg(test)]\nmod tests { use std::net; }\n";
    let used = used(&Source::planted("src/model/a.rs", text));
    for path in [
        "std::fs",
        "std::fs::read",
        "std::io::stdin",
        "crate::model::b::C",
        "crate::host::x",
        "crate::cli",
        "crate::cli::T",
    ] {
        assert!(used.contains(path), "{path} is not in {used:?}");
    }
    assert!(!used.iter().any(|path| path.contains("net")), "{used:?}");
}
