//! The Debian package: built, checked with lintian, installed, used, removed.

use crate::finished::Finished;
use crate::{run, top};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Builds the package into a directory, without a network.
fn build(folder: &Path) -> PathBuf {
    let tool = top().join("tools/deb");
    run(Command::new("unshare").args(["--net", "--"]).arg(tool).arg(folder)).ok();
    let mut items = std::fs::read_dir(folder).unwrap();
    let path = items.next().unwrap().unwrap().path();
    assert_eq!(path.extension().unwrap(), "deb");
    path
}

/// The package under test, built once. It remains in the target directory, which `make clean` removes.
pub(crate) fn package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        build(&folder)
    })
}

/// Runs a shell script in a copy of this machine's root filesystem, without a network, with the package as
/// `/package.deb`. All mounts, files and processes end with the script.
fn in_a_copy(script: &str) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let outer = r#"
        set -eu
        mount -t tmpfs -o mode=0755 none "$1"
        mkdir "$1/upper" "$1/work" "$1/root"
        mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
        mount -t proc proc "$1/root/proc"
        mount --rbind /dev "$1/root/dev"
        # What belongs to the running machine must not be seen, let alone changed.
        mount -t tmpfs none "$1/root/run"
        cp "$2" "$1/root/package.deb"
        exec chroot "$1/root" /bin/sh -euc "$3"
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--"]);
    command.args(["/bin/sh", "-c", outer, "sh"]).arg(folder.path()).arg(package()).arg(script);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    run(&mut command)
}

pub(crate) const INSTALL: &str = "apt-get install --yes --no-install-recommends /package.deb";
pub(crate) const UNIT: &str = "balena-extension-cleanup.service";
/// The unit for devices with kernel overrides.
pub(crate) const ROLLBACK: &str = "extension-rollback.service";
/// The timer for devices with a node_exporter.
pub(crate) const METRICS: &str = "balena-extension-metrics.timer";
/// Units of balenaOS that it requires.
pub(crate) const REQUIRED: [&str; 4] = [
    "resin-boot.service",
    "resin-state.service",
    "resin-data.service",
    "mnt-sysroot-active.service",
];

#[test]
fn lintian_has_nothing_to_say() {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]);
    let report = run(lintian.arg(package())).text();
    let complaints: Vec<&str> =
        report.lines().filter(|line| line.starts_with("E:") || line.starts_with("W:")).collect();
    assert!(complaints.is_empty(), "lintian:\n{report}");
}

#[test]
fn the_same_sources_make_the_same_package() {
    let folder = tempfile::tempdir().unwrap();
    let again = std::fs::read(build(folder.path())).unwrap();
    assert!(std::fs::read(package()).unwrap() == again, "two builds differ");
}

#[test]
fn apt_installs_both_programs_and_they_work() {
    let script = format!(
        "{INSTALL} >/dev/null
        balena-extension-runtime --version
        balena-extension-manager --version
        systemctl --root=/ is-enabled {UNIT}
        systemd-analyze verify /lib/systemd/system/{UNIT} >/tmp/verify 2>&1
        # A setting that systemd does not know is a warning with status 0.
        grep {UNIT} /tmp/verify || echo unit is fine
        systemctl --root=/ is-enabled {ROLLBACK} || true
        for required in {required}; do
            printf '[Service]\nType=oneshot\nExecStart=/bin/true\n' >/etc/systemd/system/$required
        done
        systemd-analyze verify /lib/systemd/system/{ROLLBACK} >/tmp/verify 2>&1 || echo cannot be started
        grep {ROLLBACK} /tmp/verify || echo rollback unit is fine
        systemctl --root=/ is-enabled {METRICS} | sed 's/^/metrics: /'
        systemd-analyze verify /lib/systemd/system/{METRICS} >/tmp/verify 2>&1 || true
        grep balena-extension-metrics /tmp/verify || echo metrics units are fine
        man --where balena-extension-runtime balena-extension-manager
        dpkg --verify balena-extension-runtime && echo files are as packed
        /usr/lib/balena-extension-runtime/after-os-update || echo stale has no engine: $?",
        required = REQUIRED.join(" ")
    );
    let output = in_a_copy(&script).ok().text();
    assert!(!output.contains("cannot be started"), "{output}");
    for expected in [
        "balena-extension-runtime version ",
        "balena-extension-manager version ",
        "\nenabled\n",
        "\nunit is fine",
        "\ndisabled\n",
        "rollback unit is fine",
        "metrics: disabled",
        "metrics units are fine",
        "/man8/balena-extension-runtime.8.gz",
        "/man8/balena-extension-manager.8.gz",
        "files are as packed",
        "stale has no engine",
    ] {
        assert!(output.contains(expected), "no {expected:?} in:\n{output}");
    }
}

#[test]
fn an_upgrade_keeps_what_was_decided_and_nothing_of_the_old() {
    let script = format!(
        "dpkg-deb -R /package.deb /tmp/old
        sed -i 's/^Version: .*/Version: 0.0.1~old/' /tmp/old/DEBIAN/control
        touch /tmp/old/usr/share/doc/balena-extension-runtime/old
        dpkg-deb --build /tmp/old /tmp/old.deb >/dev/null
        apt-get install --yes --no-install-recommends /tmp/old.deb >/dev/null
        ls /usr/share/doc/balena-extension-runtime/old
        systemctl --root=/ disable {UNIT}
        {INSTALL} >/dev/null
        systemctl --root=/ is-enabled {UNIT} || true
        systemctl --root=/ enable {UNIT}
        [ ! -e /usr/share/doc/balena-extension-runtime/old ] && echo the old is gone
        dpkg --verify balena-extension-runtime && echo files are as packed
        balena-extension-manager --version
        dpkg-query -W -f '${{Status}} ${{Version}}\n' balena-extension-runtime"
    );
    let output = in_a_copy(&script).ok().text();
    for expected in ["/old\n", "disabled\n", "the old is gone", "files are as packed"] {
        assert!(output.contains(expected), "no {expected:?} in:\n{output}");
    }
    let installed = output.lines().find(|line| line.starts_with("install ok installed ")).unwrap();
    assert!(!installed.contains("old"), "{output}");
}

#[test]
fn a_disabled_unit_remains_disabled_and_a_purge_leaves_nothing() {
    let script = format!(
        "list() {{ find /etc /lib /usr /var -xdev -name '*balena-extension*' | sort >\"/tmp/$1\"; }}
        list before
        {INSTALL} >/dev/null
        systemctl --root=/ disable {UNIT}
        {INSTALL} --reinstall >/dev/null
        systemctl --root=/ is-enabled {UNIT} || true
        systemctl --root=/ enable {UNIT}
        apt-get remove --yes balena-extension-runtime >/dev/null
        [ ! -e /usr/bin/balena-extension-manager ] && echo removed
        apt-get purge --yes balena-extension-runtime >/dev/null
        list after
        diff /tmp/before /tmp/after | sed -n 's/^[<>]/left: /p'
        echo done"
    );
    let output = in_a_copy(&script).ok().text();
    assert!(output.contains("\ndone\n"), "{output}");
    assert!(output.contains("\ndisabled\n") || output.starts_with("disabled\n"), "{output}");
    assert!(output.contains("removed\n"), "{output}");
    assert!(!output.contains("left: "), "{output}");
}
