//! Makes what `make documents` writes below `dist/`, from the command lines and from Cargo.lock: the man
//! pages, the completions of the manager, and the recipe's list of crates. They are committed, so that
//! packaging needs no compiler and no network. A module of `src/cli`, in its tests alone, so that it can
//! ask both command lines.

use crate::cli::commands as verbs;
use crate::cli::manager::Arguments;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const RUNTIME: &str = "balena-extension-runtime";
const MANAGER: &str = "balena-extension-manager";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const LOCK: &str = include_str!("../Cargo.lock");

/// An entry of a list in a help text of the runtime: the terms, and what is said about them.
type Entry = (String, String);

/// The lists of a help text: an entry begins with two spaces, its text after two more; a line that is
/// indented further continues it.
fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("  ")) {
        match (line.strip_prefix("   "), entries.last_mut()) {
            (Some(more), Some((_, text))) => {
                text.push_str(if text.is_empty() { "" } else { " " });
                text.push_str(more.trim());
            }
            (_, _) => {
                let (terms, text) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
                entries.push((terms.to_owned(), text.trim().to_owned()));
            }
        }
    }
    entries
}

/// A text in the language of man pages, in which dashes and backslashes mean something, as does a dot or
/// an apostrophe at the beginning of a line.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let means_something = |line: &str| line.starts_with(['.', '\'']);
    let lines = text
        .lines()
        .map(|line| format!("{}{line}", if means_something(line) { "\\&" } else { "" }));
    lines.collect::<Vec<_>>().join("\n")
}

/// The man page of the runtime, or of one of its commands, made from the help text.
fn runtime_page(name: &str, summary: &str, help: &str, see_also: &[String]) -> String {
    let (mut synopsis, mut prose, mut lists) = (String::new(), String::new(), String::new());
    for paragraph in help.trim().split("\n\n") {
        let entries = entries(paragraph);
        if let Some(usage) = paragraph.strip_prefix("Usage: ") {
            synopsis = roff(usage);
        } else if entries.is_empty() {
            prose += &format!(".PP\n{}\n", roff(paragraph));
        } else {
            let title = paragraph.lines().next().and_then(|line| line.strip_suffix(':'));
            let title = title.unwrap_or("Options").to_uppercase();
            lists += &format!(".SH \"{title}\"\n");
            for (terms, text) in entries {
                lists += &format!(".TP\n\\fB{}\\fR\n{}\n", roff(&terms), roff(&text));
            }
        }
    }
    let see_also = see_also.iter().map(|page| format!(".BR {} (8)\n", roff(page)));
    format!(
        ".TH {name} 8 \"\" \"{RUNTIME} {VERSION}\" \"Hostapp extensions\"\n.SH NAME\n{} \\- {}\n\
         .SH SYNOPSIS\n{synopsis}\n.SH DESCRIPTION\n{prose}{lists}.SH \"SEE ALSO\"\n{}",
        roff(name),
        roff(summary),
        see_also.collect::<String>()
    )
}

/// The commands of the runtime and their summaries. Several on one line are those that are refused.
fn commands() -> Vec<Entry> {
    let entries = entries(verbs::GENERAL).into_iter();
    let is_command = |(terms, _): &Entry| !terms.starts_with('-') && !terms.contains(", ");
    entries.filter(is_command).filter(|(name, _)| name != "help").collect()
}

fn runtime_pages(documents: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let mut names = vec![MANAGER.to_owned()];
    for (command, summary) in commands() {
        let name = format!("{RUNTIME}-{command}");
        let help = verbs::find(&command).unwrap().help;
        let page = runtime_page(&name, &summary, help, &[RUNTIME.to_owned()]);
        documents.insert(Path::new("man").join(format!("{name}.8")), page.into_bytes());
        names.push(name);
    }
    let page = runtime_page(RUNTIME, "OCI runtime for hostapp extensions", verbs::GENERAL, &names);
    documents.insert(Path::new("man").join(format!("{RUNTIME}.8")), page.into_bytes());
}

/// The page of a command of the manager, and one for each of its subcommands.
fn manager_pages(command: &Command, name: &str, documents: &mut BTreeMap<PathBuf, Vec<u8>>) {
    // clap keeps `&'static str`; a test may leak.
    let leaked: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let mut command = command.clone().name(leaked).version(VERSION).disable_help_subcommand(true);
    command.build();
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        manager_pages(inner, &format!("{name}-{}", inner.get_name()), documents);
    }
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command).section("8").manual("Hostapp extensions");
    man.render(&mut text).unwrap();
    let text = with_sections(&String::from_utf8(text).unwrap());
    documents.insert(Path::new("man").join(format!("{name}.8")), text.into_bytes());
}

/// The page with the examples and the exit status in sections of their own, as man-pages(7) names them. clap puts
/// the end of a help text into one section, and rewraps its lines.
fn with_sections(page: &str) -> String {
    let (before, rest) = page.split_once(".SH EXTRA\n").unwrap();
    let (extra, after) = rest.split_once(".SH VERSION\n").unwrap();
    let mut sections = String::new();
    for paragraph in extra.trim().split("\n\n") {
        let (title, text) = paragraph.split_once(':').unwrap();
        sections += &match title {
            "Example" | "Examples" => {
                format!(".SH EXAMPLES\n.nf\n{}\n.fi\n", text.trim_start_matches('\n'))
            }
            "Words" => format!(".SH WORDS\n.nf\n{}\n.fi\n", text.trim_start_matches('\n')),
            "Exit status" => format!(".SH \"EXIT STATUS\"\n{}\n", text.trim_start()),
            "Documentation" => format!(".SH FILES\n{}\n", text.trim_start()),
            other => panic!("a help text ends with {other:?}, which has no section"),
        };
    }
    format!("{before}{sections}.SH VERSION\n{after}")
}

fn completions(documents: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for (shell, file) in [
        (Shell::Bash, format!("{MANAGER}.bash")),
        (Shell::Zsh, format!("_{MANAGER}")),
        (Shell::Fish, format!("{MANAGER}.fish")),
    ] {
        let mut text = Vec::new();
        let mut command = Arguments::command().disable_help_subcommand(true);
        clap_complete::generate(shell, &mut command, MANAGER, &mut text);
        if shell == Shell::Bash {
            // clap_complete 4.6 spells a program's name in two ways when it has a dash, so that bash would
            // offer nothing after a command.
            let [wrong, right] = ["__subcmd__", "__"].map(|dash| MANAGER.replace('-', dash));
            text = String::from_utf8(text).unwrap().replace(&wrong, &right).into_bytes();
        }
        documents.insert(Path::new("completions").join(file), text);
    }
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
    let mut documents = BTreeMap::new();
    runtime_pages(&mut documents);
    manager_pages(&Arguments::command(), MANAGER, &mut documents);
    completions(&mut documents);
    let recipe = Path::new("yocto").join(format!("{RUNTIME}-crates.inc"));
    documents.insert(recipe, crates().into_bytes());
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

/// The flags in a list of a help text, each with the value that it takes, if any.
fn flags(text: &str) -> Vec<Vec<String>> {
    let entries = entries(text);
    let terms = entries.iter().flat_map(|(terms, _)| terms.split(", "));
    let value = |name: &str| match name {
        "N" => "1".to_owned(),
        "FORM" | "FORMAT" => "json".to_owned(),
        "LEVEL" => "warn".to_owned(),
        other => other.to_owned(),
    };
    let flag = |term: &str| {
        let mut words = term.split("[=").next()?.split(' ');
        let flag = words.next().filter(|flag| flag.starts_with("--"))?;
        Some([flag.to_owned()].into_iter().chain(words.map(value)).collect())
    };
    terms.filter_map(flag).collect()
}

#[test]
fn the_parser_takes_every_flag_that_the_help_texts_name() {
    let mut count = 0;
    let mut typed = |before: &[&str], flag: Vec<String>, after: &[&str]| {
        let words = before.iter().copied().chain(flag.iter().map(String::as_str));
        let line: Vec<OsString> = words.chain(after.iter().copied()).map(OsString::from).collect();
        let parsed = crate::cli::runtime::parse(&line);
        assert!(parsed.1.is_ok(), "{line:?}: {parsed:?}");
        count += 1;
    };
    for flag in flags(verbs::GENERAL) {
        typed(&[], flag, &["list"]);
    }
    for (command, _) in commands() {
        let id = if command == "list" { &[][..] } else { &["id"] };
        for flag in flags(verbs::find(&command).unwrap().help) {
            typed(&[&command], flag, id);
        }
    }
    assert!(count > 25, "the help texts were not understood: {count} flags");
}
