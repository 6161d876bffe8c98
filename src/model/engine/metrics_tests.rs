//! Tests of the metrics: the whole document, what is left out, and names that no format expects.

use super::*;

fn sample<'a>(id: &'a str, name: &'a str, reason: VerdictReason) -> ExtensionSample<'a> {
    ExtensionSample { id, name, image: "img", image_id: "sha256:i", reason }
}

fn snapshot<'a>(extensions: Vec<ExtensionSample<'a>>) -> MetricsSnapshot<'a> {
    MetricsSnapshot {
        applied_set: applied_set(&extensions, Completeness::Complete),
        extensions,
        completeness: Completeness::Complete,
        engine: EngineAnswer::Answered,
        trial_boots: Some(2),
        stale_images: Some(1_000),
        last_cleanup: Ok(Some(CleanupRecord { time: 1_790_000_000, failures: 1 })),
    }
}

/// The lines that are no comments.
fn series(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

fn value<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(start)?.strip_prefix(' '))
}

#[test]
fn each_verdict_of_each_name_has_a_series_and_one_of_them_is_1() {
    for reason in VerdictReason::ALL {
        let text = snapshot(vec![sample("1", "a", *reason)]).to_text();
        let verdicts: Vec<&str> = series(&text)
            .into_iter()
            .filter(|line| line.starts_with("balena_extension_verdict{name=\"a\",verdict="))
            .collect();
        assert_eq!(verdicts.len(), VERDICTS.len(), "{text}");
        let held: Vec<_> = verdicts.iter().filter(|line| line.ends_with(" 1")).collect();
        let verdict = format!("verdict=\"{}\"}}", reason.verdict());
        assert!(held.len() == 1 && held[0].contains(&verdict), "{text}");
    }
}

#[test]
fn what_is_unknown_has_no_series_and_is_said_to_be_unknown() {
    let known = snapshot(vec![sample("1", "a", VerdictReason::HooksRan)]);
    let unknown = MetricsSnapshot {
        applied_set: None,
        completeness: Completeness::LeftOut,
        engine: EngineAnswer::Down,
        trial_boots: None,
        stale_images: None,
        last_cleanup: Err("torn".to_owned()),
        ..known.clone()
    };
    let (known, unknown) = (known.to_text(), unknown.to_text());
    for name in [
        "balena_extension_applied_set_info",
        "balena_extension_kernel_trial_boots",
        "balena_extension_stale_images_bytes",
        "balena_extension_last_cleanup_timestamp_seconds",
        "balena_extension_last_cleanup_failures",
    ] {
        assert!(known.contains(&format!("# TYPE {name} gauge\n{name}")), "{name}: {known}");
        assert!(!unknown.contains(name), "{name}: {unknown}");
    }
    for fact in
        ["applied-set", "containers", "engine", "kernel-trial", "last-cleanup", "stale-images"]
    {
        let readable = format!("balena_extension_readable{{fact=\"{fact}\"}}");
        assert_eq!(value(&known, &readable), Some("1"), "{fact}");
        assert_eq!(value(&unknown, &readable), Some("0"), "{fact}");
    }
    // No cleanup since the boot is a fact.
    let none = MetricsSnapshot { last_cleanup: Ok(None), ..snapshot(Vec::new()) }.to_text();
    assert!(!none.contains("_last_cleanup_"), "{none}");
    assert_eq!(value(&none, "balena_extension_readable{fact=\"last-cleanup\"}"), Some("1"));
    assert_eq!(value(&none, "balena_extension_containers"), Some("0"));
}

#[test]
fn the_applied_set_does_not_depend_on_order_or_names_and_is_unknown_if_a_verdict_is() {
    use VerdictReason::{BadExit, Deploying, HooksRan, Layered};
    let of = |rows: &[(&'static str, VerdictReason)]| {
        let samples: Vec<_> = rows
            .iter()
            .enumerate()
            .map(|(index, (image_id, reason))| ExtensionSample {
                image_id,
                ..sample(["1", "2", "3"][index], ["a", "b", "c"][index], *reason)
            })
            .collect();
        applied_set(&samples, Completeness::Complete)
    };
    let set = |text: &str| Some(text.to_owned());
    assert_eq!(of(&[]), set(""));
    assert_eq!(of(&[("sha256:b", HooksRan), ("sha256:a", Layered)]), set("a\nb\n"));
    // Podman writes ids without a prefix.
    assert_eq!(of(&[("a", Layered), ("b", HooksRan), ("sha256:b", HooksRan)]), set("a\nb\n"));
    assert_eq!(of(&[("sha256:a", HooksRan), ("sha256:b", BadExit)]), set("a\n"));
    assert_eq!(of(&[("sha256:a", HooksRan), ("sha256:b", Deploying)]), None);
    assert_eq!(of(&[("sha256:a", HooksRan), ("", HooksRan)]), None);
    assert_eq!(of(&[("sha256:a", HooksRan), ("", BadExit)]), set("a\n"));
    assert_eq!(applied_set(&[], Completeness::LeftOut), None);
}

#[test]
fn two_containers_of_one_name_share_their_verdicts() {
    let text = snapshot(vec![
        sample("2", "a", VerdictReason::HooksRan),
        sample("1", "a", VerdictReason::BadExit),
        sample("0123456789abcdef", "", VerdictReason::HooksRan),
    ])
    .to_text();
    let verdict = |name, verdict| {
        let start = format!("balena_extension_verdict{{name=\"{name}\",verdict=\"{verdict}\"}}");
        value(&text, &start).map(str::to_owned)
    };
    assert_eq!(verdict("a", "applied").unwrap(), "1");
    assert_eq!(verdict("a", "failed").unwrap(), "1");
    assert_eq!(verdict("a", "stale").unwrap(), "0");
    assert_eq!(verdict("0123456789ab", "applied").unwrap(), "1");
    let mut all = series(&text);
    all.iter_mut().for_each(|line| *line = line.rsplit_once(' ').unwrap().0);
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "{text}");
}

#[test]
fn label_values_are_escaped_and_have_a_limit() {
    let long = "x".repeat(10_000);
    let name = "a\\b\"c\nd\0e\r{name=\"x\"} 7\u{85}ü";
    let text = snapshot(vec![ExtensionSample {
        image: &long,
        ..sample("1", name, VerdictReason::HooksRan)
    }])
    .to_text();
    let expected = "name=\"a\\\\b\\\"c\\nd\u{fffd}e\u{fffd}{name=\\\"x\\\"} 7\u{fffd}ü\"";
    let info = series(&text).into_iter().find(|line| line.contains("_info{id=")).unwrap();
    assert!(info.contains(expected), "{info}");
    assert!(info.len() < 2_000, "{}", info.len());
    for line in text.lines() {
        assert!(line.starts_with('#') || line.starts_with("balena_extension_"), "{line}");
    }
}

/// docs/metrics.md has a row for each metric, with its labels, and for each fact.
#[test]
fn the_document_describes_every_metric_and_every_label() {
    let document = include_str!("../../../docs/metrics.md");
    let text = snapshot(vec![sample("1", "a", VerdictReason::HooksRan)]).to_text();
    for line in series(&text) {
        let (metric, labels) = match line.split_once('{') {
            Some((metric, labels)) => (metric, labels),
            None => (line.split_once(' ').unwrap().0, ""),
        };
        let row = document.lines().find(|row| row.starts_with(&format!("| `{metric}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md has no row for {metric}"));
        for label in labels.split(',').filter_map(|label| label.split_once("=\"")) {
            assert!(row.contains(&format!("`{}`", label.0)), "{}: {row}", label.0);
        }
        if let Some(fact) = labels.strip_prefix("fact=\"") {
            let fact = fact.split('"').next().unwrap();
            assert!(document.contains(&format!("| `{fact}` |")), "no row for the fact {fact}");
        }
    }
}
