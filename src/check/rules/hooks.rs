//! Rules about the hooks. `model/extension/hook.rs` decides for the runtime which file is a hook, and
//! `model/container/exit.rs` says why the kernel cannot run a file; both are used here.

use crate::check::rules::Files;
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Content, Entry, EntryKind, FileTree, Resolved, join, split};
use crate::model::container::exit::{ENOENT, ENOEXEC, Unrunnable, elf_machine, interpreter};
use crate::model::extension::hook::{self, FileKind, Verb};
use std::collections::BTreeSet;

const VERBS: [Verb; 3] = [Verb::Create, Verb::Start, Verb::Delete];
/// The interpreters that every host of extensions has.
const EVERYWHERE: [&str; 2] = ["/bin/sh", "/usr/bin/env"];
const USE_SHELL: &str =
    "use #!/bin/sh, which every host has; hooks run on the host, not in the image";

/// Applies the rules.
pub(crate) fn check(files: &Files<'_>, findings: &mut Findings) {
    let tree = files.tree;
    for verb in VERBS {
        let hook = verb.path();
        let (kind, found) = match tree.resolve(hook) {
            Resolved::Missing if is_absent(tree, hook) => continue,
            Resolved::Missing => (FileKind::LinkToNothing, None),
            Resolved::Loop => (FileKind::LinkLoop, None),
            Resolved::Found { entry, .. } => (file_kind(entry), Some(entry)),
        };
        let mode = found.map(|entry| entry.mode).unwrap_or_default();
        if let Err(unfit) = hook::fitness(verb, kind, mode) {
            let fix = "make it an executable file (chmod +x), or remove it: the runtime would refuse the \
                       container";
            findings.add_at(Rule::Hook, hook, unfit.to_string(), fix);
        }
        if let Some(content) = found.and_then(Entry::content) {
            check_content(hook, content, files, findings);
        }
    }
    check_names(tree, findings);
}

/// The files that run as hooks, after following links.
pub(crate) fn files(tree: &FileTree) -> BTreeSet<String> {
    let found = VERBS.iter().filter_map(|verb| tree.resolve(verb.path()).found());
    found.map(|(path, _)| path).collect()
}

/// Whether nothing has this name, not even a link that leads nowhere.
fn is_absent(tree: &FileTree, hook: &str) -> bool {
    let (directory, name) = split(hook);
    let directory = tree.resolve(directory).found();
    directory.is_none_or(|(path, _)| tree.at(&join(&path, name)).is_none())
}

fn file_kind(entry: &Entry) -> FileKind {
    match entry.kind {
        EntryKind::File(_) => FileKind::File,
        EntryKind::Directory => FileKind::Folder,
        EntryKind::Fifo => FileKind::Fifo,
        EntryKind::Socket => FileKind::Socket,
        EntryKind::Device => FileKind::Device,
        EntryKind::Link { .. } => FileKind::LinkLoop,
    }
}

fn check_content(hook: &str, content: &Content, files: &Files<'_>, findings: &mut Findings) {
    let Files { machine, host, .. } = *files;
    let unrunnable = |errno| Unrunnable { head: &content.head, errno, machine: "" }.to_string();
    if content.long_line {
        let message = "its first line is longer than the 255 bytes that the kernel reads";
        let fix = "shorten the line; move options of the interpreter into the script (set -e)";
        findings.add_at(Rule::HookFirstLine, hook, message, fix);
    }
    if let Some(interpreter) = interpreter(&content.head) {
        if content.has_cr_lf {
            let message = match interpreter.ends_with('\r') {
                true => unrunnable(ENOENT),
                false => {
                    "its lines end in CR LF, and a shell takes the CR as part of a word".into()
                }
            };
            let fix = format!("save it with LF line ends: sed -i 's/\\r$//' {hook}");
            findings.add_at(Rule::HookLineEnds, hook, message, fix);
        } else {
            check_interpreter(hook, &interpreter, &content.head, host, findings);
        }
    } else if let Some(found) = elf_machine(&content.head) {
        if !machine.runs(found) {
            let message = format!("the program is for {found}, but {machine}");
            let fix = format!("build it for {}", machine.name);
            findings.add_at(Rule::HookArchitecture, hook, message, fix);
        }
        match (&content.loader, host) {
            (Some(loader), Some(host)) if !is_executable(host, loader) => {
                let message = format!("{} ({loader})", unrunnable(ENOENT));
                findings.add_at(Rule::HookInterpreter, hook, message, "link it statically");
            }
            (Some(loader), None) => {
                let message = format!("the program needs the dynamic loader {loader} on the host");
                let fix = "link it statically, or check --against the root of the host";
                findings.add_at(Rule::HookHost, hook, message, fix);
            }
            (Some(_) | None, _) => {}
        }
    } else {
        let fix = "begin the script with #!/bin/sh as its very first bytes";
        findings.add_at(Rule::HookFormat, hook, unrunnable(ENOEXEC), fix);
    }
}

/// Checks the interpreter of a script, and if that is `env`, the program that `env` looks up.
fn check_interpreter(
    hook: &str,
    interpreter: &str,
    head: &[u8],
    host: Option<&FileTree>,
    findings: &mut Findings,
) {
    if !interpreter.starts_with('/') {
        let message = format!("its interpreter {interpreter:?} is not an absolute path");
        findings.add_at(Rule::HookInterpreter, hook, message, USE_SHELL);
        return;
    }
    let Ok(program) = env_program(interpreter, head) else {
        let message = format!(
            "{interpreter} finds no program to run: the kernel passes the rest of the line as one argument"
        );
        let fix = "name the interpreter itself (#!/bin/sh -e), or let env split the line, which not every \
                   env can do: #!/usr/bin/env -S sh -e";
        findings.add_at(Rule::HookInterpreter, hook, message, fix);
        return;
    };
    let Some(host) = host else {
        let needed = match program.as_deref() {
            Some("sh") => None,
            Some(name) => Some(name),
            None => Some(interpreter).filter(|path| !EVERYWHERE.contains(path)),
        };
        if let Some(name) = needed {
            let message = format!("it needs {name:?} on the host, which not every host has");
            let fix = format!("{USE_SHELL}; or check --against the root of the host");
            findings.add_at(Rule::HookHost, hook, message, fix);
        }
        return;
    };
    if !is_executable(host, interpreter) {
        let head = format!("#!{interpreter}\n").into_bytes();
        let message = Unrunnable { head: &head, errno: ENOENT, machine: "" }.to_string();
        findings.add_at(Rule::HookInterpreter, hook, message, USE_SHELL);
    }
    if let Some(name) = program.filter(|name| !is_on_path(host, name)) {
        let path = hook::PATH.trim_start_matches("PATH=");
        let message = format!("it runs {name:?}, which this host does not have in {path}");
        findings.add_at(Rule::HookInterpreter, hook, message, USE_SHELL);
    }
}

/// `env` has no program to run.
#[derive(Debug)]
struct NoProgram;

/// The program that `#!/usr/bin/env …` looks up. `None` if the interpreter is not `env`, or if the program
/// is unknown. The kernel passes the rest of the line as one argument (execve(2)), which `env` splits
/// only after `-S` (coreutils 8.30).
fn env_program(interpreter: &str, head: &[u8]) -> Result<Option<String>, NoProgram> {
    if split(interpreter).1 != "env" {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(head);
    let rest = line.split_once(interpreter).map_or("", |(_, rest)| rest).trim_matches([' ', '\t']);
    let is_program =
        |word: &&str| !word.is_empty() && !word.starts_with('-') && !word.contains('=');
    if let Some(words) = rest.strip_prefix("-S") {
        let program = words.split([' ', '\t']).find(is_program).ok_or(NoProgram)?;
        return Ok(Some(program.to_owned()));
    }
    // Another spelling of -S, or -S among other options: env splits the line, the program is unknown.
    let option = rest.split([' ', '\t', '=']).next().unwrap_or_default();
    let letters = option.strip_prefix('-').filter(|letters| !letters.starts_with('-'));
    if option == "--split-string" || letters.is_some_and(|letters| letters.contains('S')) {
        return Ok(None);
    }
    let is_one_word = !rest.contains([' ', '\t']) && is_program(&rest);
    if is_one_word { Ok(Some(rest.to_owned())) } else { Err(NoProgram) }
}

fn is_executable(host: &FileTree, path: &str) -> bool {
    let found = host.resolve(path).found();
    found.is_some_and(|(_, entry)| entry.content().is_some() && entry.mode & 0o111 != 0)
}

fn is_on_path(host: &FileTree, name: &str) -> bool {
    name.starts_with('/') && is_executable(host, name)
        || search_path(name).any(|path| is_executable(host, &path))
}

/// The paths at which a hook finds the program `name`.
fn search_path(name: &str) -> impl Iterator<Item = String> {
    let directories = hook::PATH.trim_start_matches("PATH=").split(':');
    directories.map(move |directory| format!("{directory}/{name}"))
}

/// The files of the host that decide whether the hooks of `tree` run.
pub(crate) fn paths_on_host(tree: &FileTree) -> Vec<String> {
    let mut paths = Vec::new();
    for verb in VERBS {
        let found = tree.resolve(verb.path()).found();
        let Some(content) = found.and_then(|(_, entry)| entry.content()) else { continue };
        paths.extend(content.loader.clone());
        if let Some(interpreter) = interpreter(&content.head) {
            if let Ok(Some(name)) = env_program(&interpreter, &content.head) {
                paths.extend(search_path(&name));
                paths.push(name);
            }
            paths.push(interpreter);
        }
    }
    paths.retain(|path| path.starts_with('/'));
    paths
}

/// Finds files that are named almost like a hook.
fn check_names(tree: &FileTree, findings: &mut Findings) {
    for (path, entry) in tree.below("hooks") {
        let Some(name) = path.strip_prefix("hooks/").filter(|name| !name.contains('/')) else {
            continue;
        };
        let stem = name.split('.').next().unwrap_or_default().to_lowercase();
        let meant = VERBS.iter().map(|verb| verb.path()).find(|hook| {
            let verb = split(hook).1;
            stem == verb || stem.strip_prefix("on-") == Some(verb)
        });
        if let Some(meant) = meant.filter(|meant| *meant != path && !entry.is_directory()) {
            let message = format!("nothing runs this file: only {meant} is a hook");
            findings.add_at(Rule::HookName, path, message, format!("rename it to {meant}"));
        }
    }
    for near in ["hook/create", "hook/start", "hook/delete"] {
        if tree.at(near).is_some() {
            let message = "nothing runs this file: hooks are in the directory hooks";
            findings.add_at(Rule::HookName, near, message, "rename the directory hook to hooks");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::check::rules::report::CheckReport;
    use crate::check::rules::tests::{files, rules};
    use crate::check::rules::tree::tests::{directory, file, link, tree};

    /// The hooks that the runtime would refuse.
    pub(crate) fn broken(tree: &FileTree) -> Vec<&'static str> {
        let mut findings = Findings::default();
        check(&files(tree), &mut findings);
        let report = CheckReport::new(String::new(), "", findings);
        let is_broken = |hook: &&str| {
            let mut hooks = report.findings.iter().filter(|finding| finding.rule == Rule::Hook);
            hooks.any(|finding| finding.path.as_deref() == Some(*hook))
        };
        VERBS.iter().map(|verb| verb.path()).filter(is_broken).collect()
    }

    fn elf(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        head.extend([2, 0]);
        head.extend(machine.to_le_bytes());
        head
    }

    fn with(hook: Entry, host: Option<&FileTree>) -> Vec<&'static str> {
        let mut findings = Findings::default();
        let tree = tree(&[("hooks/start", hook)]);
        check(&Files { host, ..files(&tree) }, &mut findings);
        rules(findings)
    }

    #[test]
    fn each_thing_that_is_wrong_with_a_hook_has_its_rule() {
        let script = |text: &str| file(0o755, text.as_bytes());
        for (hook, expected) in [
            (script("#!/bin/sh\n"), vec![]),
            (script("#!/usr/bin/env sh\n"), vec![]),
            (file(0o755, &elf(62)), vec![]),
            (directory(), vec!["hook"]),
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
    fn files_that_are_named_almost_like_hooks_are_reported() {
        let plain = file(0o755, b"#!/bin/sh\n");
        let mut findings = Findings::default();
        let tree = tree(&[
            ("hooks/start.sh", plain.clone()),
            ("hooks/Create", plain.clone()),
            ("hooks/lib.sh", plain.clone()),
            ("hooks/deactivate", plain.clone()),
            ("hook/delete", plain),
        ]);
        check(&files(&tree), &mut findings);
        assert_eq!(rules(findings), ["hook-name"; 3]);
    }
}
