//! `docs/kernel-override.md`: the messages that it quotes are those of the programs, none is missing, and its picture is
//! the one of the source beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The recorded messages of the code about overrides, each of which the page explains.
const EXPLAINED: [&str; 19] = [
    "host/container/manager_call.txt",
    "host/engine/claims.txt",
    "host/kernel/block.txt",
    "host/kernel/boot_file.txt",
    "host/kernel/operation_lock.txt",
    "host/kernel/override_store.txt",
    "host/kernel/simulated_device.txt",
    "host/kernel/slot.txt",
    "host/kernel/volume.txt",
    "manager/kernel/activate.txt",
    "manager/kernel/call.txt",
    "manager/kernel/fabricate.txt",
    "manager/kernel/health.txt",
    "manager/kernel/simulate.txt",
    "manager/kernel.txt",
    "model/container/refusal.txt",
    "model/kernel/block.txt",
    "model/kernel/transition.txt",
    "model/kernel/volume.txt",
];

/// Messages of the runtime, of which the page explains those about kernels.
const RUNTIME: &str = "runtime/error.txt";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a quotation, in which `…` is any text, is this message. It must have most of its words.
fn quotes(quotation: &str, message: &str) -> bool {
    let mut parts = quotation.split('…');
    let Some(mut rest) = parts.next().and_then(|first| message.strip_prefix(first)) else {
        return false;
    };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    2 * quotation.len() >= message.len()
}

/// The first cells of the tables below `## Errors`.
fn quotations(document: &str) -> Vec<&str> {
    let (_, errors) = document.split_once("\n## Errors\n").unwrap();
    let errors = errors.split("\n## ").next().unwrap();
    errors.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// The messages of a file of `tests/golden/errors`.
fn messages(text: &str) -> impl Iterator<Item = &str> {
    let all = text.lines().filter_map(|line| line.split_once(": ")).map(|(_, message)| message);
    all.filter(|message| *message != "the text of its source")
}

fn unknown<'a>(document: &'a str, golden: &str) -> Vec<&'a str> {
    let mut all = quotations(document);
    all.retain(|quotation| !messages(golden).any(|message| quotes(quotation, message)));
    all
}

fn missing<'a>(document: &str, golden: &'a str) -> Vec<&'a str> {
    let all = quotations(document);
    messages(golden).filter(|message| !all.iter().any(|one| quotes(one, message))).collect()
}

#[test]
fn the_page_explains_every_message_about_overrides_and_quotes_no_other() {
    let document = read(top().join("docs/kernel-override.md"));
    // An ABI is longer than the sentence around it.
    let golden =
        |file| read(top().join("tests/golden/errors").join(file)).replace(&"a".repeat(64), "…");
    let words = ["the kernel of the image", "the kernel of an image", "brings a kernel"];
    let of_kernels = |line: &&str| words.iter().any(|word| line.contains(word));
    let runtime = golden(RUNTIME);
    let runtime = runtime.lines().filter(of_kernels).map(|line| format!("{line}\n"));
    let golden = EXPLAINED.into_iter().map(golden).chain(runtime).collect::<String>();
    assert!(quotations(&document).len() > 40);
    let unknown = unknown(&document, &golden);
    assert!(unknown.is_empty(), "docs/kernel-override.md quotes what nothing says: {unknown:#?}");
    let missing = missing(&document, &golden);
    assert!(missing.is_empty(), "docs/kernel-override.md does not explain: {missing:#?}");
}

#[test]
fn a_message_that_is_planted_or_left_out_is_found() {
    let document = "\n## Errors\n\n| `cannot open \"…\": …` | why |\n| `cannot close \"…\"` | why |\n\n## Next\n| `x` |";
    let golden = "A::Open: cannot open \"/PATH\": …\nA::Write: cannot write \"/PATH\"\nA::Io: the text of its source\n";
    assert_eq!(unknown(document, golden), ["cannot close \"…\""]);
    assert_eq!(missing(document, golden), ["cannot write \"/PATH\""]);
    assert!(!quotes("the slot …", "the slot of this device, which runs, is not known"));
}

/// The states and edges of the source, and the lines of their labels.
fn of_source(source: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let lines = source.lines().filter_map(|line| line.trim().split_once(" [label=\""));
    let lines: Vec<(&str, &str)> = lines.collect();
    let names = lines.iter().map(|(name, _)| name.trim().replace(' ', "")).collect();
    let labels = lines.iter().flat_map(|(_, rest)| rest.split('"').next().unwrap().split("\\n"));
    (names, labels.map(str::to_owned).collect())
}

/// The same of the picture.
fn of_picture(picture: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let plain = |text: &str| text.replace("&#45;", "-").replace("&gt;", ">");
    let elements = |name: &str| -> BTreeSet<String> {
        let opened = format!("<{name}");
        let parts = picture.split(&opened).skip(1);
        let texts = parts.map(|part| part.split_once('>').unwrap().1.split('<').next().unwrap());
        texts.map(plain).collect()
    };
    let names = elements("title").into_iter().filter(|name| name != "kernel override").collect();
    (names, elements("text"))
}

#[test]
fn the_picture_is_made_from_its_source() {
    let source = of_source(&read(top().join("docs/kernel-override.dot")));
    assert!(source.0.contains("armed->trial") && source.0.len() > 12, "{source:#?}");
    let picture = of_picture(&read(top().join("docs/kernel-override.svg")));
    assert_eq!(source, picture, "run make diagram");
}

#[test]
fn the_page_lists_every_event_of_the_history() {
    let document = read(top().join("docs/kernel-override.md"));
    let (_, history) = document.split_once("\n## History\n").unwrap();
    let history = history.split("\n## ").next().unwrap();
    let listed: BTreeSet<&str> = history
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .flat_map(|line| line.split(" |").next().unwrap().split("`, `"))
        .map(|event| event.trim_end_matches('`'))
        .filter(|event| *event != "event")
        .collect();
    let source = read(top().join("src/model/kernel/history.rs"));
    let (_, source) = source.split_once("\nfn summary(").unwrap();
    let source = source.split("\n}\n").next().unwrap();
    let mut found: BTreeSet<&str> =
        source.split("(\"").skip(1).filter_map(|one| one.split('"').next()).collect();
    // These change no record, so they are not in it.
    assert!(found.remove("nothing") && found.remove("pending"));
    found.extend(["health-passed", "health-failed"]);
    assert_eq!(listed, found);
}

/// The first cells of the rows below a title, without the heads of tables.
fn rows<'a>(document: &'a str, title: &str) -> BTreeSet<&'a str> {
    let (_, section) = document.split_once(&format!("\n## {title}\n")).unwrap();
    let lines = section.split("\n## ").next().unwrap().lines();
    let next = lines.clone().skip(1).chain([""]);
    let rows = lines.zip(next).filter(|(_, next)| !next.starts_with("|---"));
    let cells = rows.filter_map(|(line, _)| line.strip_prefix("| ")?.split(" | ").next());
    cells.map(|cell| cell.trim_matches('`')).collect()
}

/// The texts in quotes that follow `before` in a source.
fn quoted_after<'a>(source: &'a str, before: &str) -> BTreeSet<&'a str> {
    let texts = source.split(before).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
    texts.map(|text| text.split('"').next().unwrap()).collect()
}

#[test]
fn the_page_about_the_proof_has_every_cut_command_and_every_planted_fault() {
    let document = read(top().join("docs/override-proof.md"));
    let source = |file| read(top().join(file));
    let commands = source("tests/stress/cut_commands.rs");
    let commands = quoted_after(commands.split("fn abi(").next().unwrap(), "(");
    assert_eq!((commands.len(), rows(&document, "Power cuts")), (16, commands));
    let files = source("tests/stress/cut_faults.rs");
    let files = quoted_after(&files, " name: ");
    assert_eq!((files.len(), rows(&document, "Faults planted into the files")), (12, files));
    let model = source("src/model/kernel/protocol_tests/faults_tests.rs");
    let model = quoted_after(&model, "fault(\n");
    let listed = rows(&document, "Faults planted into the model");
    assert_eq!((model.len(), listed), (23, model));
}
