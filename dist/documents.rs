//! Man pages, shell completions and the recipe's list of crates, made from the command line
//! definitions and from Cargo.lock. What is made is committed below `dist/`, so that packaging needs
//! no compiler and no network; the test here compares, and `make documents` writes. Compiled for the
//! tests alone: `#[cfg(test)]` in `cli/mod.rs`.
//!
//! The manager's definition is clap's own. The runtime's parser has no definition to ask, so its help
//! texts are read as one: they are what a person is told, and a test holds the parser to them.

use crate::cli::help;
use crate::cli::manager::Arguments;
use clap::{Arg, ArgAction, Command, CommandFactory as _};
use clap_complete::Shell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const RUNTIME: &str = "balena-extension-runtime";
const MANAGER: &str = "balena-extension-manager";
const LOCK: &str = include_str!("../Cargo.lock");

/// clap keeps `&'static str`; a test may leak.
fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// A line of a help text's list: what stands left, and what is said about it.
struct Item {
    terms: String,
    text: String,
}

/// The lists of a help text: lines with two spaces before them, the description after two or more;
/// what is further in continues.
fn items(text: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match (indent, items.last_mut()) {
            (2, _) => {
                let line = line.trim();
                let (terms, text) = line.split_once("  ").unwrap_or((line, ""));
                items.push(Item { terms: terms.to_owned(), text: text.trim().to_owned() });
                inside = true;
            }
            (indent, Some(last)) if indent > 2 && inside => {
                last.text = format!("{} {}", last.text, line.trim()).trim().to_owned();
            }
            _ => inside = false,
        }
    }
    items
}

/// The flags that an item is about: several that are alike stand on one line.
fn flags(item: &Item) -> Vec<Arg> {
    let mut args = Vec::new();
    let mut short = None;
    for term in item.terms.split(", ") {
        if let Some(letter) = term.strip_prefix('-').filter(|rest| rest.len() == 1) {
            short = letter.chars().next();
            continue;
        }
        let Some(rest) = term.strip_prefix("--") else { continue };
        let (name, value) = match rest.split_once(' ') {
            Some((name, value)) => (name, Some(value)),
            None => (rest, None),
        };
        let (name, optional) = match name.split_once("[=") {
            Some((name, value)) => (name, Some(value.trim_end_matches(']'))),
            None => (name, None),
        };
        let mut arg = Arg::new(leak(name)).long(leak(name)).help(leak(&item.text));
        if let Some(letter) = short.take() {
            arg = arg.short(letter);
        }
        arg = match (value, optional) {
            (Some(value), _) => arg.value_name(leak(value)).value_hint(hint(value)),
            (None, Some(value)) => arg.value_name(leak(value)).num_args(0..=1).require_equals(true),
            (None, None) => arg.action(ArgAction::SetTrue),
        };
        args.push(arg);
    }
    args
}

fn hint(value: &str) -> clap::ValueHint {
    match value {
        "DIR" => clap::ValueHint::DirPath,
        "FILE" | "PATH" => clap::ValueHint::FilePath,
        _ => clap::ValueHint::Other,
    }
}

/// The paragraphs of a help text that are neither usage nor a list.
fn prose(text: &str) -> Vec<String> {
    let paragraphs = text.split("\n\n");
    let told = paragraphs.filter(|paragraph| {
        !paragraph.starts_with("Usage:")
            && !paragraph.lines().any(|line| line.starts_with("  "))
            && !paragraph.trim().is_empty()
    });
    told.map(|paragraph| paragraph.lines().collect::<Vec<_>>().join(" ")).collect()
}

/// The words of a usage line that are no flags: `PROGRAM kill [--all] ID [SIGNAL]`. `[FLAGS]` stands
/// for flags that the text does not list.
fn positionals(usage: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut of_a_flag = false;
    for word in usage.split(' ').skip(2) {
        of_a_flag |= word.starts_with("[-") || word == "[FLAGS]";
        if !of_a_flag {
            words.push(word);
        }
        of_a_flag &= !word.ends_with(']');
    }
    words
}

/// A command of the runtime as its help text describes it.
fn subcommand(name: &str, summary: &str) -> Command {
    let mut command = Command::new(leak(name)).about(leak(summary)).disable_help_flag(true);
    let Some(text) = help::topic(name) else { return command };
    command = command.long_about(leak(&prose(text).join("\n\n")));
    for item in items(text) {
        command = command.args(flags(&item));
    }
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or_default();
    for word in positionals(usage) {
        let plain = word.trim_matches(['[', ']']);
        command = command.arg(Arg::new(leak(plain)).required(!word.starts_with('[')));
    }
    command
}

/// The runtime's command line as its help texts describe it.
fn runtime() -> Command {
    let about = prose(help::GENERAL);
    let summary = about.first().map_or("", String::as_str);
    let mut command = Command::new(RUNTIME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("OCI runtime for hostapp extensions")
        .long_about(leak(summary))
        .after_long_help(leak(&about.get(1..).unwrap_or_default().join("\n\n")))
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .subcommand_required(true);
    for item in items(help::GENERAL) {
        if item.terms.starts_with('-') {
            command = command.args(flags(&item));
            continue;
        }
        // Several on one line are those that are refused.
        if !item.terms.contains(", ") && item.terms != "help" {
            command = command.subcommand(subcommand(&item.terms, &item.text));
        }
    }
    command
}

/// Every document below `dist/`, by its path there.
fn documents() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut documents = BTreeMap::new();
    for (name, command) in
        [(RUNTIME, runtime()), (MANAGER, Arguments::command().version(env!("CARGO_PKG_VERSION")))]
    {
        pages(&command, name, &mut documents);
        for (shell, file) in [
            (Shell::Bash, format!("{name}.bash")),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), name, &mut text);
            if shell == Shell::Bash {
                text = mended(&text, name);
            }
            documents.insert(Path::new("completions").join(file), text);
        }
    }
    let recipe = Path::new("yocto").join(format!("{RUNTIME}-crates.inc"));
    documents.insert(recipe, crates().into_bytes());
    documents
}

/// clap_complete 4.6 spells a program's name in two ways when it has a dash, so that bash would offer
/// nothing after a command.
fn mended(script: &[u8], name: &str) -> Vec<u8> {
    let script = String::from_utf8_lossy(script);
    script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__")).into_bytes()
}

/// The page of a command, and one for each of its subcommands.
fn pages(command: &Command, name: &str, documents: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let mut command = command.clone().name(leak(name)).disable_help_subcommand(true);
    command.build();
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        let bare = inner.clone().version(env!("CARGO_PKG_VERSION"));
        pages(&bare, &format!("{name}-{}", inner.get_name()), documents);
    }
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command).section("8").manual("Hostapp extensions");
    man.render(&mut text).unwrap();
    documents.insert(Path::new("man").join(format!("{name}.8")), text);
}

/// What a recipe of the `cargo` class fetches: every crate of Cargo.lock with its checksum.
fn crates() -> String {
    let mut sources = String::from("SRC_URI += \" \\\n");
    let mut sums = String::new();
    for package in LOCK.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(" = \"")?.strip_suffix('"')
        };
        let (Some(name), Some(version)) = (field("name"), field("version")) else { continue };
        let Some(sum) = field("checksum") else { continue };
        // A formatter into a String cannot fail.
        let _ = writeln!(sources, "    crate://crates.io/{name}/{version} \\");
        let _ = writeln!(sums, "SRC_URI[{name}-{version}.sha256sum] = \"{sum}\"");
    }
    format!(
        "# Made from Cargo.lock by `make documents`, in the form of `bitbake -c update_crates`.\n\
         {sources}\"\n\n{sums}"
    )
}

fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist")
}

#[test]
fn what_is_made_from_the_command_lines_is_up_to_date() {
    #[expect(clippy::disallowed_methods, reason = "a test has no main that could read it")]
    let write = std::env::var_os("WRITE_DOCUMENTS").is_some();
    let documents = documents();
    for (path, text) in &documents {
        let path = dist().join(path);
        if write {
            File::create(&path).unwrap().write_all(text).unwrap();
            continue;
        }
        let there = std::fs::read(&path).unwrap_or_default();
        assert!(there == *text, "{} is out of date: run make documents", path.display());
    }
    for folder in ["man", "completions"] {
        for item in std::fs::read_dir(dist().join(folder)).unwrap() {
            let path = Path::new(folder).join(item.unwrap().file_name());
            let known = documents.contains_key(&path);
            if write && !known {
                std::fs::remove_file(dist().join(&path)).unwrap();
            }
            assert!(write || known, "dist/{} is made by nothing: remove it", path.display());
        }
    }
}

#[test]
fn the_parser_takes_every_flag_that_the_help_texts_name() {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let value = |arg: &Arg| match arg.get_value_names().and_then(|names| names.first()) {
        Some(name) if name == "N" => Some("1"),
        Some(name) if name == "FORM" || name == "FORMAT" => Some("json"),
        Some(name) if name == "LEVEL" => Some("warn"),
        Some(name) if name == "BOOL" => None,
        Some(_) => Some("x"),
        None => None,
    };
    let command = runtime();
    let mut count = 0;
    let mut typed = |before: &[&str], arg: &Arg, after: &[&str]| {
        let Some(long) = arg.get_long() else { return };
        let flag = format!("--{long}");
        let mut line = before.to_vec();
        line.push(&flag);
        line.extend(value(arg));
        line.extend(after);
        let parsed = crate::cli::runtime::parse(&words(&line));
        assert!(parsed.is_ok(), "{line:?}: {parsed:?}");
        count += 1;
    };
    for arg in command.get_arguments() {
        typed(&[], arg, &["list"]);
    }
    for inner in command.get_subcommands() {
        for arg in inner.get_arguments() {
            let id = if inner.get_name() == "list" { &[][..] } else { &["id"] };
            typed(&[inner.get_name()], arg, id);
        }
    }
    assert!(count > 25, "the help texts were not understood: {count} flags");
}
