//! The files of a release, made from the programs that are built: the same bytes from another directory, packages
//! for machines that cannot run here, and what `make release` refuses.

use crate::finished::Finished;
use crate::{programs, run, top};
use std::path::{Path, PathBuf};
use std::process::Command;

const EPOCH: &str = "1700000000";

/// A directory with copies of both programs, whose ELF headers are changed to those of another machine.
fn programs_for(machine: u8, flags: [u8; 4]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in [programs::runtime(), programs::manager()] {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[18] = machine;
        // Where a 32-bit header has its flags.
        bytes[36..40].copy_from_slice(&flags);
        let copy = folder.path().join(path.file_name().unwrap());
        crate::bundle::executable(&copy, &bytes);
    }
    folder
}

fn tool(checkout: &Path, name: &str) -> Command {
    let mut command = Command::new(checkout.join("tools").join(name));
    command.env("SOURCE_DATE_EPOCH", EPOCH);
    command
}

fn field(package: &Path, name: &str) -> String {
    run(Command::new("dpkg-deb").arg("--field").arg(package).arg(name)).ok().out.trim().to_owned()
}

/// The only file in a directory.
fn only_file(folder: &Path) -> PathBuf {
    let mut items = std::fs::read_dir(folder).unwrap();
    let path = items.next().unwrap().unwrap().path();
    assert!(items.next().is_none(), "more than {}", path.display());
    path
}

#[test]
fn packages_are_named_for_the_machine_of_their_programs() {
    for (machine, flags, architecture) in [
        (62, [0; 4], "amd64"),
        (183, [0; 4], "arm64"),
        (243, [0; 4], "riscv64"),
        (40, [0, 4, 0, 5], "armhf"),
        (40, [0, 2, 0, 5], "armel"),
    ] {
        let (programs, out) = (programs_for(machine, flags), tempfile::tempdir().unwrap());
        run(tool(top(), "deb").arg(out.path()).arg(programs.path())).ok();
        let package = only_file(out.path());
        assert_eq!(field(&package, "Architecture"), architecture);
        let answer = run(Command::new(programs::runtime()).arg("--version")).ok().out;
        let version = answer.lines().next().unwrap().rsplit(' ').next().unwrap().replace('-', "~");
        assert_eq!(field(&package, "Version"), version.trim_start_matches('v'));
    }
}

#[test]
fn programs_that_do_not_belong_together_are_not_packaged() {
    let (programs, out) = (programs_for(183, [0; 4]), tempfile::tempdir().unwrap());
    std::fs::copy(programs::manager(), programs.path().join("balena-extension-manager")).unwrap();
    let refused = run(tool(top(), "deb").arg(out.path()).arg(programs.path()));
    assert!(!refused.succeeded(), "{refused}");
    refused.says("for different architectures");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

/// Copies what is packed into a directory with a longer name, with other modes and times.
fn another_checkout() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let checkout = folder.path().join("a-checkout-in-a-directory-with-a-longer-name");
    let script = r#"
        umask 077
        mkdir "$2"
        cd "$1"
        cp -R *.md LICENSE Cargo.toml docs examples dist tools "$2"
        find "$2" -exec touch -d @1500000000 {} +"#;
    run(Command::new("sh").args(["-euc", script, "sh"]).arg(top()).arg(&checkout)).ok();
    (folder, checkout)
}

#[test]
fn another_directory_umask_and_age_give_the_same_bytes() {
    let programs = programs_for(183, [0; 4]);
    let (_folder, copy) = another_checkout();
    let made = |checkout: &Path, locale: &str, zone: &str| -> Vec<(PathBuf, Vec<u8>)> {
        let out = tempfile::tempdir().unwrap();
        for (name, words) in [("tarball", &["aarch64"][..]), ("deb", &[])] {
            let mut command = tool(checkout, name);
            command.arg(out.path()).arg(programs.path()).args(words);
            run(command.env("LC_ALL", locale).env("TZ", zone)).ok();
        }
        let items = std::fs::read_dir(out.path()).unwrap().map(|item| item.unwrap());
        let mut files: Vec<_> = items
            .map(|item| (PathBuf::from(item.file_name()), std::fs::read(item.path()).unwrap()))
            .collect();
        files.sort();
        files
    };
    let (here, there) = (made(top(), "C", "UTC"), made(&copy, "C.UTF-8", "Asia/Kathmandu"));
    assert_eq!(here.len(), 2);
    for (one, other) in here.iter().zip(&there) {
        assert!(one == other, "{} differs", one.0.display());
    }
}

/// The links of a Markdown text that name files: `[text](path)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let paths = ends.map(|(link, _)| link.split('#').next().unwrap());
    paths.filter(|path| !path.is_empty() && !path.contains("://") && !path.contains(' '))
}

#[test]
fn the_tarball_has_all_that_its_documents_link_to() {
    let (programs, out) = (programs_for(62, [0; 4]), tempfile::tempdir().unwrap());
    run(tool(top(), "tarball").arg(out.path()).arg(programs.path()).arg("x86_64")).ok();
    let tarball = only_file(out.path());
    run(Command::new("tar").arg("-xzf").arg(&tarball).arg("-C").arg(out.path())).ok();
    let name = tarball.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap();
    let root = out.path().join(name);
    for file in ["balena-extension-runtime", "balena-extension-manager", "LICENSE", "dist/hooks"] {
        assert!(root.join(file).exists(), "no {file}");
    }
    let mut left = vec![root];
    let mut count = 0;
    while let Some(folder) = left.pop() {
        for item in std::fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                for link in links(&crate::read(&path)) {
                    count += 1;
                    assert!(folder.join(link).exists(), "{}: no {link}", path.display());
                }
            }
        }
    }
    assert!(count > 20, "the documents were not understood: {count} links");
}

/// A git checkout with a release's tools, one commit, and a change log for `version`.
fn repository(version: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        cp -R "$1/tools" . && cp "$1/Cargo.toml" .
        sed -i "s/^version = .*/version = \"1.2.3\"/" Cargo.toml
        printf '## [%s] - 2026-01-01\n' "$2" >CHANGELOG.md
        git init -q . && git add -A
        git -c user.name=test -c user.email=test@example.com commit -q -m test"#;
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).arg(top()).arg(version);
    run(command.current_dir(folder.path())).ok();
    folder
}

/// Runs `make release`'s tool with a compiler that must not be reached.
fn release(repository: &Path, script: &str, settings: &[(&str, &str)]) -> Finished {
    run(Command::new("sh").args(["-euc", script]).current_dir(repository)).ok();
    let mut command = Command::new(repository.join("tools/release"));
    for name in ["VERSION", "VERIFY", "ARCHS", "OUT"] {
        command.env_remove(name);
    }
    let finished = run(command.envs(settings.iter().copied()).env("CARGO", "/bin/false"));
    assert!(!finished.succeeded(), "{finished}");
    finished
}

#[test]
fn all_architectures_are_built_in_the_same_way_whatever_the_caller_has_set() {
    let repository = repository("1.2.3");
    let build = r#"printf '#!/bin/sh\necho "flags=$RUSTFLAGS libc=$LIBC std=$MUSL_FROM" >&2; exit 1\n' >tools/build"#;
    let callers = [
        ("VERSION", "1.2.3-try1"),
        ("LIBC", "glibc"),
        ("MUSL_FROM", "rustup"),
        ("RUSTFLAGS", "-C target-cpu=native"),
    ];
    let failed = release(repository.path(), build, &callers);
    assert!(failed.err.contains("libc=musl std=debian"), "{failed}");
    assert!(!failed.err.contains("native"), "{failed}");
}

#[test]
fn a_release_is_refused_unless_commit_tag_version_and_change_log_agree() {
    for (logged, script, settings, reason) in [
        ("1.2.3", "true", &[][..], "the tag v1.2.3 does not name this commit"),
        ("1.2.3", "git tag v1.2.2", &[], "the tag v1.2.3 does not name this commit"),
        ("1.2.3", "git tag v1.2.3; git tag v1.2.4", &[], "also has the tag v1.2.4"),
        ("1.2.2", "git tag v1.2.3", &[], "CHANGELOG.md has no section [1.2.3]"),
        ("1.2.3", "git tag v1.2.3; touch new", &[], "changes that no commit has"),
        ("1.2.3", "git tag v1.2.3; echo >>Cargo.toml", &[], "changes that no commit has"),
        ("1.2.3", "true", &[("VERSION", "1.2.3")], "only for trying"),
        ("1.2.3", "true", &[("VERSION", "1.2.4-try1")], "only for trying"),
        ("1.2.3", "touch new", &[("VERSION", "1.2.3-try1"), ("VERIFY", "1")], "not committed"),
    ] {
        let repository = repository(logged);
        let refused = release(repository.path(), script, settings);
        assert!(refused.err.contains(reason), "{script}: no {reason:?}: {refused}");
        if !reason.contains("trying") && settings.is_empty() {
            assert!(refused.err.contains("make release VERSION=1.2.3-try1"), "{refused}");
        }
        assert!(!repository.path().join("target").exists(), "{script}: something was built");
    }
}
