//! The import table: which layer may use what, and that no imports go in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;
use super::used_paths::{module, used};

/// What a layer may use. Everything of `std` unless it is pure; crates by name.
#[derive(Clone, Copy)]
struct Layer {
    /// A path of modules below the crate.
    name: &'static str,
    /// Other parts of this crate.
    own: &'static [&'static str],
    std: Std,
    /// Whether it may make system calls.
    system: bool,
    /// Crates, beside those for values.
    crates: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Std {
    All,
    /// What computes, and does not look at the world or change it.
    Pure,
}

/// The table of the house: a wing may use itself, and what its line names. `lib` holds no logic, so it has no
/// line. The program of a verb must not contain the engine's HTTP API, archives and the linter, so `runtime`
/// names the wings of `host` that it may use.
const LAYERS: &[Layer] = &[
    pure("model::text", &[]),
    pure("model::extension", &["model::text"]),
    pure("model::container", &["model::text", "model::extension"]),
    pure("model::kernel", &["model::text", "model::extension"]),
    pure("model::engine", &["model"]),
    pure("check::rules", &["model"]),
    Layer { crates: &["lexopt", "clap", "thiserror"], ..pure("cli", &["model", "check::rules"]) },
    pure("version", &["model"]),
    edge("host::os", &["model"], &["humantime", "dlmalloc"]),
    edge("host::container", &["model", "host::os"], &[]),
    edge("host::kernel", &["model", "host::os", "host::engine"], &["sha2"]),
    edge("host::engine", &["model", "host::os"], &["ureq", "sha2"]),
    edge("check::read", &["model", "host::os", "check::rules"], &["flate2", "ruzstd", "sha2"]),
    shell(
        "runtime",
        &["model", "host::os", "host::container", "host::engine::label_sources", "cli", "version"],
        &[],
    ),
    // Of clap only the answer of its parser. The digest of the applied set is a hash of text.
    shell("manager", &["model", "host", "check", "cli", "version"], &["clap", "sha2"]),
    // The programs, which only choose an allocator and call their main in the library.
    shell("bin", &[], &["balena_extension_runtime", "dlmalloc"]),
];

/// What a wing of values may use.
const VALUES: [&str; 3] = ["serde", "serde_json", "thiserror"];
/// What a wing that touches the machine may use besides.
const SYSTEM: [&str; 2] = ["rustix", "nix"];

const fn pure(name: &'static str, own: &'static [&'static str]) -> Layer {
    Layer { name, own, std: Std::Pure, system: false, crates: &[] }
}

const fn shell(
    name: &'static str,
    own: &'static [&'static str],
    crates: &'static [&'static str],
) -> Layer {
    Layer { name, own, std: Std::All, system: false, crates }
}

const fn edge(
    name: &'static str,
    own: &'static [&'static str],
    crates: &'static [&'static str],
) -> Layer {
    Layer { name, own, std: Std::All, system: true, crates }
}

/// Crates that may be named at all, so that a new one needs a place in the table.
const STD: [&str; 3] = ["std", "core", "alloc"];

/// What of `std` is not pure, and the exceptions below it.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::os",
    "std::thread",
    "std::io",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::sync",
];
const PURE: [&str; 5] = [
    "std::io::Error",
    "std::io::ErrorKind",
    "std::io::Result",
    "std::os::unix::ffi",
    // A shared value that cannot change is still a value.
    "std::sync::Arc",
];

/// Every use that the table does not allow.
pub(crate) fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let own = module(&source.path);
        if is_test(&source.path) || is_list_of_modules(source) {
            continue;
        }
        let Some(layer) = layer_of(&own) else {
            found.push(format!("{}: the table has no line for it", source.path));
            continue;
        };
        let bad = used(source).into_iter().filter(|path| !layer.allows(path));
        found.extend(bad.map(|path| format!("{}: {} may not use {path}", source.path, layer.name)));
    }
    found
}

impl Layer {
    fn allows(&self, path: &str) -> bool {
        let first = path.split("::").next().unwrap_or_default();
        match first {
            "crate" => {
                let mut allowed = self.own.iter().chain([&self.name]);
                allowed.any(|own| is_below(path, &format!("crate::{own}")))
                    || layer_of(path).is_none()
            }
            "std" if self.std == Std::Pure => is_pure(path),
            // The runtime's allocator has no lock (`host/os/allocator.rs`).
            "std" if is_below(path, "std::thread") && path != "std::thread::sleep" => {
                self.name == "manager"
            }
            _ if STD.contains(&first) => true,
            // A type, an enum's variant or a generic parameter.
            _ if !first.starts_with(|letter: char| letter.is_ascii_lowercase()) => true,
            // A module of the same file or folder, a primitive type, or a crate.
            _ => {
                self.crates.contains(&first)
                    || VALUES.contains(&first)
                    || self.system && SYSTEM.contains(&first)
                    || !is_crate(first)
            }
        }
    }
}

/// The line of the table for a path of modules.
fn layer_of(path: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| is_below(path, &format!("crate::{}", layer.name)))
}

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether a file only says which modules there are: those of the crate, of a floor, and of a wing.
fn is_list_of_modules(source: &Source) -> bool {
    source.path == "src/lib.rs"
        || source.path.ends_with("mod.rs") && layer_of(&module(&source.path)).is_none()
}

/// Files that their parents compile for tests alone.
fn is_test(path: &str) -> bool {
    path.ends_with("_tests.rs") || path == "src/cli/documents.rs"
}

fn is_crate(name: &str) -> bool {
    let manifest = include_str!("../../../Cargo.toml").replace('-', "_");
    name == "libc" || manifest.lines().any(|line| line.split(" =").next() == Some(name))
}

fn is_pure(path: &str) -> bool {
    // The module `std::io` may be imported for the sake of its errors.
    path == "std::io"
        || PURE.iter().any(|pure| is_below(path, pure))
        || !IMPURE.iter().any(|impure| is_below(path, impure))
}

/// Circles of imports: between layers, and between the files of one layer. A folder's `mod.rs` and
/// its files know each other, so it takes no part.
pub(crate) fn cycles(sources: &[Source]) -> Vec<String> {
    let files: BTreeSet<String> = sources.iter().map(|source| module(&source.path)).collect();
    let mut layers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let own = module(&source.path);
        for path in used(source).iter().filter(|path| path.starts_with("crate::")) {
            if let (Some(from), Some(to)) = (layer_of(&own), layer_of(path)) {
                if from.name != to.name {
                    layers.entry(from.name.to_owned()).or_default().insert(to.name.to_owned());
                }
            }
            let is_in = |file: &&String| path == *file || path.starts_with(&format!("{file}::"));
            let target = files.iter().filter(is_in).max_by_key(|file| file.len());
            let is_sibling = |target: &&String| {
                **target != own
                    && !source.path.ends_with("mod.rs")
                    && !own.starts_with(&format!("{target}::"))
            };
            if let Some(target) = target.filter(is_sibling) {
                modules.entry(own.clone()).or_default().insert(target.clone());
            }
        }
    }
    [layers, modules].iter().filter_map(cycle).collect()
}

/// A circle in a graph, told as the way around.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    fn walk(
        graph: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<String> {
        let last = way.last()?.clone();
        for next in graph.get(&last).into_iter().flatten() {
            if let Some(start) = way.iter().position(|step| step == next) {
                return Some(format!("{} -> {next}", way[start..].join(" -> ")));
            }
            if done.insert(next.clone()) {
                way.push(next.clone());
                if let Some(found) = walk(graph, way, done) {
                    return Some(found);
                }
                way.pop();
            }
        }
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| walk(graph, &mut vec![start.clone()], &mut done))
}

/// The violations of one planted file.
#[cfg(test)]
fn found(path: &str, text: &str) -> Vec<String> {
    violations(&[Source::planted(path, text)])
}

#[test]
fn the_model_may_not_look_at_the_world() {
    for text in [
        "use std::fs::File;",
        "use std::{fs, fmt};",
        "fn f() { std::env::var(\"X\"); }",
        "use std::io::{self, Read as _};",
        "use std::io;\nfn f() { io::stdin(); }",
        "use std::time::{Duration, Instant};",
        "use std::time::SystemTime as Clock;",
        "use std::os::fd::OwnedFd;",
        "use std::process;",
        "use rustix::fs::open;",
        "fn f() { nix::unistd::fork(); }",
        "use crate::host::os::clock;",
        "use super::super::super::cli::help;",
        "use lexopt::Parser;",
    ] {
        assert_eq!(found("src/model/container/x.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn the_model_may_compute() {
    let text = "use serde::{Deserialize, de};\nuse std::collections::BTreeMap;\nuse std::io;\nuse std::time::Duration;\nuse std::sync::Arc;\n\
                use crate::model::container::state::State;\nuse super::hook::Verb;\nuse std::path::{Path, PathBuf};\n\
                fn f(e: io::Error) { let _ = (e.kind() == io::ErrorKind::NotFound, u32::MAX, Self::A, str::len); }\n\
                #[cfg(test)]\nmod tests { use proptest::prelude::*; use std::fs; }";
    assert_eq!(found("src/model/container/x.rs", text), [""; 0]);
}

#[test]
fn the_command_line_uses_only_the_model() {
    assert_eq!(found("src/cli/x.rs", "use crate::host::os::log::Log;").len(), 1);
    assert_eq!(found("src/cli/x.rs", "use std::fs;").len(), 1);
    assert_eq!(
        found("src/cli/x.rs", "use crate::model::text::log::Level;\nuse lexopt::prelude::*;").len(),
        0
    );
}

#[test]
fn the_host_uses_only_the_model() {
    for own in ["cli::runtime", "runtime::create", "manager", "version"] {
        assert_eq!(
            found("src/host/container/x.rs", &format!("use crate::{own};")).len(),
            1,
            "{own}"
        );
    }
    assert_eq!(
        found(
            "src/host/container/x.rs",
            "use crate::model::extension::hook::Verb;\nuse rustix::fs::open;\nuse std::fs;"
        )
        .len(),
        0
    );
}

#[test]
fn the_runtime_and_the_manager_know_neither_each_other_nor_system_calls() {
    assert_eq!(found("src/runtime/x.rs", "use crate::manager::main;").len(), 1);
    assert_eq!(found("src/runtime/x.rs", "use crate::host::engine::client::Client;").len(), 1);
    assert_eq!(found("src/runtime/x.rs", "use crate::check::rules::report;").len(), 1);
    assert_eq!(found("src/manager/x.rs", "use crate::runtime::main;").len(), 1);
    assert_eq!(found("src/runtime/mod.rs", "fn f() { rustix::process::geteuid(); }").len(), 1);
    assert_eq!(found("src/runtime/x.rs", "fn f() { nix::libc::fork(); }").len(), 1);
    assert_eq!(
        found("src/runtime/x.rs", "use crate::host::os::log::Log;\nuse super::Context;").len(),
        0
    );
}

#[test]
fn only_the_manager_starts_threads() {
    for text in ["use std::thread;", "fn f() { std::thread::spawn(f); }", "use std::thread::scope;"]
    {
        assert_eq!(found("src/host/os/x.rs", text).len(), 1, "{text}");
        assert_eq!(found("src/runtime/x.rs", text).len(), 1, "{text}");
        assert_eq!(found("src/manager/x.rs", text).len(), 0, "{text}");
    }
    assert_eq!(found("src/host/os/x.rs", "fn f() { std::thread::sleep(TICK); }").len(), 0);
}

#[test]
fn a_layer_that_is_not_in_the_table_is_found() {
    assert_eq!(found("src/glue/x.rs", "").len(), 1);
}

#[test]
fn a_circle_between_files_is_found() {
    let sources = [
        Source::planted("src/host/os/a.rs", "use crate::host::os::b::B;"),
        Source::planted("src/host/os/b.rs", "fn f() { super::c::run(); }"),
        Source::planted("src/host/os/c.rs", "use crate::host::os::{a, d};"),
        Source::planted("src/host/os/d.rs", ""),
    ];
    assert_eq!(
        cycles(&sources),
        ["crate::host::os::a -> crate::host::os::b -> crate::host::os::c -> crate::host::os::a"]
    );
    assert_eq!(cycles(&sources[1..]), [""; 0]);
}

#[test]
fn a_circle_between_layers_is_found() {
    let sources = [
        Source::planted("src/host/os/a.rs", "use crate::runtime::x;"),
        Source::planted("src/runtime/y.rs", "use crate::host::os::b;"),
    ];
    assert_eq!(cycles(&sources), ["host::os -> runtime -> host::os"]);
}
