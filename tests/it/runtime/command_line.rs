//! The command line as a whole: global flags in both forms, help and version, unknown words.

use std::process::Command;

use crate::capture;
use crate::container::Container;
use crate::finished;

/// Runs the program with only these arguments.
fn bare(words: &[&str]) -> finished::Finished {
    capture::run(Command::new(crate::programs::runtime()).env_clear().args(words))
}

#[test]
fn version_has_the_lines_that_engines_parse() {
    for flag in ["--version", "-v"] {
        let finished = bare(&[flag]).ok();
        let lines: Vec<&str> = finished.out.lines().collect();
        let [version, commit, spec] = lines.as_slice() else { panic!("{finished}") };
        // Docker: the last word of the line with `version`; the line that starts with `commit:`.
        assert!(version.starts_with("balena-extension-runtime version "), "{finished}");
        assert!(!version.rsplit(' ').next().unwrap().is_empty(), "{finished}");
        assert!(
            commit.strip_prefix("commit: ").is_some_and(|commit| !commit.is_empty()),
            "{finished}"
        );
        assert!(spec.starts_with("spec: 1."), "{finished}");
        assert_eq!(finished.err, "");
    }
}

#[test]
fn version_needs_no_state_root_and_no_environment() {
    bare(&["--root", "/proc/none", "--version"]).ok();
}

#[test]
fn general_help_names_every_command_and_every_global_flag() {
    for words in [&["--help"][..], &["-h"], &["help"]] {
        let finished = bare(words).ok();
        let words = "create start kill delete state list features ps run exec pause resume update events \
            checkpoint restore --root --log-format --log-level --debug --docker-root \
            --systemd-cgroup --rootless --criu --version --help";
        for word in words.split(' ').chain(["--log "]) {
            assert!(finished.out.contains(word), "{word} is missing in {finished}");
        }
        assert_eq!(finished.err, "");
    }
}

#[test]
fn every_command_has_help_that_fits_a_terminal() {
    for (command, flags) in [
        (
            "create",
            &[
                "--bundle",
                "--pid-file",
                "--console-socket",
                "--no-pivot",
                "--no-new-keyring",
                "--preserve-fds",
            ][..],
        ),
        ("start", &[]),
        ("kill", &["--all", "SIGNAL", "TERM"]),
        ("delete", &["--force"]),
        ("state", &[]),
        ("list", &["--format", "--quiet", "json", "table"]),
        ("features", &[]),
        ("ps", &["--format"]),
        ("run", &["--bundle", "--keep"]),
        ("exec", &[]),
        ("pause", &[]),
        ("resume", &[]),
        ("events", &[]),
        ("checkpoint", &[]),
        ("restore", &[]),
        ("update", &[]),
    ] {
        for words in [[command, "--help"], [command, "-h"], ["help", command]] {
            let finished = bare(&words).ok();
            assert!(finished.out.contains(command) && finished.err.is_empty(), "{finished}");
            assert!(finished.out.lines().all(|line| line.chars().count() <= 80), "{finished}");
            for flag in flags {
                assert!(finished.out.contains(flag), "{flag} is missing in {finished}");
            }
        }
    }
}

#[test]
fn global_flags_are_understood_in_both_forms() {
    let container = Container::created();
    let root = container.root().to_str().unwrap().to_owned();
    let log = container.log_file().to_str().unwrap().to_owned();
    let expected = format!("{}\n", container.id);
    for words in [
        vec![
            "--root".to_owned(),
            root.clone(),
            "--log".to_owned(),
            log.clone(),
            "--log-format".to_owned(),
            "json".to_owned(),
        ],
        vec![format!("--root={root}"), format!("--log={log}"), "--log-format=json".to_owned()],
        vec![
            "--log-level=debug".to_owned(),
            "--log-level".to_owned(),
            "info".to_owned(),
            format!("--root={root}"),
        ],
    ] {
        let words: Vec<&str> =
            words.iter().map(String::as_str).chain(["list", "--quiet"]).collect();
        assert_eq!(bare(&words).ok().out, expected, "{words:?}");
    }
}

#[test]
fn global_flags_without_effect_are_accepted() {
    let container = Container::created();
    for flags in [
        &["--systemd-cgroup"][..],
        &["--rootless"],
        &["--rootless=true"],
        &["--rootless=auto"],
        &["--criu", "/usr/sbin/criu"],
        &["--criu=/usr/sbin/criu"],
        &["--cgroup-manager", "disabled"],
        &["--debug"],
        &["--log-level", "warning"],
        &["--docker-root", "/x"],
    ] {
        let words = [flags, &["kill", &container.id, "0"]].concat();
        container.call(&words).ok();
    }
}

#[test]
fn flags_of_a_command_may_stand_behind_the_id() {
    let container = Container::created();
    container.call(&["ps", &container.id, "--format", "json"]).ok();
    container.call(&["delete", &container.id, "--force"]).ok();
}

#[test]
fn a_double_dash_ends_the_flags() {
    let container = Container::created();
    container.call(&["state", "--", &container.id]).ok();
    container.call(&["state", "--", "--debug"]).fails(&["\"--debug\""]);
}

mod bad {
    //! A wrong word is named, with the help that lists the right ones.

    use super::*;

    #[test]
    fn arguments_are_refused_by_name() {
        let container = Container::created();
        let id = container.id.as_str();
        let long = "x".repeat(1025);
        for (words, texts) in [
            (&[][..], &["--help"][..]),
            (&["frob", id], &["\"frob\"", "--help"]),
            (&["Create", id], &["\"Create\"", "--help"]),
            (&["--frob", "list"], &["--frob", "--help"]),
            (&["-z", "list"], &["-z", "--help"]),
            (&["create", "--frob", id], &["--frob", "create --help"]),
            (&["start", "--force", id], &["--force", "start --help"]),
            (&["list", "--frob"], &["--frob", "list --help"]),
            (&["delete", "-x", id], &["-x", "delete --help"]),
            (&["create"], &["create", "container id"]),
            (&["start"], &["start", "container id"]),
            (&["kill"], &["kill", "container id"]),
            (&["delete", "--force"], &["delete", "container id"]),
            (&["state"], &["state", "container id"]),
            (&["ps", "--format", "json"], &["ps", "container id"]),
            (&["run"], &["run", "container id"]),
            (&["start", id, "second"], &["start", "\"second\""]),
            (&["kill", id, "9", "third"], &["kill", "\"third\""]),
            (&["list", "x"], &["list", "\"x\""]),
            (&["create", id, "--bundle"], &["--bundle"]),
            (&["create", "--bundle=", id], &["--bundle"]),
            (&["create", "--pid-file", "", id], &["--pid-file"]),
            (&["create", "--preserve-fds", "many", id], &["--preserve-fds", "\"many\"", "number"]),
            (&["delete", "--force=yes", id], &["--force", "\"yes\""]),
            (&["--root=", "list"], &["--root"]),
            (&["--root"], &["--root"]),
            (&["--debug=yes", "list"], &["--debug", "\"yes\""]),
            (&["--log-level", "loud", "list"], &["--log-level", "\"loud\"", "info"]),
            (&["list", "--format", "yaml"], &["--format", "\"yaml\"", "json"]),
            (&["help", "frob"], &["\"frob\"", "--help"]),
            (&["start", ""], &["container id"]),
            (&["start", "."], &["container id"]),
            (&["start", ".."], &["container id"]),
            (&["start", "../../etc"], &["container id", "../../etc"]),
            (&["delete", "--force", "a/b"], &["container id", "a/b"]),
            (&["create", "+a"], &["container id", "+a"]),
            (&["create", "a b"], &["container id", "a b"]),
            (&["create", "ä"], &["container id", "ä"]),
            (&["create", "a\nb"], &["container id"]),
            (&["create", &long], &["container id", "1025", "1024"]),
        ] {
            container.call(words).fails(texts);
        }
        assert_eq!(container.recorded(), [container.id.as_str()]);
        assert_eq!(container.status(), "created");
    }

    #[test]
    fn an_argument_that_is_not_utf_8_is_refused() {
        use std::os::unix::ffi::OsStrExt as _;
        let container = Container::new();
        let mut command = container.command(&["start"]);
        command.arg(std::ffi::OsStr::from_bytes(b"a\xffb"));
        container.finish(&mut command).fails(&["UTF-8"]);
    }
}
