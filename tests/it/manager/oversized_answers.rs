//! An engine that sends too much, or too slowly, and a standard error that is not read.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::json;

use super::host::Host;
use super::recorded_engine::{Answer, Engine};
use super::recorded_store::{Container, Contents, Store, labels};
use crate::finished::Finished;
use crate::full_pipe::Full;
use crate::process;

const MEBIBYTE: usize = 1024 * 1024;
/// The longest line of the log: an error with the rest of its line.
const LINE_MAX: usize = 9 * 1024;

#[track_caller]
fn is_short(finished: &Finished) {
    for line in finished.err.lines().chain(finished.out.lines()) {
        let begin: String = line.chars().take(200).collect();
        assert!(line.len() < LINE_MAX, "a line of {} bytes: {begin}", line.len());
    }
}

#[test]
fn a_mebibyte_that_an_engine_answers_is_reported_in_a_few_words() {
    let text = "v v ".repeat(MEBIBYTE / 4);
    let raw = |head: String| Answer::Raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").into());
    type Respond = Box<dyn Fn(&str) -> Option<Answer> + Send + Sync>;
    let list = |path: &str| path.contains("/containers/json");
    let (a, b, c, d, e) = (text.clone(), text.clone(), text.clone(), text.clone(), text);
    let answers: [(&str, Respond); 5] = [
        (
            "message",
            Box::new(move |path| list(path).then(|| Answer::Json(500, json!({ "message": a })))),
        ),
        ("header", Box::new(move |path| list(path).then(|| raw(format!("X: {b}"))))),
        (
            "version",
            Box::new(move |path| (path == "/_ping").then(|| raw(format!("Api-Version: {c}")))),
        ),
        (
            "item",
            Box::new(move |path| list(path).then(|| Answer::Json(200, json!([{ "Id": [&d] }])))),
        ),
        (
            "id",
            Box::new(move |path| {
                list(path).then(|| Answer::Json(200, json!([{ "Id": &e, "State": 1 }])))
            }),
        ),
    ];
    for (what, respond) in answers {
        let host = Host::new();
        let _engine = host.engine_but(&Store::default(), move |_, path| respond(path));
        for words in [&["cleanup"][..], &["status"], &["list"]] {
            let finished = host.manager(words);
            assert!(finished.code() == 1 || words != ["cleanup"], "{what}: {words:?}");
            is_short(&finished);
        }
    }
}

#[test]
fn long_texts_of_a_container_are_cut_in_tables_and_errors() {
    let text = "v v \u{1b}[2J".repeat(MEBIBYTE / 8);
    let claims = labels(&[("io.balena.image.kernel-version", text.as_str())]);
    let store = Store::of(&[
        Container { labels: claims, ..Container::new("stale") },
        Container { error: Box::leak(text.into_boxed_str()), ..Container::new("failed") },
    ]);
    let host = Host::new();
    let _engine = host.engine(&store);
    is_short(&host.manager(&["status"]));
    is_short(&host.manager(&["cleanup", "--stale-os", "--force", "--dry-run"]));
    is_short(&host.manager(&["cleanup"]));
}

/// Answers every request with these bytes, one at a time.
fn drip(host: &Host, bytes: &'static [u8]) {
    let listener = UnixListener::bind(host.socket()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _request = stream.read(&mut [0; 4096]);
                for byte in bytes.iter().chain(std::iter::repeat(&b' ')) {
                    std::thread::sleep(Duration::from_millis(20));
                    if stream.write_all(&[*byte]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn an_answer_that_drips_is_given_up_at_the_requests_limit() {
    for bytes in
        [&b""[..], b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n["]
    {
        let host = Host::new();
        drip(&host, bytes);
        let begun = Instant::now();
        let finished = host.manager(&["cleanup", "--request-timeout", "2"]);
        assert_eq!(finished.code(), 1, "{finished}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[test]
fn an_image_that_drips_is_given_up_when_the_time_is_up() {
    let host = Host::new();
    let dripping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n";
    drip(&host, dripping);
    let begun = Instant::now();
    let finished = host.manager(&["check", "image", "--timeout", "2"]);
    assert_ne!(finished.code(), 0, "{finished}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn sizes_that_no_disk_has_add_up_to_the_most_there_is() {
    let stale = labels(&[("io.balena.image.kernel-version", "5.10.0")]);
    let images = ["a", "b", "c"].map(|id| (id.to_owned(), stale.clone())).to_vec();
    let store = Store::new(Contents { images, ..Contents::default() });
    let host = Host::new();
    let _engine = host.engine_but(&store.clone(), move |method, path| {
        let Answer::Json(200, mut list) = store.answer(method, path) else { return None };
        for image in list.as_array_mut().filter(|_| path.contains("/images/json"))? {
            image["Size"] = i64::MAX.into();
        }
        Some(Answer::Json(200, list))
    });
    let finished = host.manager(&["cleanup", "--stale-os", "--force"]).ok();
    assert!(finished.out.contains("3 removed") && finished.out.contains("TB freed"), "{finished}");
}

#[test]
fn errors_that_are_not_read_are_dropped_after_30_seconds() {
    let store =
        Store::of(&["a", "b", "c"].map(|id| Container { error: "no", ..Container::new(id) }));
    let host = Host::new();
    let _engine: Engine = host.engine_but(&store, |method, _| {
        (method == "DELETE").then(|| Answer::Json(500, json!({ "message": "no" })))
    });
    let full = Full::new();
    let mut command = host.command(&["cleanup"]);
    command.stdout(std::process::Stdio::null()).stderr(full.end());
    let mut started = process::start(&mut command);
    let limit = Duration::from_secs(50);
    process::wait_for_within(limit, "the end", || (!started.runs()).then_some(()));
    assert_eq!(started.wait(), 1);
}
