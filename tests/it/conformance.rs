//! `docs/oci-conformance.md`: every clause in it names a test that exists, or a deviation that is
//! explained; and the clauses that no other test shows.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::container::Container;

/// Where a test may be.
const PLACES: [&str; 3] = ["it", "unit", "engines"];

/// What is wrong with the document. `sources` gives the text in which the test must be, `None` if
/// there is no such place.
fn violations(document: &str, sources: impl Fn(&[&str]) -> Option<String>) -> Vec<String> {
    let mut violations = Vec::new();
    let explained: BTreeSet<&str> =
        document.lines().filter_map(|line| deviation(line.strip_prefix("| **D")?)).collect();
    let mut rows = 0;
    for (number, line) in (1..).zip(document.lines()) {
        let Some(row) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            continue;
        };
        let cells: Vec<&str> = row.split(" | ").collect();
        let [clause, here, tests] = cells[..] else {
            violations.push(format!("line {number} has {} cells, not 3", cells.len()));
            continue;
        };
        if clause == "Clause" || clause == "Deviation" || clause.starts_with("**D") {
            continue;
        }
        rows += 1;
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let deviations: Vec<&str> = here.split("**D").skip(1).filter_map(deviation).collect();
        if named.is_empty() && deviations.is_empty() {
            violations.push(format!("line {number} names neither a test nor a deviation"));
        }
        for name in named {
            if !exists(name, &sources) {
                violations.push(format!("line {number}: there is no test {name}"));
            }
        }
        for deviation in deviations.into_iter().filter(|number| !explained.contains(number)) {
            violations.push(format!("line {number}: D{deviation} is not explained"));
        }
    }
    if rows == 0 {
        violations.push("there is no row".to_owned());
    }
    violations
}

/// The number behind `**D`.
fn deviation(rest: &str) -> Option<&str> {
    rest.split_once("**").map(|(number, _)| number)
}

fn exists(name: &str, sources: impl Fn(&[&str]) -> Option<String>) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let ([place, ..], Some(test)) = (parts.as_slice(), parts.last()) else { return false };
    if !PLACES.contains(place) {
        return false;
    }
    let Some(text) = sources(&parts[..parts.len() - 1]) else { return false };
    match *place {
        // An engine's tests are rows of tables: `("NAME", function)`, or `"engine::NAME"`.
        "engines" => {
            let [.., engine, test] = parts[..] else { return false };
            text.contains(&format!("\"{test}\"")) || text.contains(&format!("\"{engine}::{test}\""))
        }
        _ => {
            let test = format!("fn {test}(");
            text.split("#[test]").skip(1).any(|item| {
                item.lines()
                    .find(|line| line.contains("fn "))
                    .is_some_and(|line| line.contains(&test))
            })
        }
    }
}

/// The sources of this repository in which the tests of a place are.
fn of_this_repository(place: &[&str]) -> Option<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: String| std::fs::read_to_string(top.join(path)).ok();
    match place {
        ["it", module @ ..] => {
            let module = module.join("/");
            read(format!("tests/it/runtime/{module}.rs"))
                .or_else(|| read(format!("tests/it/{module}.rs")))
        }
        ["unit", module @ ..] => read(format!("src/{}.rs", module.join("/"))),
        ["engines", _] => {
            let entries = std::fs::read_dir(top.join("tests/engines")).ok()?;
            let files =
                entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
            Some(files.collect())
        }
        _ => None,
    }
}

#[test]
fn every_clause_names_a_test_that_exists_or_a_deviation_that_is_explained() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/oci-conformance.md");
    let violations = violations(&std::fs::read_to_string(path).unwrap(), of_this_repository);
    assert!(violations.is_empty(), "docs/oci-conformance.md:\n{}", violations.join("\n"));
}

#[test]
fn a_planted_gap_in_the_document_is_found() {
    let sources = |place: &[&str]| match place {
        ["it", "start"] => Some("#[test]\nfn there() {}\nfn helper() {}".to_owned()),
        ["engines", "docker"] => Some("(\"deploys\", deploys)".to_owned()),
        _ => None,
    };
    let found = |row: &str| {
        let document = format!("| Clause | Here | Test |\n| {row} |\n| **D1** | what | why |\n");
        violations(&document, sources)
    };
    for fine in [
        "a | so | `it::start::there`",
        "a | so | `engines::docker::deploys` `it::start::there`",
        "a | **D1** | ",
    ] {
        assert_eq!(found(fine), [""; 0], "{fine}");
    }
    for (gap, why) in [
        ("a | so | ", "neither a test nor a deviation"),
        ("a | so | `it::start::gone`", "no test it::start::gone"),
        ("a | so | `it::start::helper`", "no test it::start::helper"),
        ("a | so | `it::nowhere::there`", "no test it::nowhere::there"),
        ("a | so | `engines::docker::fails`", "no test engines::docker::fails"),
        ("a | so | `there`", "no test there"),
        ("a | **D2** | `it::start::there`", "D2 is not explained"),
        ("a | so", "has 2 cells"),
    ] {
        let found = found(gap).join("\n");
        assert!(found.contains(why), "{gap}: {found}");
    }
    assert!(!violations("# Nothing\n", sources).is_empty());
}

#[test]
fn process_args_are_never_run() {
    let container = Container::new();
    let trace = container.beside("ran");
    container.configure(|config| {
        config["process"]["args"] = json!(["/usr/bin/touch", trace]);
    });
    container.create().ok();
    container.start().ok();
    container.delete().ok();
    assert!(!trace.exists());
}

#[test]
fn a_console_size_without_a_terminal_is_ignored() {
    for size in
        [json!({ "height": 7, "width": 9 }), json!({ "height": 7 }), json!("80x24"), json!([])]
    {
        let container = Container::new();
        container.configure(|config| {
            config["process"]["terminal"] = false.into();
            config["process"]["consoleSize"] = size;
        });
        container.create().ok();
    }
}

fn features(container: &Container) -> Value {
    container.call(&["features"]).ok().json()
}

#[test]
fn both_versions_that_features_names_are_accepted() {
    let mut versions = Vec::new();
    for name in ["ociVersionMin", "ociVersionMax"] {
        let container = Container::new();
        let version = features(&container)[name].as_str().unwrap().to_owned();
        container.configure(|config| config["ociVersion"] = version.clone().into());
        container.create().ok();
        let numbers: Vec<u64> = version.split('.').map(|part| part.parse().unwrap()).collect();
        versions.push(numbers);
    }
    assert!(versions[0] <= versions[1], "{versions:?}");
}

#[test]
fn features_has_no_property_that_the_specification_does_not_define() {
    let features = features(&Container::new());
    let known = |value: &Value, names: &[&str]| {
        for name in value.as_object().unwrap().keys() {
            assert!(names.contains(&name.as_str()), "{name} is not of runtime-spec 1.3");
        }
    };
    known(
        &features,
        &[
            "ociVersionMin",
            "ociVersionMax",
            "hooks",
            "mountOptions",
            "linux",
            "annotations",
            "potentiallyUnsafeConfigAnnotations",
        ],
    );
    let linux = &features["linux"];
    known(
        linux,
        &[
            "namespaces",
            "capabilities",
            "cgroup",
            "seccomp",
            "apparmor",
            "selinux",
            "intelRdt",
            "memoryPolicy",
            "mountExtensions",
            "netDevices",
        ],
    );
    known(&linux["cgroup"], &["v1", "v2", "systemd", "systemdUser", "rdma"]);
    known(&linux["memoryPolicy"], &["modes", "flags"]);
    for (name, more) in [
        ("seccomp", &[][..]),
        ("apparmor", &[]),
        ("selinux", &[]),
        ("intelRdt", &["schemata", "monitoring"]),
        ("netDevices", &[]),
    ] {
        known(&linux[name], &[&["enabled"], more].concat());
        assert!(linux[name]["enabled"].is_boolean(), "{name}");
    }
    known(&linux["mountExtensions"], &["idmap"]);
    assert!(features["annotations"].as_object().unwrap().values().all(Value::is_string));
}
