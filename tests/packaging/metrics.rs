//! The metrics, given to Prometheus' own tool; the query that docs/metrics.md shows; and the unit that writes them.

use crate::machine::boots;
use crate::package::METRICS;
use crate::support::host::Host;
use crate::support::recorded_store::{Container, Contents, KERNEL, Store, labels};
use crate::{dist, read, run, top};
use std::path::Path;
use std::process::Command;

const SERVICE: &str = "balena-extension-metrics.service";

/// What promtool says about a document, and its exit status.
fn promtool(metrics: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    std::fs::write(&path, metrics).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "promtool check metrics <\"$1\"", "sh"]).arg(path);
    let finished = run(&mut shell);
    (finished.code(), finished.text())
}

#[track_caller]
fn accepted(metrics: &str) {
    let (status, text) = promtool(metrics);
    assert!(status == 0 && text.is_empty(), "{status}: {text}\n{metrics}");
}

#[test]
fn promtool_accepts_what_is_printed_about_any_host() {
    let golden = read(&top().join("tests/golden/documents/manager-status.prom"));
    accepted(&golden);
    let odd = |name| Container { name: Some(name), ..Container::new("0123456789abcdef") };
    let old = labels(&[(KERNEL, "5.10.0")]);
    let stale = Container { labels: old.clone(), ..Container::new("stale") };
    for containers in [
        vec![],
        vec![odd("a\"b\\c\nd\u{0}e\rf{x=\"y\"} 1"), odd(""), odd("ü\u{85}")],
        vec![Container::new("a"), odd("name-of-a"), stale],
    ] {
        let host = Host::new();
        host.deployed("a", &["hooks/start"]);
        let images = vec![("old".to_owned(), old.clone())];
        let store = Store::new(Contents { containers, images, ..Contents::default() });
        let engine = host.engine(&store);
        accepted(&host.manager(&["status", "--format", "prometheus"]).ok().out);
        drop(engine);
        std::fs::create_dir_all(host.path("var/lib/docker/containers")).unwrap();
        accepted(&host.manager(&["status", "--format", "prometheus"]).ok().out);
    }
    // It does notice.
    for (from, to) in [
        ("name-of-dead", "name\"of-dead"),
        ("# TYPE balena_extension_containers gauge", "# TYPE balena_extension_containers total"),
        ("balena_extension_containers 5", "balena_extension_containers five"),
    ] {
        let broken = golden.replace(from, to);
        assert!(broken != golden && promtool(&broken).0 != 0, "{from}: {}", promtool(&broken).1);
    }
}

#[test]
fn the_query_of_the_document_finds_each_device_that_does_not_have_the_set() {
    let document = read(&top().join("docs/metrics.md"));
    let (_, rest) = document.split_once("```promql\n").unwrap();
    let query = rest.split("```").next().unwrap().replace("DIGEST", "d1").replace('\n', " ");
    let directory = "/var/lib/prometheus/node-exporter";
    let mut series = Vec::new();
    // After 30 minutes, at the time 1800.
    for (device, digest, written) in [
        ("right", Some("d1"), Some("1700")),
        ("other", Some("d2"), Some("1700")),
        ("unknown", None, Some("1700")),
        ("old", Some("d1"), Some("100")),
        ("never", None, None),
    ] {
        series.push((format!("up{{job=\"node\",instance=\"{device}\"}}"), "1"));
        if let Some(digest) = digest {
            let labels = format!("digest=\"{digest}\",instance=\"{device}\"");
            series.push((format!("balena_extension_applied_set_info{{{labels}}}"), "1"));
        }
        if let Some(written) = written {
            let labels =
                format!("file=\"{directory}/balena-extensions.prom\",instance=\"{device}\"");
            series.push((format!("node_textfile_mtime_seconds{{{labels}}}"), written));
        }
    }
    let series: String = series
        .iter()
        .map(|(series, value)| format!("  - series: '{series}'\n    values: '{value}x40'\n"))
        .collect();
    let check = |devices: &[&str]| {
        let expected: String = devices
            .iter()
            .map(|device| format!("    - labels: '{{instance=\"{device}\"}}'\n      value: 1\n"))
            .collect();
        let text = format!(
            "evaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n{series}  promql_expr_test:\n  \
             - expr: '{query}'\n    eval_time: 30m\n    exp_samples:\n{expected}"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yml");
        std::fs::write(&path, text).unwrap();
        run(Command::new("promtool").args(["test", "rules"]).arg(path))
    };
    check(&["other", "unknown", "old", "never"]).ok();
    assert!(!check(&["other", "unknown", "old"]).succeeded());
    assert!(!check(&["right", "other", "unknown", "old", "never"]).succeeded());
}

/// The values of a setting in a unit.
fn unit(name: &str, setting: &str) -> Vec<String> {
    let text = read(&dist("systemd").join(name));
    let lines = text.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn the_service_may_write_where_its_variable_says_and_the_timer_starts_it() {
    let variable = unit(SERVICE, "Environment");
    let file = variable[0].strip_prefix("METRICS_FILE=").unwrap();
    let parent = Path::new(file).parent().unwrap().to_str().unwrap();
    assert_eq!(unit(SERVICE, "ReadWritePaths"), [format!("-{parent}")]);
    assert!(read(&top().join("docs/metrics.md")).contains(file), "{file}");
    let words = unit(SERVICE, "ExecStart").join(" ");
    let expected = "/usr/bin/balena-extension-manager --timeout 120 status --format prometheus \
                    --output ${METRICS_FILE}";
    assert_eq!(words, expected);
    assert_eq!(unit(SERVICE, "TimeoutStartSec"), ["150"]);
    // Only the timer starts it, and nobody waits for it.
    for setting in ["WantedBy", "Before", "Requires", "BindsTo", "PrivateTmp"] {
        assert!(unit(SERVICE, setting).is_empty(), "{setting}");
    }
    assert_eq!(unit(METRICS, "WantedBy"), ["timers.target"]);
    assert_eq!(METRICS.replace(".timer", ".service"), SERVICE);
    let of = |name: &str| read(&dist("systemd").join(name));
    let sandbox = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains("=") && !line.contains("Path"));
        let lines = lines.skip_while(|line| !line.starts_with("CapabilityBoundingSet"));
        lines.take_while(|line| *line != "[Install]").map(str::to_owned).collect()
    };
    let mut cleanup = sandbox(&of("balena-extension-cleanup.service"));
    cleanup.retain(|line| line != "PrivateTmp=yes" && line != "WantedBy=multi-user.target");
    assert_eq!(sandbox(&of(SERVICE)), cleanup);
}

const STEPS: &str = r#"
    deploy good 'touch /run/applied'
    directory=/var/lib/prometheus/node-exporter
    file=$directory/balena-extensions.prom
    rm -rf /var/lib/prometheus
    echo "enabled: $(systemctl is-enabled balena-extension-metrics.timer || true)"
    result() { # result WHAT: how the service ended
        systemctl start balena-extension-metrics.service || true
        echo "$1: $(now_of balena-extension-metrics.service Result)"
        systemctl reset-failed balena-extension-metrics.service 2>/dev/null || true
    }
    result 'no directory'
    mkdir -p "$directory"
    balena-extension-manager status
    result 'engine up'
    stat -c 'mode: %a' "$file"
    echo '--- metrics'
    cat "$file"
    echo '--- end'

    systemctl stop docker.socket docker.service
    result 'engine down'
    grep 'fact="engine"' "$file"
    grep 'verdict="applied"' "$file"
    touch -d @1000 "$file"
    mount -t tmpfs none /var/lib/docker
    result 'no store'
    stat -c 'written: %Y' "$file"
    umount /var/lib/docker

    mkdir -p /srv/metrics
    printf '[Service]\nEnvironment=METRICS_FILE=/srv/metrics/x.prom\nReadWritePaths=/srv/metrics\n' |
        drop_in balena-extension-metrics.service
    systemctl daemon-reload
    result 'elsewhere'
    ls /srv/metrics
    rm /srv/metrics/x.prom
    printf '[Timer]\nOnBootSec=\nOnUnitActiveSec=\nOnActiveSec=1s\nAccuracySec=1s\n' |
        drop_in balena-extension-metrics.timer
    systemctl daemon-reload
    systemctl enable --now balena-extension-metrics.timer 2>/dev/null
    wait_for test -e /srv/metrics/x.prom
    echo 'the timer works'
    journalctl --sync
    journalctl --output=cat --boot --unit=balena-extension-metrics.service
"#;

#[test]
fn the_timer_writes_the_metrics_and_keeps_the_old_file_if_nothing_is_known() {
    let [boot] = boots("", [STEPS]);
    let mut lines = boot.steps.lines();
    for line in [
        "enabled: disabled",
        "no directory: exit-code",
        // The image has nothing but its hook. The size is in the answer of a real engine.
        " 29 B  hooks-ran",
        "engine up: success",
        "mode: 644",
        "balena_extension_readable{fact=\"engine\"} 1",
        "balena_extension_verdict{name=\"good\",verdict=\"applied\"} 1",
        "engine down: success",
        "balena_extension_readable{fact=\"engine\"} 0",
        "balena_extension_verdict{name=\"good\",verdict=\"applied\"} 1",
        "no store: exit-code",
        "written: 1000",
        "elsewhere: success",
        "x.prom",
        "the timer works",
        "cannot replace \"/var/lib/prometheus/node-exporter/balena-extensions.prom\": missing",
    ] {
        assert!(lines.any(|one| one.contains(line)), "no {line:?} at its place in {boot:#?}");
    }
    let (_, metrics) = boot.steps.split_once("--- metrics\n").unwrap();
    accepted(metrics.split("--- end").next().unwrap());
}
