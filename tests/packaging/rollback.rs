//! The unit that judges kernel overrides, on a machine that boots. The device's records are below a directory, and a
//! drop-in makes the unit's own command work there, without its pauses.

use crate::machine::{Boot, boots};
use crate::package::{REQUIRED, ROLLBACK};
use crate::{dist, read};

const ABI: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// Units of balenaOS, as oneshots that take a moment, and a device that has booted the kernel that it has armed.
const PREPARE: &str = r#"
    stub() { # stub UNIT COMMAND
        printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=%s\n' "$2" \
            >"/etc/systemd/system/$1"
    }
    for one in resin-boot resin-data mnt-sysroot-active systemd-udev-settle rollback-altboot openvpn; do
        stub $one.service /bin/true
    done
    stub resin-state.service "/bin/sh -c '! [ -e /device/no-state ]'"
    stub rollback-health.service '/bin/sleep 1'
    stub balena.service '/bin/sleep 5'
    systemctl enable extension-rollback.service
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -s ../rollback-health.service /etc/systemd/system/multi-user.target.wants/
    command=$(sed -n 's/^ExecStart=//p' /lib/systemd/system/extension-rollback.service |
        sed -e 's| validate | --host-root /device validate |' -e 's/--settle 60 --retry 60/--settle 0 --retry 0/' \
            -e 's/--attempts 15/--attempts 2/')
    printf '[Service]\nExecStart=\nExecStart=%s\n' "$command" | drop_in extension-rollback.service

    mkdir -p /device && cd /device
    mkdir -p proc run dev/disk/by-label mnt/boot mnt/state mnt/data/boot-by-abi mnt/data/docker/containers/x usr/bin
    for mounted in boot sysroot/active state data; do
        echo "/dev/sda2 /mnt/$mounted ext4 rw 0 0"
    done >proc/mounts
    echo "balena_kernel_abi=$abi" >proc/cmdline
    : >dev/sda2
    : >mnt/data/remove_me_to_reset
    ln -s ../../sda2 dev/disk/by-label/resin-rootA
    ln -s ../docker/volumes/v/_data/vmlinuz "mnt/data/boot-by-abi/$abi"
    printf '{"State":{},"Config":{"Labels":{"io.balena.image.class":"overlay","io.balena.image.kernel-abi-id":"%s"}}}' \
        "$abi" >mnt/data/docker/containers/x/config.v2.json
    { printf '# GRUB Environment Block\nkernel_override_abi=%s\n' "$abi" && printf '%01024d' 0 | tr 0 '#'; } |
        head -c 1024 >mnt/boot/bootenv
    printf '#!/bin/sh\necho the health check ran\n' >usr/bin/rollback-tests
    chmod 0755 usr/bin/rollback-tests
"#;

/// What the unit has left, and when it ran.
const REPORT: &str = r#"
    wait_for systemctl --quiet is-active balena.service
    rollback=extension-rollback.service
    moment() { echo "$1 $2=$(now_of "$1" "$2")"; }
    moment $rollback ExecMainStartTimestampMonotonic
    moment rollback-health.service ExecMainExitTimestampMonotonic
    moment balena.service ExecMainExitTimestampMonotonic
    device() { # device WHAT: the unit's result and the lines of the block
        echo "$1: $(now_of $rollback ActiveState) $(now_of $rollback Result) $(now_of $rollback ExecMainStatus)"
        grep -a '^kernel_override' /device/mnt/boot/bootenv | sed 's/=1*$/=ABI/'
        echo "$1 rejected: $(cat /device/mnt/state/override-rejected 2>/dev/null | wc -l)"
    }
    device booted
"#;

/// The same unit, when the kernel is on trial again.
const STEPS: &str = r#"
    journalctl --sync
    journalctl --boot --output=cat --unit=$rollback
    balena-extension-manager --host-root /device override status

    # A unit that is stopped is no verdict.
    sed -i 's/^kernel_override_abi_committed_A=1/kernel_override_abi_committed_A=2/' /device/mnt/boot/bootenv
    printf '#!/bin/sh\necho >/run/begun\nsleep 60\n' >/device/usr/bin/rollback-tests
    systemctl restart --no-block $rollback
    wait_for test -e /run/begun
    systemctl stop $rollback || true
    device stopped
    systemctl reset-failed $rollback

    printf '#!/bin/sh\necho it is broken\nexit 3\n' >/device/usr/bin/rollback-tests
    systemctl restart $rollback || true
    device unhealthy
    cat /device/mnt/state/override-health-triggered
    journalctl --sync
    journalctl --boot --output=cat --unit=$rollback | grep -o 'the device must be rebooted now'
    touch /device/no-state
"#;

fn unit(setting: &str) -> Vec<String> {
    let text = read(&dist("systemd").join(ROLLBACK));
    let lines = text.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn the_unit_requires_the_partitions_and_leaves_the_manager_its_time() {
    assert_eq!(unit("Requires"), REQUIRED);
    let after = unit("After");
    let judges = ["rollback-altboot.service", "rollback-health.service"];
    for one in REQUIRED.iter().chain(&judges).chain(&["systemd-udev-settle.service"]) {
        assert!(after.iter().any(|it| it == one), "{after:?}");
    }
    assert_eq!(after.len(), 7);
    let wanted = unit("Wants");
    assert_eq!(wanted, ["openvpn.service", "balena.service"]);
    assert_eq!(unit("DefaultDependencies"), ["no"]);
    assert_eq!(
        (unit("Type"), unit("RemainAfterExit")),
        (vec!["oneshot".into()], vec!["yes".into()])
    );
    assert_eq!(unit("TimeoutStartSec"), ["20min"]);
    assert_eq!(unit("WantedBy"), ["multi-user.target"]);
    let text = read(&dist("systemd").join(ROLLBACK));
    assert!(!text.contains("Condition") && !text.contains("Before="), "{text}");
    // systemd's limit is longer than the manager's. The command line is one that the manager accepts.
    let help = crate::manager(&["validate", "--help"]).ok().text();
    assert!(help.contains("[default: 1140]"), "{help}");
    let words = unit("ExecStart").join(" ");
    let expected =
        "/usr/bin/balena-extension-manager validate --settle 60 --retry 60 --attempts 15";
    assert_eq!(words, expected);
    let empty = tempfile::tempdir().unwrap();
    let root = empty.path().to_str().unwrap();
    let (_, words) = expected.split_once(' ').unwrap();
    let words: Vec<&str> = words.split(' ').chain(["--host-root", root]).collect();
    crate::manager(&words).ok().says("this device has no boot environment block");
}

#[track_caller]
fn moment(boot: &Boot, name: &str) -> u64 {
    let mut lines = boot.steps.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {boot:#?}")).parse().unwrap()
}

#[test]
fn a_boot_judges_the_kernel_after_the_update_and_not_without_the_state_partition() {
    let prepare = format!("abi={ABI}\n{PREPARE}");
    let [first, second] = boots(&prepare, [&format!("{REPORT}\n{STEPS}"), REPORT]);
    let began = moment(&first, "extension-rollback.service ExecMainStartTimestampMonotonic");
    assert!(moment(&first, "rollback-health.service ExecMainExitTimestampMonotonic") <= began);
    // The engine may still be starting: the health check waits for it.
    assert!(began < moment(&first, "balena.service ExecMainExitTimestampMonotonic"), "{first:#?}");
    let lines = [
        "booted: active success 0",
        "kernel_override_abi=ABI",
        "kernel_override_abi_committed_A=ABI",
        "booted rejected: 0",
        "the health check ran",
        &format!("committed A   {ABI}"),
        "stopped: failed exit-code 4",
        "kernel_override_abi=ABI",
        "stopped rejected: 0",
        "unhealthy: active success 0",
        "unhealthy rejected: 1",
        &format!("by=health from={ABI} to="),
        "the device must be rebooted now",
    ];
    let mut found = first.steps.lines();
    for line in lines {
        assert!(found.any(|one| one.contains(line)), "no {line:?} at its place in {first:#?}");
    }
    // The unit requires the mount: without the list of rejected kernels it would judge one again and again.
    assert!(second.steps.contains("booted: inactive success 0"), "{second:#?}");
    assert_eq!(moment(&second, "extension-rollback.service ExecMainStartTimestampMonotonic"), 0);
}
