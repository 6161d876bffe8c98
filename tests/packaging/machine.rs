//! A machine that boots: systemd as process 1 in its own namespaces, over a copy of this machine's root
//! filesystem with the package and a real dockerd. `machine.sh` builds and boots it.

use crate::package::{INSTALL, UNIT, package};
use crate::{dist, run, top};
use std::process::Command;
use std::time::Duration;

pub(crate) const ENGINE: &str = "docker.service";
pub(crate) const SUPERVISOR: &str = "balena-supervisor.service";

/// The shell functions for the scripts.
const WORDS: &str = r#"
    unit=balena-extension-cleanup.service
    # deploy NAME CREATE-HOOK [OPTION]...: whatever comes of it. LABEL has a further label.
    deploy() {
        name=$1 && rm -rf /tmp/image && mkdir -p /tmp/image/hooks
        printf '#!/bin/sh\n%s\n' "$2" >/tmp/image/hooks/create && shift 2
        chmod 0755 /tmp/image/hooks/create
        tar -C /tmp/image -c . | docker import --change 'CMD ["extension"]' \
            --change "LABEL io.balena.image.class=overlay ${LABEL-}" - "$name-image" >/dev/null
        docker run --runtime=extension --network=none --name "$name" "$@" "$name-image" || true
    }
    containers() { docker ps --all --format 'container {{.Names}} {{.Status}}' | sort; }
    # now_of UNIT PROPERTY
    now_of() { systemctl show --value --property="$2" "$1"; }
    # wait_for COMMAND...: until it succeeds
    wait_for() {
        for _ in $(seq 300); do
            "$@" && return
            sleep 0.1
        done
        echo "in vain: $*" && exit 1
    }
    # drop_in UNIT: standard input is a part of its settings from now on.
    drop_in() { mkdir -p "/etc/systemd/system/$1.d" && cat >"/etc/systemd/system/$1.d/test.conf"; }
    # impatient OPTION...: the unit's own command, but with 2 s instead of 60 s for an engine that
    # is coming up.
    impatient() {
        command=$(sed -n 's/^ExecStart=//p' "/lib/systemd/system/$unit" | sed 's/--wait 60/--wait 2/')
        printf '[Service]\nExecStart=\nExecStart=%s\n' "$command $*" | drop_in "$unit"
    }
"#;

/// The start of each boot's script: waits until the boot has finished, and prints the state of the units.
const REPORT_UNITS: &str = r#"
    echo "system state=$(systemctl is-system-running --wait || true)"
    journalctl --sync
    for of in docker.service "$unit" balena-supervisor.service; do
        for property in ActiveState ActiveEnterTimestampMonotonic ConditionResult Result \
            ExecMainStatus ExecMainStartTimestampMonotonic ExecMainExitTimestampMonotonic; do
            echo "$of $property=$(now_of "$of" "$property")"
        done
    done
    journalctl --boot --output=cat --unit="$unit" | sed 's/^/journal /'
    echo '--- steps'
"#;

/// The report of one boot.
#[derive(Debug)]
pub(crate) struct Boot {
    state: String,
    /// The output of the boot's script.
    pub(crate) steps: String,
}

/// Builds a machine, prepares it with a script, and boots it once for each of `scripts`, which run after the
/// boot has finished. Nothing of it is left afterwards.
pub(crate) fn boots<const COUNT: usize>(prepare: &str, scripts: [&str; COUNT]) -> [Boot; COUNT] {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("install", INSTALL);
    write("prepare", &format!("{WORDS}{prepare}"));
    for (index, script) in scripts.iter().enumerate() {
        write(&format!("boot-{}", index + 1), &format!("{WORDS}{REPORT_UNITS}{script}"));
    }
    std::fs::copy(dist("docker/daemon.json"), folder.path().join("daemon.json")).unwrap();
    let mut machine = Command::new("unshare");
    machine.args(["--mount", "--", "sh", "-eu"]).arg(top().join("tests/packaging/machine.sh"));
    machine.arg(folder.path()).arg(package());
    machine.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    machine.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let finished = run(&mut machine);
    let report = std::fs::read_to_string(folder.path().join("report")).unwrap_or_default();
    assert!(finished.succeeded(), "{finished}\n{report}");
    let boots: Vec<Boot> = report.split("--- boot ").skip(1).map(Boot::read).collect();
    boots.try_into().unwrap_or_else(|boots| panic!("{boots:#?}\n{finished}"))
}

impl Boot {
    fn read(report: &str) -> Self {
        let parts = report.split_once("--- steps\n");
        let (state, steps) = parts.unwrap_or_else(|| panic!("{report}"));
        Self { state: state.to_owned(), steps: steps.to_owned() }
    }

    /// A property of a unit, or of the `system`, after the boot.
    #[track_caller]
    pub(crate) fn of(&self, unit: &str, property: &str) -> &str {
        let start = format!("{unit} {property}=");
        let mut lines = self.state.lines();
        let value = lines.find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no {start} in:\n{}", self.state))
    }

    /// A time since the host's boot. `None` if the event has not happened.
    #[track_caller]
    pub(crate) fn time(&self, unit: &str, property: &str) -> Option<Duration> {
        let micros = self.of(unit, property).parse().unwrap();
        Some(Duration::from_micros(micros)).filter(|time| !time.is_zero())
    }

    /// How long the boot unit ran.
    #[track_caller]
    pub(crate) fn ran_for(&self) -> Duration {
        let time = |property| self.time(UNIT, property).unwrap();
        time("ExecMainExitTimestampMonotonic") - time("ExecMainStartTimestampMonotonic")
    }

    /// The journal of the boot unit, including systemd's messages about it.
    pub(crate) fn journal(&self) -> String {
        let lines = self.state.lines().filter_map(|line| line.strip_prefix("journal "));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Panics unless the boot unit ran exactly once, after the engine was ready if that happened at all, and
    /// ended before the supervisor started.
    #[track_caller]
    pub(crate) fn kept_the_order(&self) {
        let starting = format!("Starting {UNIT}");
        assert_eq!(self.journal().matches(&starting).count(), 1, "{}", self.journal());
        let began = self.time(UNIT, "ExecMainStartTimestampMonotonic").unwrap();
        let ended = self.time(UNIT, "ExecMainExitTimestampMonotonic").unwrap();
        let supervisor = self.time(SUPERVISOR, "ExecMainStartTimestampMonotonic");
        assert!(ended <= supervisor.unwrap(), "the supervisor did not wait: {}", self.state);
        if let Some(ready) = self.time(ENGINE, "ActiveEnterTimestampMonotonic") {
            assert!(ready <= began, "it did not wait for the engine: {}", self.state);
        }
    }
}
