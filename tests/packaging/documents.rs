//! Man pages and completions, read by the programs that use them.

use crate::{files, run};
use std::process::Command;

#[test]
fn man_shows_every_page_without_a_warning() {
    for page in files("man") {
        let mut man = Command::new("man");
        man.args(["--local-file", "--warnings"]).arg(&page).env("LC_ALL", "C.UTF-8");
        man.env("MANPAGER", "cat").env("MANWIDTH", "80").env("MAN_KEEP_STDERR", "1");
        let shown = run(&mut man).ok();
        assert!(shown.err.trim().is_empty(), "{shown}");
        let name = page.file_stem().unwrap().to_str().unwrap();
        assert!(shown.out.contains("NAME") && shown.out.contains(name), "{shown}");
    }
}

/// The completions of bash for `words`, the last of which is incomplete.
fn bash_offers(program: &str, words: &[&str]) -> String {
    let file = crate::dist(&format!("completions/{program}.bash"));
    let script = format!(
        "source /usr/share/bash-completion/bash_completion; source '{}'\n\
         COMP_WORDS=({program} {}); COMP_CWORD={}\n\
         function=$(complete -p {program} | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n\
         $function {program} '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        file.display(),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len(),
        words.last().unwrap(),
        words.iter().rev().nth(1).unwrap_or(&program),
    );
    run(Command::new("bash").args(["--norc", "-c", &script])).ok().text()
}

#[test]
fn bash_completes_commands_and_flags() {
    for (words, expected) in [
        (&["clean"][..], "cleanup"),
        (&["cleanup", "--stale"], "--stale-os"),
        (&["check", "--format", "j"], "json"),
    ] {
        let offered = bash_offers("balena-extension-manager", words);
        assert!(offered.lines().any(|line| line.trim() == expected), "{words:?}: {offered}");
    }
}

#[test]
fn zsh_and_fish_take_their_completions() {
    for file in files("completions") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let shell = match name {
            name if name.ends_with(".bash") => "bash",
            name if name.ends_with(".fish") => "fish",
            _ => "zsh",
        };
        let parsed = run(Command::new(shell).arg("-n").arg(&file));
        assert!(parsed.succeeded() && parsed.text().is_empty(), "{parsed}");
    }
    let file = crate::dist("completions/balena-extension-manager.fish");
    let script = format!(
        "source '{}'; complete --do-complete 'balena-extension-manager clean'",
        file.display()
    );
    let home = tempfile::tempdir().unwrap();
    let mut fish = Command::new("fish");
    let fish = fish.args(["--no-config", "-c", &script]).env("HOME", home.path());
    let offered = run(fish).ok().text();
    assert!(offered.starts_with("cleanup"), "{offered}");
}
