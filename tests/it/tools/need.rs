//! `tools/need`: which command installs what is missing, and how apt-get is called.

use super::{DEBIAN_12, Machine};

/// An apt-get that installs the program `missing`.
const APT: &str = r#"case "$*" in
    *--assume-no*) echo "Need to get 1 MB of archives."
        echo "After this operation, 3 MB of additional disk space will be used." && exit 1 ;;
    *install*) ln -s /bin/true "$top/bin/missing" ;;
    esac"#;
const NEEDS: [&str; 2] = ["make x", "missing=its-package"];

#[track_caller]
fn command_on(os_release: &str, packages: &[&str], expected: &str) {
    let words: Vec<&str> = ["--how"].iter().chain(packages).copied().collect();
    let finished = Machine::new(os_release, 1000).run("need", &words, &[]).ok();
    assert_eq!(finished.out.trim_end(), expected, "{os_release}");
}

#[test]
fn the_command_is_that_of_the_system() {
    let packages = ["gcc", "libc6-dev", "perl-base"];
    command_on(DEBIAN_12, &packages, "sudo apt-get install gcc libc6-dev perl-base");
    command_on("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", &["g++"], "sudo apt-get install g++");
    command_on(
        "ID=fedora\n",
        &packages,
        "sudo dnf install gcc glibc-devel glibc-static perl-interpreter",
    );
    command_on("ID=arch\n", &packages, "sudo pacman -S gcc glibc perl");
    let suse = "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n";
    command_on(suse, &["g++"], "sudo zypper install gcc-c++");
    command_on("ID=alpine\n", &packages, "sudo apk add gcc musl-dev perl");
    command_on(
        "ID=alpine\n",
        &["lintian"],
        "(not packaged for this system, as far as we know: lintian)",
    );
    command_on(
        "ID=other\n",
        &packages,
        "the package manager of this system (the packages of Debian are: gcc libc6-dev perl-base)",
    );
}

#[test]
fn rust_is_the_one_that_is_new_enough_on_each_system() {
    command_on(DEBIAN_12, &["rust"], "sudo apt-get install cargo-web rustc-web");
    command_on("ID=debian\nVERSION_ID=\"13\"\n", &["rust"], "sudo apt-get install cargo");
    command_on("ID=fedora\n", &["rust"], "sudo dnf install cargo");
    command_on("ID=arch\n", &["rust"], "sudo pacman -S rust");
}

#[test]
fn a_user_gets_the_command_and_nothing_is_installed() {
    let machine = Machine::new(DEBIAN_12, 1000);
    machine.has("apt-get", APT);
    let finished = machine.run("need", &NEEDS, &[]);
    assert_eq!(finished.code(), 1, "{finished}");
    let expected = "make x needs missing, which this system lacks. Install with:\n    \
                    sudo apt-get install its-package\n";
    assert_eq!(finished.err, expected);
    assert_eq!(machine.calls("apt-get"), [""; 0]);
}

#[test]
fn root_of_debian_installs_after_the_size_was_said() {
    let machine = Machine::new(DEBIAN_12, 0);
    machine.has("apt-get", APT);
    let finished = machine.run("need", &NEEDS, &[]).ok();
    assert!(
        finished.out.contains("1 MB to download, 3 MB on disk. INSTALL_PACKAGES=no"),
        "{finished}"
    );
    let calls = machine.calls("apt-get");
    assert!(calls[0].ends_with(" update") && calls[2].contains("--no-remove"), "{calls:?}");
}

#[test]
fn root_can_decline() {
    let machine = Machine::new(DEBIAN_12, 0);
    machine.has("apt-get", APT);
    let finished = machine.run("need", &NEEDS, &[("INSTALL_PACKAGES", "no")]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("\n    apt-get install its-package\n"), "{finished}");
    assert_eq!(machine.calls("apt-get"), [""; 0]);
}

#[test]
fn another_process_that_uses_apt_is_waited_for() {
    for held in ["update", "install --no-remove --no-install-recommends --yes"] {
        let machine = Machine::new(DEBIAN_12, 0);
        let lock = format!(
            r#"case "$*" in *"{held}"*)
                if [ ! -e "$top/second" ]; then touch "$top/second"
                    echo 'E: Could not get lock /var/lib/x. It is held by process 7' >&2 && exit 100
                fi ;; esac
            {APT}"#
        );
        machine.has("apt-get", &lock);
        let finished = machine.run("need", &NEEDS, &[]).ok();
        assert!(finished.out.contains("another process uses apt; waiting for it"), "{finished}");
    }
}

#[test]
fn a_list_that_cannot_be_updated_is_no_reason_to_give_up() {
    let machine = Machine::new(DEBIAN_12, 0);
    machine.has("apt-get", &format!("case \"$*\" in *update*) exit 100 ;; esac\n{APT}"));
    machine.run("need", &NEEDS, &[]).ok();
}

#[test]
fn an_install_that_fails_shows_what_apt_said_about_lists_and_packages() {
    let machine = Machine::new(DEBIAN_12, 0);
    let broken = r#"case "$*" in
        *update*) echo 'W: Failed to fetch http://archive' >&2 && exit 100 ;;
        *) echo 'E: Unable to locate package its-package' >&2 && exit 100 ;;
        esac"#;
    machine.has("apt-get", broken);
    let finished = machine.run("need", &NEEDS, &[]);
    assert_eq!(finished.code(), 1, "{finished}");
    for expected in ["W: Failed to fetch", "E: Unable to locate", "could not install its-package"] {
        assert!(finished.err.contains(expected), "{expected}: {finished}");
    }
}

#[test]
fn a_package_without_the_program_is_named() {
    let machine = Machine::new(DEBIAN_12, 0);
    machine.has("apt-get", "exit 0");
    let finished = machine.run("need", &NEEDS, &[]);
    assert_eq!(finished.code(), 1, "{finished}");
    let expected = "make x: missing is still missing, although its-package is installed.\n";
    assert_eq!(finished.err, expected);
}
