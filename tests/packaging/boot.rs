//! The boot unit and the update hook on a machine that boots: with a real engine, without one, and with one
//! that hangs.

use crate::machine::{ENGINE, SUPERVISOR, boots};
use crate::package::UNIT;
use std::time::Duration;

use crate::support::process::STOP;

/// Fails unless `text` has these lines in this order, possibly with others between them.
#[track_caller]
fn has_in_order(text: &str, lines: &[&str]) {
    let mut all = text.lines();
    for line in lines {
        assert!(all.any(|one| one.contains(line)), "no {line:?} at its place in:\n{text}");
    }
}

/// The unit's own limits are a few seconds in these tests. The rest is for a busy machine.
const MOST: Duration = Duration::from_secs(25);

const DEPLOY: &str = r#"
    deploy good ''
    deploy bad 'echo cannot be applied; exit 3'
    LABEL=io.balena.image.kernel-version=1.2.3 deploy stale '' --volume data:/data
    containers
"#;

/// The hook is refused before the update has committed, then stopped while it runs, and then completes.
const UPDATE: &str = r#"
    containers
    hook=/usr/lib/balena-extension-runtime/after-os-update
    environment() { # environment UPGRADE_AVAILABLE: a block as GRUB has it
        mountpoint -q /mnt/boot || { mkdir -p /mnt/boot && mount -t tmpfs tmpfs /mnt/boot; }
        { printf '# GRUB Environment Block\nupgrade_available=%s\n' "$1" && printf '%01024d' 0 | tr 0 '#'; } |
            head -c 1024 >/mnt/boot/bootenv
    }
    environment 1
    $hook || echo "refused with $?"
    containers

    environment 0
    deactivate=$(docker volume inspect --format '{{.Mountpoint}}' data)/deactivate
    printf '#!/bin/sh\necho >/run/begun\n[ -e /run/quick ] || sleep 50\n' >"$deactivate"
    chmod 0755 "$deactivate"
    systemd-run --quiet --no-block --unit=update --service-type=oneshot --remain-after-exit "$hook"
    wait_for test -e /run/begun
    systemctl stop update.service || true
    echo "stopped: $(now_of update.service Result) $(now_of update.service ExecMainStatus)"
    journalctl --sync
    journalctl --output=cat --unit=update.service
    containers

    touch /run/quick
    $hook && echo "done with $?"
    containers
    docker images --format 'image {{.Repository}}' | sort
"#;

#[test]
fn a_boot_removes_what_failed_before_it_and_then_lets_the_supervisor_come() {
    let [first, second] = boots("", [DEPLOY, UPDATE]);
    for boot in [&first, &second] {
        assert_eq!(boot.of("system", "state"), "running", "{boot:#?}");
        assert_eq!(boot.of(ENGINE, "ActiveState"), "active");
        assert_eq!((boot.of(UNIT, "Result"), boot.of(UNIT, "ExecMainStatus")), ("success", "0"));
        boot.kept_the_order();
    }
    assert!(first.journal().contains("0 removed, 0 kept, 0 failed"), "{}", first.journal());
    has_in_order(&first.steps, &["container bad Created", "container good Exited (0)"]);

    let journal = second.journal();
    has_in_order(&journal, &["remove ", "1 removed, 2 kept, 0 failed", "Finished"]);
    let removal = journal.lines().find(|line| line.starts_with("remove ")).unwrap();
    assert!(removal.contains(" bad ") && removal.contains("cannot be applied"), "{removal}");
    let both = ["container good Exited (0)", "container stale Exited (0)"];
    let steps: Vec<&str> = second.steps.lines().collect();
    assert!(steps[0].starts_with(both[0]) && steps[1].starts_with(both[1]), "{steps:#?}");

    // The hook.
    let seen = [&["refused with 3"], &both[..], &["stopped: exit-code 4"], &both, &["done with 0"]];
    has_in_order(&second.steps, &seen.concat());
    let (_, after) = second.steps.split_once("done with 0\n").unwrap();
    let left: Vec<&str> = after.lines().collect();
    assert!(matches!(left[..], [one, _, _] if one.starts_with(both[0])), "{left:#?}");
    // The image of a container that failed is not stale.
    assert_eq!(left[1..], ["image bad-image", "image good-image"]);
}

#[test]
fn a_boot_continues_without_an_engine() {
    let broken = r#"
        systemctl unmask docker.service docker.socket
        printf '[Service]\nEnvironment=DOCKER_OPTS=--no-such-option\n' | drop_in docker.service
        impatient
    "#;
    let [none, failing] = boots("systemctl mask docker.service docker.socket", [broken, ""]);

    assert_eq!(none.of("system", "state"), "running");
    assert_eq!((none.of(UNIT, "ConditionResult"), none.of(UNIT, "Result")), ("no", "success"));
    assert_eq!(none.of(SUPERVISOR, "ActiveState"), "active");

    // Its socket exists, so the unit is not skipped, but there is no answer.
    assert_eq!(failing.of("system", "state"), "degraded");
    assert_eq!(
        (failing.of(UNIT, "Result"), failing.of(UNIT, "ExecMainStatus")),
        ("exit-code", "1")
    );
    assert!(failing.journal().contains("the engine"), "{}", failing.journal());
    failing.kept_the_order();
    assert!(failing.ran_for() < MOST, "{failing:#?}");
}

#[test]
fn a_boot_continues_when_the_engine_hangs_and_a_cleanup_ends_on_a_signal() {
    let stop = STOP.replace("$1", "$MAINPID");
    let hanging = format!(
        r#"
        printf '[Service]\nExecStartPost=/bin/sh -c "{stop}"\n' | drop_in docker.service
        impatient --request-timeout 2
    "#
    );
    let script = r#"
        report() { # report WHAT: how the last run of the unit ended
            echo "$1: $(now_of "$unit" Result) $(now_of "$unit" ExecMainCode) $(now_of "$unit" ExecMainStatus)"
            systemctl reset-failed "$unit"
        }
        report 'too slow'
        # The unit as it is, now; and then with less time than the manager has.
        rm -r "/etc/systemd/system/$unit.d"
        systemctl daemon-reload
        systemctl start --no-block "$unit"
        # With its two streams, the third socket is the one to the engine.
        asking() {
            process=/proc/$(now_of "$unit" MainPID)
            [ "$(readlink "$process/exe")" = /usr/bin/balena-extension-manager ] &&
                [ "$(ls -l "$process/fd" | grep -c socket:)" -ge 3 ]
        }
        wait_for asking
        # Root of a container that shares the PID namespace.
        few=+chown,+dac_override,+fowner,+kill,+setgid,+setuid,+setpcap,+sys_chroot,+mknod,+setfcap
        intrude() { setpriv --bounding-set=-all,$few --inh-caps=-all -- ls "$1/root/" >/dev/null 2>&1; }
        grep -E '^Cap(Prm|Eff|Bnd)' "$process/status"
        intrude "$process" && echo 'the manager is open' || echo 'the manager is closed'
        setpriv --bounding-set=-all --inh-caps=-all -- sleep 60 &
        wait_for intrude "/proc/$!"
        kill $!
        before=$(date +%s)
        systemctl stop "$unit"
        echo "seconds to stop: $(($(date +%s) - before))"
        report stopped

        printf '[Service]\nTimeoutStartSec=1\n' | drop_in "$unit"
        systemctl daemon-reload
        systemctl start "$unit" || true
        report 'out of time'
        journalctl --sync
        journalctl --boot --output=cat --unit="$unit"
    "#;
    let [boot] = boots(&hanging, [script]);
    assert_eq!(boot.of("system", "state"), "degraded");
    assert_eq!((boot.of(UNIT, "Result"), boot.of(UNIT, "ExecMainStatus")), ("exit-code", "1"));
    assert!(boot.journal().contains("no answer from the engine within 2 s"), "{}", boot.journal());
    boot.kept_the_order();
    assert!(boot.ran_for() < MOST, "{boot:#?}");

    // The manager drops the one capability that the unit leaves it.
    let closed =
        ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000800000000"];
    has_in_order(&boot.steps, &[&closed[..], &["the manager is closed"]].concat());

    // 1: it exited and was not killed. 4: a signal arrived.
    let reports = ["too slow: exit-code 1 1", "stopped: exit-code 1 4", "out of time: timeout 1 4"];
    has_in_order(&boot.steps, &reports);
    let seconds = boot.steps.lines().find_map(|line| line.strip_prefix("seconds to stop: "));
    assert!(seconds.unwrap().parse::<u32>().unwrap() < 10, "{seconds:?}");
    assert!(!boot.steps.contains("SIGKILL"), "{}", boot.steps);
}

/// Deploys with an engine that has its own mounts, and prints the mounts of the host.
const APART: &str = r#"
    apply='mkdir -p /run/applied && mount -t tmpfs of-a-hook /run/applied'
    LABEL=io.balena.image.kernel-version=1.2.3 deploy apart "$apply" --volume data:/data
    echo "engine: $(readlink "/proc/$(cat /run/docker.pid)/ns/mnt")"
    echo "host: $(readlink /proc/1/ns/mnt)"
    on_host() { echo "$1 on the host: $(grep -c " $1 .* of-a-hook " /proc/1/mountinfo || true)"; }
    on_host /run/applied
    containers
    balena-extension-manager doctor | grep ' mounts ' || true

    deactivate=$(docker volume inspect --format '{{.Mountpoint}}' data)/deactivate
    printf '#!/bin/sh\numount /run/applied\nmkdir /run/deactivated && mount -t tmpfs of-a-hook /run/deactivated\n' \
        >"$deactivate"
    chmod 0755 "$deactivate"
    systemd-run --quiet --no-block --unit=apart --service-type=oneshot --remain-after-exit \
        --property=PrivateTmp=yes balena-extension-manager cleanup --stale-os
    wait_for systemctl --quiet is-active apart.service
    journalctl --sync
    journalctl --output=cat --boot --unit=apart.service
    on_host /run/applied
    on_host /run/deactivated
    docker volume rm data
"#;

/// The engine units of balenaOS have the first of these settings. There, as here, the engine starts its
/// containerd.
#[test]
fn what_hooks_mount_is_on_the_host_though_the_engines_unit_has_mounts_of_its_own() {
    let slave = r"
        systemctl mask containerd.service
        { echo '[Service]'; echo MountFlags=slave; echo ExecStart=
            echo 'ExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS'; } | drop_in docker.service";
    let private_tmp =
        "sed -i s/MountFlags=slave/PrivateTmp=yes/ /etc/systemd/system/docker.service.d/test.conf";
    for boot in boots(slave, [&format!("{APART}\n{private_tmp}"), APART]) {
        let line = |start: &str| {
            let mut lines = boot.steps.lines();
            lines.find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("{boot:#?}"))
        };
        assert_ne!(line("engine: "), line("host: "), "{boot:#?}");
        let seen = [
            "/run/applied on the host: 1",
            "container apart Exited (0)",
            "ok       mounts            dockerd",
            "2 removed",
            "/run/applied on the host: 0",
            "/run/deactivated on the host: 1",
        ];
        has_in_order(&boot.steps, &seen);
        assert!(line("ok       mounts ").contains("its own mount namespace"), "{boot:#?}");
    }
}

/// Then containerd sees an empty directory where dockerd has mounted the rootfs. That must not count as an
/// image without hooks.
#[test]
fn an_engine_that_does_not_share_its_mounts_with_its_containerd_deploys_nothing() {
    let slave = r"printf '[Service]\nMountFlags=slave\n' | drop_in docker.service";
    let [boot] = boots(
        slave,
        ["deploy apart 'touch /run/applied' 2>&1; ls /run/applied || true; containers"],
    );
    has_in_order(
        &boot.steps,
        &["do not share their mounts", "cannot access", "container apart Created"],
    );
}
