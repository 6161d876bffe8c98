//! `tools/build` and `tools/rust`: which compiler and standard library are used, what is downloaded for them, and what
//! a machine is told that cannot build.

use std::fs;

use super::{DEBIAN_12, Machine, UBUNTU_24};
use crate::programs;

/// Gives the machine a cargo that uses the compiler `rustc`, and "builds" by copying programs that are static.
fn cargo(machine: &Machine, name: &str, rustc: &str) {
    let (runtime, manager) = (programs::runtime(), programs::manager());
    let script = format!(
        r#"rustc=$(command -v "${{RUSTC-{rustc}}}")
        case $1 in
        check) exec "$RUSTC_WRAPPER" "$rustc" -vV ;;
        build)
            while [ $# -gt 0 ]; do
                case $1 in --target) triple=$2 ;; --target-dir) directory=$2 ;; esac
                shift
            done
            variable=CARGO_TARGET_$(echo "$triple" | tr a-z- A-Z_)_LINKER
            eval "echo \"linked by \$$variable\"" >>"$top/calls"
            mkdir -p "$directory/$triple/release"
            cp {runtime:?} "$directory/$triple/release/balena-extension-runtime"
            cp {manager:?} "$directory/$triple/release/balena-extension-manager" ;;
        esac"#
    );
    machine.has(name, &script);
}

/// Gives it a compiler with a sysroot, which is below the machine's directory.
fn rustc(machine: &Machine, name: &str, version: &str, sysroot: &str) {
    let script = format!(
        r#"case "$*" in
        --version) echo "rustc {version} (0123abc 2026-01-01)" ;;
        *sysroot*) echo "$top/{sysroot}" ;;
        esac"#
    );
    machine.has(name, &script);
}

/// A compiler of rustup.
const STABLE: &str = "toolchains/stable";
const TRIPLE: &str = "x86_64-unknown-linux-musl";

/// A machine with rustup's compiler, which has no standard library for musl. Its rustup can add one if `network`.
fn machine_with_rustup(uid: u32, network: bool) -> Machine {
    let machine = Machine::new(DEBIAN_12, uid);
    cargo(&machine, "cargo", "rustc");
    rustc(&machine, "rustc", "1.95.0", STABLE);
    let add = if network {
        r#"for triple; do :; done
        mkdir -p "$top/toolchains/stable/lib/rustlib/$triple/lib"
        touch "$top/toolchains/stable/lib/rustlib/$triple/lib/libstd-1.rlib""#
    } else {
        "echo 'error: could not download' >&2; exit 1"
    };
    machine.has("rustup", add);
    for name in ["cc", "gcc", "dpkg-query", "apt-cache"] {
        machine.has(name, "");
    }
    machine.has("apt-get", "exit 100");
    machine
}

const WITH_RUSTUP: [(&str, &str); 1] = [("RUSTUP_TOOLCHAIN", "stable")];

#[test]
fn a_machine_without_rust_is_told_where_it_is() {
    let machine = Machine::new(DEBIAN_12, 1000);
    let finished = machine.run("build", &[], &[]);
    assert_eq!(finished.code(), 1, "{finished}");
    for expected in [
        "there is no cargo on PATH",
        "rustup target add x86_64-unknown-linux-musl",
        "apt-get install rustc-web cargo-web rust-web-src gcc",
    ] {
        assert!(finished.err.contains(expected), "{expected}: {finished}");
    }
    // It needs a compiler too.
    assert!(!finished.err.contains("LIBC=glibc"), "{finished}");
}

#[test]
fn ubuntu_is_told_its_own_packages_and_the_name_of_their_cargo() {
    let machine = Machine::new(UBUNTU_24, 0);
    for name in ["dpkg-query", "apt-cache", "apt-get"] {
        machine.has(name, "");
    }
    let finished = machine.run("build", &[], &[]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("there is no cargo on PATH\n"), "{finished}");
    let expected =
        "apt-get install cargo-1.85 rust-1.85-src musl-dev gcc; then make build CARGO=cargo-1.85";
    assert!(finished.err.contains(expected), "{finished}");
    assert!(!finished.err.contains("rustc-web"), "{finished}");

    // Its package has been installed.
    cargo(&machine, "cargo-1.85", "rustc-1.85");
    rustc(&machine, "rustc-1.85", "1.85.1", "usr/lib/rust-1.85");
    let finished = machine.run("build", &[], &[]);
    assert_eq!(finished.code(), 1, "{finished}");
    let expected = "no cargo on PATH, but there is cargo-1.85: make ... CARGO=cargo-1.85 uses it";
    assert!(finished.err.contains(expected), "{finished}");
    let finished = machine.run("build", &[], &[("CARGO", "cargo-1.85")]);
    assert!(finished.err.contains("rustc 1.85.1 has no standard library for x86_64"), "{finished}");
    assert!(!finished.err.contains("MUSL_FROM=debian"), "{finished}");
    assert_eq!(machine.calls("apt-get"), [""; 0]);
}

#[test]
fn a_compiler_that_is_too_old_is_named_before_anything_is_downloaded() {
    let machine = machine_with_rustup(1000, true);
    rustc(&machine, "rustc", "1.84.1", STABLE);
    let finished = machine.run("build", &[], &WITH_RUSTUP);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("cargo uses rustc 1.84.1, which is too old"), "{finished}");
    assert!(!finished.err.contains("LIBC=glibc"), "{finished}");
    assert_eq!(machine.calls("rustup"), [""; 0]);
    assert_eq!(machine.calls("apt-get"), [""; 0]);
    assert_eq!(machine.calls("cargo build"), [""; 0]);
}

#[test]
fn the_compiler_is_the_one_that_this_cargo_uses() {
    let machine = machine_with_rustup(1000, true);
    rustc(&machine, "rustc", "1.75.0", STABLE);
    cargo(&machine, "cargo-1.97", "rustc-1.97");
    rustc(&machine, "rustc-1.97", "1.97.0-nightly", STABLE);
    let finished = machine.run("build", &[], &[WITH_RUSTUP[0], ("CARGO", "cargo-1.97")]).ok();
    assert!(finished.out.contains("built standard library, rustc 1.97.0-nightly"), "{finished}");
}

#[test]
fn rustup_adds_the_target_and_that_is_said_first() {
    let machine = machine_with_rustup(1000, true);
    let finished = machine.run("build", &[], &WITH_RUSTUP).ok();
    let said = format!("rustup target add --toolchain stable {TRIPLE}\n");
    assert!(finished.out.contains(&said), "{finished}");
    assert_eq!(machine.calls("rustup"), [format!("rustup target add --toolchain stable {TRIPLE}")]);
    machine.run("build", &[], &WITH_RUSTUP).ok();
    assert_eq!(machine.calls("rustup").len(), 1, "not again");
}

#[test]
fn no_second_rust_is_installed_unless_asked_for() {
    let machine = machine_with_rustup(0, false);
    let finished = machine.run("build", &[], &WITH_RUSTUP);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("rustup could not add"), "{finished}");
    assert!(finished.err.contains("make build LIBC=glibc"), "{finished}");
    assert!(finished.err.contains("make build MUSL_FROM=debian"), "{finished}");
    assert_eq!(machine.calls("apt-get"), [""; 0]);
    assert_eq!(machine.calls("cargo build"), [""; 0], "no build for another libc");
}

#[test]
fn glibc_is_the_fallback_only_if_asked_for() {
    let machine = machine_with_rustup(0, false);
    machine.has("cc", "echo /usr/lib/libc.a");
    let finished = machine.run("build", &[], &[WITH_RUSTUP[0], ("LIBC", "auto-glibc")]).ok();
    assert!(finished.out.contains("built for glibc (slower to start):\n  - rustup"), "{finished}");
    let built = machine.calls("cargo build");
    assert!(built.len() == 1 && built[0].contains("x86_64-unknown-linux-gnu"), "{built:?}");
}

#[test]
fn rustups_programs_for_aarch64_are_linked_position_independent() {
    let machine = machine_with_rustup(1000, true);
    machine.run("build", &[], &[WITH_RUSTUP[0], ("ARCH", "aarch64")]).ok();
    let linked = machine.calls("linked by");
    assert!(linked.len() == 1 && linked[0].ends_with("/tools/musl-lld"), "{linked:?}");

    // What rustc passes for a fixed address.
    machine.has("rust-lld", "");
    let crt = ["/lib/self-contained/crt1.o", "/lib/self-contained/crtbegin.o", "/lib/crti.o"];
    let arguments = [&["-flavor", "gnu"][..], &crt, &["-static", "/lib/crtend.o", "-o", "out"]];
    machine.run("musl-lld", &arguments.concat(), &[]).ok();
    let expected = "rust-lld -flavor gnu /lib/self-contained/rcrt1.o /lib/self-contained/crtbeginS.o /lib/crti.o \
         /lib/crtendS.o -o out -static -pie --no-dynamic-linker -z text";
    assert_eq!(machine.calls("rust-lld"), [expected]);
}

/// An apt-cache that knows a new compiler only when the lists have been updated, and an apt-get that installs it.
fn with_old_lists(machine: &Machine) {
    machine.has(
        "apt-cache",
        r#"version=1.63.0; [ ! -e "$top/updated" ] || version=1.96.0
        printf 'rustc-web:\n  Installed: (none)\n  Candidate: %s+dfsg1\n' "$version""#,
    );
    rustc(machine, "../usr/bin/debian-rustc", "1.96.0", "usr");
    cargo(machine, "../usr/bin/debian-cargo", "none");
    machine.has(
        "apt-get",
        r#"case "$*" in
        *update*) touch "$top/updated" ;;
        *--yes*) cd "$top/usr" && mv bin/debian-rustc bin/rustc && mv bin/debian-cargo bin/cargo
            mkdir -p lib/rustlib/src/rust/library/std && touch lib/rustlib/src/rust/library/std/Cargo.toml ;;
        esac"#,
    );
}

#[test]
fn lists_that_are_too_old_are_updated_before_anything_is_given_up() {
    let machine = machine_with_rustup(0, false);
    with_old_lists(&machine);
    let variables = [WITH_RUSTUP[0], ("MUSL_FROM", "debian")];
    let finished = machine.run("build", &[], &variables).ok();
    assert!(finished.out.contains("package lists are old or missing; updating them"), "{finished}");
    assert!(finished.out.contains("built from source, rustc 1.96.0"), "{finished}");
    let installed = machine.calls("apt-get").join("\n");
    assert!(installed.contains("--yes cargo-web rust-web-src rustc-web"), "{installed}");
}

#[test]
fn another_compiler_at_debians_place_is_seen_before_anything_is_installed() {
    let machine = machine_with_rustup(0, false);
    with_old_lists(&machine);
    rustc(&machine, "../usr/bin/rustc", "1.95.0", "elsewhere");
    let finished = machine.run("build", &[], &[WITH_RUSTUP[0], ("MUSL_FROM", "debian")]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("/usr/bin/rustc is not Debian's"), "{finished}");
    assert_eq!(machine.calls("apt-get"), [""; 0]);
}

#[test]
fn debian_12s_own_compiler_is_named_with_what_replaces_it() {
    let machine = machine_with_rustup(0, false);
    machine.has("dpkg-query", "echo 'ii  rustc 1.63.0+dfsg1-2'");
    let finished = machine.run("build", &[], &[WITH_RUSTUP[0], ("MUSL_FROM", "debian")]);
    assert_eq!(finished.code(), 1, "{finished}");
    let expected = "rustc-web would replace it: apt-get install cargo-web rust-web-src rustc-web";
    assert!(finished.err.contains("Debian's rustc is 1.63.0, and 1.85 is needed"), "{finished}");
    assert!(finished.err.contains(expected), "{finished}");
    assert_eq!(machine.calls("apt-get"), [""; 0]);
}

#[test]
fn each_architecture_has_its_target_and_no_other_is_accepted() {
    for (arch, triple) in [
        ("aarch64", "aarch64-unknown-linux-musl"),
        ("armv7", "armv7-unknown-linux-musleabihf"),
        ("armv6", "arm-unknown-linux-musleabi"),
        ("riscv64", "riscv64gc-unknown-linux-musl"),
    ] {
        let machine = machine_with_rustup(1000, true);
        machine.run("build", &[], &[WITH_RUSTUP[0], ("ARCH", arch)]).ok();
        let built = machine.calls("cargo build");
        assert!(built[0].contains(&format!("--target {triple} ")), "{built:?}");
    }
    let machine = machine_with_rustup(1000, true);
    let finished = machine.run("build", &[], &[("ARCH", "sparc")]);
    assert!(finished.err.contains("ARCH=sparc: use x86_64, aarch64"), "{finished}");
    let finished = machine.run("build", &[], &[("ARCH", "armv7"), ("LIBC", "glibc")]);
    assert!(finished.err.contains("LIBC=glibc is for this machine only"), "{finished}");
    assert_eq!(machine.calls("cargo"), [""; 0]);
}

#[test]
fn programs_of_another_architecture_are_never_put_in_place_of_this_machines() {
    let machine = machine_with_rustup(1000, true);
    let finished = machine.run("build", &[], &[WITH_RUSTUP[0], ("ARCH", "aarch64"), ("OUT", "")]);
    let place = machine.path("target/aarch64/balena-extension-runtime");
    assert!(place.exists(), "{finished}");
    assert!(fs::metadata(place).unwrap().len() > 0, "{finished}");
}

#[test]
fn sudo_that_hides_the_users_cargo_is_named() {
    let machine = Machine::new(DEBIAN_12, 0);
    machine.has("../home/.cargo/bin/cargo", "");
    machine.has("getent", "echo \"me:x:1000:1000::$top/home:/bin/sh\"");
    let finished = machine.run("rust", &["make test"], &[("SUDO_USER", "me")]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("sudo hides"), "{finished}");
    assert!(finished.err.contains("Build as me first (make build)"), "{finished}");
}
