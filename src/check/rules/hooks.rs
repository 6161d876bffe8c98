//! Rules about the hooks. What makes a file a hook is the runtime's own decision (`model/extension/hook.rs`),
//! and so are the words for why the kernel would not run it (`model/container/exit.rs`).

use crate::check::rules::machine::Machine;
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Content, Entry, Kind, LineEnds, Resolved, Tree, join, split};
use crate::model::container::exit::{ENOENT, ENOEXEC, Unrunnable, elf_machine, interpreter};
use crate::model::extension::hook::{self, FileKind, Verb};
use std::collections::BTreeSet;

const VERBS: [Verb; 3] = [Verb::Create, Verb::Start, Verb::Delete];
/// What every host has that runs extensions.
const EVERYWHERE: [&str; 2] = ["/bin/sh", "/usr/bin/env"];
const SHELL: &str = "#!/bin/sh, which every host has; hooks run on the host, not in the image";

/// Applies the rules. `host` is the root that the extension is meant for, if given.
pub(crate) fn check(
    tree: &Tree,
    host: Option<&Tree>,
    machine: Option<&Machine>,
    findings: &mut Findings,
) {
    for verb in VERBS {
        let hook = verb.path();
        let (kind, found) = match tree.resolve(hook) {
            Resolved::Missing if is_absent(tree, hook) => continue,
            Resolved::Missing => (FileKind::LinkToNothing, None),
            Resolved::Loop => (FileKind::LinkLoop, None),
            Resolved::Root => (FileKind::Folder, None),
            Resolved::Found { entry, .. } => (kind(entry), Some(entry)),
        };
        let mode = found.map(|entry| entry.mode).unwrap_or_default();
        if let Err(unfit) = hook::fitness(verb, kind, mode) {
            let mend = "an executable file, or none: the runtime refuses the container";
            findings.add_at(Rule::Hook, hook, unfit.to_string(), mend);
        }
        if let Some(content) = found.and_then(Entry::content) {
            check_content(hook, content, host, machine, findings);
        }
    }
    check_names(tree, findings);
}

/// The files that are run as hooks, wherever they lie.
pub(crate) fn files(tree: &Tree) -> BTreeSet<String> {
    let found = VERBS.iter().filter_map(|verb| match tree.resolve(verb.path()) {
        Resolved::Found { path, .. } => Some(path),
        Resolved::Root | Resolved::Missing | Resolved::Loop => None,
    });
    found.collect()
}

/// Whether there is nothing at all, not even a link, in the folder where links lead.
fn is_absent(tree: &Tree, hook: &str) -> bool {
    let (folder, name) = split(hook);
    match tree.resolve(folder) {
        Resolved::Found { path, .. } => tree.at(&join(&path, name)).is_none(),
        Resolved::Root => tree.at(name).is_none(),
        Resolved::Missing | Resolved::Loop => true,
    }
}

fn kind(entry: &Entry) -> FileKind {
    match entry.kind {
        Kind::File(_) => FileKind::File,
        Kind::Folder => FileKind::Folder,
        Kind::Fifo => FileKind::Fifo,
        Kind::Socket => FileKind::Socket,
        Kind::Device => FileKind::Device,
        Kind::Link { .. } => FileKind::LinkLoop,
    }
}

fn check_content(
    hook: &str,
    content: &Content,
    host: Option<&Tree>,
    machine: Option<&Machine>,
    findings: &mut Findings,
) {
    let this = machine.map_or("", |machine| machine.name.as_str());
    let unrunnable = |errno| Unrunnable { head: &content.head, errno, machine: this }.to_string();
    if content.long_line {
        let message = "its first line has more than the 255 bytes that the kernel reads of it";
        let mend =
            "shorten it, and have the script set what stands behind the interpreter (set -e)";
        findings.add_at(Rule::HookFirstLine, hook, message, mend);
    }
    if let Some(interpreter) = interpreter(&content.head) {
        if content.line_ends == LineEnds::Dos {
            let message = match interpreter.ends_with('\r') {
                true => unrunnable(ENOENT),
                false => "its lines end in CR LF, which a shell takes for part of the words".into(),
            };
            let mend = "save it with LF line ends: sed -i 's/\\r$//'";
            findings.add_at(Rule::HookLineEnds, hook, message, mend);
        } else {
            check_interpreter(hook, &interpreter, &content.head, host, findings);
        }
    } else if let Some(found) = elf_machine(&content.head) {
        if let Some(machine) = machine.filter(|machine| !machine.runs(found)) {
            let message = format!("it is a program for {found}, but {machine}");
            let mend = format!("build it for {}", machine.name);
            findings.add_at(Rule::HookArchitecture, hook, message, mend);
        }
        match (&content.loader, host) {
            (Some(loader), Some(host)) if !is_executable(host, loader) => {
                let message = format!("{} ({loader})", unrunnable(ENOENT));
                findings.add_at(Rule::HookInterpreter, hook, message, "link it statically");
            }
            (Some(loader), None) => {
                let message = format!("it needs the dynamic loader {loader} of the host");
                let mend = "link it statically, or check --against the root of the host";
                findings.add_at(Rule::HookHost, hook, message, mend);
            }
            (Some(_) | None, _) => {}
        }
    } else {
        let mend = "a script starts with #!/bin/sh as its very first bytes";
        findings.add_at(Rule::HookFormat, hook, unrunnable(ENOEXEC), mend);
    }
}

/// The program that runs a script, and where `env` stands there, the program that it looks up.
fn check_interpreter(
    hook: &str,
    interpreter: &str,
    head: &[u8],
    host: Option<&Tree>,
    findings: &mut Findings,
) {
    if !interpreter.starts_with('/') {
        let message = format!("its interpreter {interpreter:?} is not an absolute path");
        findings.add_at(Rule::HookInterpreter, hook, message, SHELL);
        return;
    }
    let looked_up = match env_program(interpreter, head) {
        None => None,
        Some(Ok(name)) => Some(name),
        Some(Err(misused)) => {
            let message = format!("{interpreter} cannot run it: {misused}");
            let mend = "name the interpreter itself (#!/bin/sh -e), or have env take the line apart, \
                        which not every env can: #!/usr/bin/env -S sh -e";
            findings.add_at(Rule::HookInterpreter, hook, message, mend);
            return;
        }
    };
    match host {
        Some(host) => {
            if !is_executable(host, interpreter) {
                let head = format!("#!{interpreter}\n").into_bytes();
                let message = Unrunnable { head: &head, errno: ENOENT, machine: "" }.to_string();
                findings.add_at(Rule::HookInterpreter, hook, message, SHELL);
            }
            if let Some(name) = looked_up.filter(|name| !is_on_path(host, name)) {
                let message = format!(
                    "it looks for {name:?}, which is not on this host in {}",
                    hook::PATH.trim_start_matches("PATH=")
                );
                findings.add_at(Rule::HookInterpreter, hook, message, SHELL);
            }
        }
        None => {
            let strange = match looked_up.as_deref() {
                Some("sh") => None,
                Some(name) => Some(name),
                None => Some(interpreter).filter(|path| !EVERYWHERE.contains(path)),
            };
            if let Some(name) = strange {
                let message = format!("it needs {name:?} on the host, which not every host has");
                let mend = format!("{SHELL}; or check --against the root of the host");
                findings.add_at(Rule::HookHost, hook, message, mend);
            }
        }
    }
}

/// Why `env` runs nothing that the first line of a script names.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Misused {
    #[error(
        "the kernel hands over the rest of the line as one word, and no program is called {0:?}"
    )]
    OneWord(String),
    #[error(
        "the kernel hands over the rest of the line as one word, and {0:?} is no option that names a \
         program"
    )]
    Option(String),
    #[error("{0:?} names no program, so that env would run the script itself, over and over")]
    NoProgram(String),
}

/// The program that `#!/usr/bin/env …` looks up; `None` if the interpreter is not `env`. Whatever
/// stands behind an interpreter reaches it as one word (execve(2)), which `env` takes apart only if it
/// begins with `-S` (coreutils, 8.30 and later).
fn env_program(interpreter: &str, head: &[u8]) -> Option<Result<String, Misused>> {
    if split(interpreter).1 != "env" {
        return None;
    }
    let line = String::from_utf8_lossy(head).into_owned();
    let rest = line.split_once(interpreter).map_or("", |(_, rest)| rest).trim_matches([' ', '\t']);
    let whole = || rest.to_owned();
    if let Some(words) = to_take_apart(rest) {
        let program = program_among(words.split([' ', '\t']).filter(|word| !word.is_empty()));
        return Some(program.map(str::to_owned).ok_or_else(|| Misused::NoProgram(whole())));
    }
    Some(if rest.starts_with('-') && rest.contains([' ', '\t']) {
        Err(Misused::Option(whole()))
    } else if rest.is_empty() || rest.starts_with('-') || rest.contains('=') {
        Err(Misused::NoProgram(whole()))
    } else if rest.contains([' ', '\t']) {
        Err(Misused::OneWord(whole()))
    } else {
        Ok(whole())
    })
}

/// What follows `-S`, which may stand with others of `env`'s options that take no word of their own.
fn to_take_apart(rest: &str) -> Option<&str> {
    if let Some(words) = rest.strip_prefix("--split-string") {
        return words.strip_prefix('=');
    }
    let (options, words) = rest.strip_prefix('-')?.split_once('S')?;
    options.chars().all(|option| "i0v".contains(option)).then_some(words)
}

/// The first word that is neither an option, nor what belongs to one, nor a variable.
fn program_among<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    loop {
        let word = words.next()?;
        if ["-u", "-C", "--unset", "--chdir"].contains(&word) {
            words.next();
        } else if !word.starts_with('-') && !word.contains('=') {
            return Some(word);
        }
    }
}

fn is_executable(host: &Tree, path: &str) -> bool {
    match host.resolve(path) {
        Resolved::Found { entry, .. } => kind(entry) == FileKind::File && entry.mode & 0o111 != 0,
        Resolved::Root | Resolved::Missing | Resolved::Loop => false,
    }
}

fn is_on_path(host: &Tree, name: &str) -> bool {
    name.starts_with('/') && is_executable(host, name)
        || search_path(name).any(|path| is_executable(host, &path))
}

/// Where a hook finds the program `name`.
fn search_path(name: &str) -> impl Iterator<Item = String> {
    let folders = hook::PATH.trim_start_matches("PATH=").split(':');
    folders.map(move |folder| format!("{folder}/{name}"))
}

/// The files of the host that decide whether the hooks of `tree` run, for the reader of the host.
pub(crate) fn wanted_of_host(tree: &Tree) -> Vec<String> {
    let mut wanted = Vec::new();
    for verb in VERBS {
        let Resolved::Found { entry, .. } = tree.resolve(verb.path()) else { continue };
        let Some(content) = entry.content() else { continue };
        wanted.extend(content.loader.clone());
        if let Some(interpreter) = interpreter(&content.head) {
            if let Some(Ok(name)) = env_program(&interpreter, &content.head) {
                wanted.extend(search_path(&name));
                wanted.push(name);
            }
            wanted.push(interpreter);
        }
    }
    wanted.retain(|path| path.starts_with('/'));
    wanted
}

/// What is not run because its name is not quite right.
fn check_names(tree: &Tree, findings: &mut Findings) {
    for (path, entry) in tree.below("hooks") {
        let Some(name) = path.strip_prefix("hooks/").filter(|name| !name.contains('/')) else {
            continue;
        };
        let stem = name.split('.').next().unwrap_or_default().to_lowercase();
        let meant = VERBS.iter().map(|verb| verb.path()).find(|hook| {
            let wanted = split(hook).1;
            stem == wanted || stem.strip_prefix("on-") == Some(wanted)
        });
        if let Some(meant) = meant.filter(|meant| *meant != path && !entry.is_folder()) {
            let message = format!("nothing runs it: only {meant} is a hook");
            findings.add_at(Rule::HookName, path, message, format!("rename it to {meant}"));
        }
    }
    for near in ["hook/create", "hook/start", "hook/delete"] {
        if tree.at(near).is_some() {
            let message = "nothing runs it: hooks are in the folder hooks";
            findings.add_at(Rule::HookName, near, message, "rename the folder hook to hooks");
        }
    }
}

/// The hooks that the runtime would refuse.
#[cfg(test)]
pub(crate) fn broken(tree: &Tree) -> Vec<&'static str> {
    let mut findings = Findings::default();
    check(tree, None, None, &mut findings);
    let paths = findings.of(Rule::Hook).map(|path| path.unwrap_or_default().to_owned());
    let paths: Vec<String> = paths.collect();
    VERBS.iter().map(|verb| verb.path()).filter(|hook| paths.iter().any(|it| it == hook)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;
    use crate::check::rules::tree::tests::{file, folder, link, tree};

    fn elf(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        head.extend([2, 0]);
        head.extend(machine.to_le_bytes());
        head
    }

    fn with(hook: Entry, host: Option<&Tree>) -> Vec<&'static str> {
        let machine = Machine::new("x86_64", "this machine is x86_64");
        let mut findings = Findings::default();
        check(&tree(&[("hooks/start", hook)]), host, Some(&machine), &mut findings);
        rules(findings)
    }

    #[test]
    fn each_thing_that_is_wrong_with_a_hook_has_its_rule() {
        let script = |text: &str| file(0o755, text.as_bytes());
        for (hook, expected) in [
            (script("#!/bin/sh\n"), vec![]),
            (script("#!/usr/bin/env sh\n"), vec![]),
            (file(0o755, &elf(62)), vec![]),
            (folder(), vec!["hook"]),
            (file(0o644, b"#!/bin/sh\n"), vec!["hook"]),
            (link("../missing"), vec!["hook"]),
            (link("start"), vec!["hook"]),
            (script("#!/bin/sh\r\necho\r\n"), vec!["hook-line-ends"]),
            (script("#!/bin/sh\necho\r\n"), vec!["hook-line-ends"]),
            (script("echo\n"), vec!["hook-format"]),
            (script(""), vec!["hook-format"]),
            (script("#!bin/sh\n"), vec!["hook-interpreter"]),
            (script("#!/usr/bin/python3\n"), vec!["hook-host"]),
            (script("#!/usr/bin/env -S VAR=1 python3 -u\n"), vec!["hook-host"]),
            (script("#!/usr/bin/env python3\n"), vec!["hook-host"]),
            (script("#! /usr/bin/env  sh \t\n"), vec![]),
            (script("#!/usr/bin/env -S sh -e\n"), vec![]),
            (script("#!/usr/bin/env -Ssh -e\n"), vec![]),
            (script("#!/usr/bin/env -iS -u X sh -e\n"), vec![]),
            (script("#!/usr/bin/env --split-string=sh -e\n"), vec![]),
            // The kernel hands over the rest of the line as one word.
            (script("#!/usr/bin/env sh -e\n"), vec!["hook-interpreter"]),
            (script("#!/usr/bin/env -i sh\n"), vec!["hook-interpreter"]),
            // The script itself is what env is to run.
            (script("#!/usr/bin/env\n"), vec!["hook-interpreter"]),
            (script("#!/usr/bin/env -i\n"), vec!["hook-interpreter"]),
            (script("#!/usr/bin/env A=1 sh\n"), vec!["hook-interpreter"]),
            (script("#!/usr/bin/env -S A=1\n"), vec!["hook-interpreter"]),
            (file(0o755, &elf(183)), vec!["hook-architecture"]),
        ] {
            assert_eq!(with(hook.clone(), None), expected, "{hook:?}");
        }
    }

    #[test]
    fn against_a_host_its_interpreters_decide() {
        let host = tree(&[
            ("usr/bin/sh", file(0o755, b"")),
            ("usr/bin/env", file(0o755, b"")),
            ("usr/bin/awk", file(0o644, b"")),
            ("bin", link("usr/bin")),
        ]);
        for (text, expected) in [
            ("#!/bin/sh\n", vec![]),
            ("#!/usr/bin/env sh\n", vec![]),
            ("#!/bin/awk\n", vec!["hook-interpreter"]),
            ("#!/bin/bash\n", vec!["hook-interpreter"]),
            ("#!/usr/bin/env bash\n", vec!["hook-interpreter"]),
            ("#!/usr/bin/env sh -e\n", vec!["hook-interpreter"]),
            ("#!/usr/bin/env -S sh -e\n", vec![]),
            ("#!/usr/bin/env -S /bin/sh -e\n", vec![]),
            ("#!/usr/bin/env -S bash -e\n", vec!["hook-interpreter"]),
        ] {
            assert_eq!(with(file(0o755, text.as_bytes()), Some(&host)), expected, "{text}");
        }
    }

    #[test]
    fn files_that_are_named_almost_like_hooks_are_told() {
        let plain = file(0o755, b"#!/bin/sh\n");
        let mut findings = Findings::default();
        let tree = tree(&[
            ("hooks/start.sh", plain.clone()),
            ("hooks/Create", plain.clone()),
            ("hooks/lib.sh", plain.clone()),
            ("hooks/deactivate", plain.clone()),
            ("hook/delete", plain),
        ]);
        check(&tree, None, None, &mut findings);
        assert_eq!(rules(findings), ["hook-name"; 3]);
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Misused {
        OneWord(_), Option(_), NoProgram(_),
    }
}
