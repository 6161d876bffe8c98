//! Engines that fail, lie, hang or cannot be reached.

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::host::{Host, bare};
use super::recorded_engine::{Answer, Engine};
use super::recorded_store::{Container, Store, labels};
use crate::capture::run;
use crate::process;

#[track_caller]
fn fails(host: &Host, words: &[&str], texts: &[&str]) {
    let finished = host.manager(words);
    assert_eq!(finished.code(), 1, "{finished}");
    for text in texts {
        assert!(finished.err.contains(text), "{text:?} was expected of {finished}");
    }
}

#[test]
fn an_engine_without_a_socket_is_named_with_the_option_for_another() {
    let host = Host::new();
    let socket = format!("unix://{}", host.socket().display());
    fails(&host, &["cleanup"], &[&socket, "--host unix:///", "DOCKER_HOST"]);
    // A socket without a listener.
    drop(UnixListener::bind(host.socket()).unwrap());
    fails(&host, &["cleanup"], &[&socket, "--host unix:///"]);
    std::fs::remove_file(host.socket()).unwrap();
    host.write("engine.sock", "not a socket");
    fails(&host, &["cleanup"], &[&socket]);
}

/// The manager with the capabilities of its boot unit, while it waits for an engine that does not answer.
#[test]
fn root_of_a_container_that_shares_the_pid_namespace_gets_nowhere_through_the_manager() {
    let host = Host::new();
    let engine = host.engine_but(&Store::default(), |_, _| Some(Answer::Hang));
    let mut unit = std::process::Command::new("setpriv");
    let words = host.command(&["cleanup"]);
    unit.args(crate::intruder::AS_THE_UNIT).arg(words.get_program());
    let mut started = process::start(unit.args(words.get_args()));
    let manager = crate::proc_fs::Process(started.pid());
    process::wait_for("the question", || (!engine.requests().is_empty()).then_some(()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(manager.status(set), "0".repeat(16), "{set}");
    }
    assert_eq!(crate::intruder::ways_into(started.pid()), [""; 0]);
    process::signal(started.pid(), rustix::process::Signal::TERM);
    assert_eq!(started.wait(), 4);
}

#[test]
fn an_engine_that_is_starting_up_is_waited_for_on_request() {
    let host = Host::new();
    let mut started = process::start(&mut host.command(&["cleanup", "--wait", "20"]));
    std::thread::sleep(Duration::from_millis(600));
    assert!(started.runs());
    let _engine = host.engine(&Store::default());
    assert_eq!(started.wait(), 0);
    drop(_engine);
    let begun = Instant::now();
    fails(&host, &["cleanup", "--wait", "0.5"], &["cannot be reached"]);
    assert!(begun.elapsed() >= Duration::from_millis(500));
}

#[test]
fn an_engine_that_takes_connections_and_does_not_answer_yet_is_waited_for_as_well() {
    let host = Host::new();
    let pings = AtomicUsize::new(0);
    let _engine = host.engine_but(&Store::default(), move |_, path| {
        let early = path == "/_ping" && pings.fetch_add(1, Ordering::Relaxed) < 2;
        early.then_some(Answer::Hang)
    });
    host.manager(&["cleanup", "--wait", "20", "--request-timeout", "1"]).ok();
}

#[test]
fn the_timeout_of_all_requests_has_its_own_message_and_status() {
    let host = Host::new();
    let _engine = host.engine_but(&Store::default(), |_, path| {
        path.starts_with("/containers/json").then_some(Answer::Hang)
    });
    let finished = host.manager(&["cleanup", "--timeout", "0.5"]);
    assert_eq!(finished.code(), 4, "{finished}");
    assert!(finished.err.contains("list the containers: no answer"), "{finished}");
    assert!(finished.err.contains("--timeout") && !finished.err.contains("30 s"), "{finished}");
}

#[test]
fn an_image_may_take_longer_than_another_request() {
    let host = Host::new();
    let _engine = host.engine_but(&Store::default(), |_, path| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n";
        match path {
            "/images/late/get" => Some(Answer::Late(
                Duration::from_millis(1500),
                Box::new(Answer::Raw(format!("{head}{}", "x".repeat(600)).into())),
            )),
            "/images/hangs/get" => Some(Answer::Hang),
            _ => None,
        }
    });
    let check = |image, timeout| {
        host.manager(&["check", image, "--request-timeout", "1", "--timeout", timeout])
    };
    let finished = check("late", "20");
    assert!(finished.err.contains("not a tar archive"), "{finished}");
    let finished = check("hangs", "3");
    assert!(finished.err.contains("save image \"hangs\": no answer"), "{finished}");
}

#[test]
fn an_engine_that_hangs_costs_one_deadline_and_no_more() {
    let host = Host::new();
    let _engine = Engine::start(&host.socket(), |_, _| Answer::Hang);
    let begun = Instant::now();
    let words = ["cleanup", "--request-timeout", "0.5"];
    fails(&host, &words, &["no answer", "0.5 s"]);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn an_engine_whose_queue_is_full_is_not_waited_for_for_ever() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
    let host = Host::new();
    let address = SocketAddrUnix::new(host.socket()).unwrap();
    let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let filler = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    connect(&filler, &address).unwrap();
    fails(&host, &["cleanup", "--request-timeout", "0.5"], &["no answer"]);
}

#[test]
fn a_signal_ends_the_wait_for_an_engine() {
    let host = Host::new();
    let engine = Engine::start(&host.socket(), |_, _| Answer::Hang);
    let mut started = process::start(&mut host.command(&["cleanup"]));
    process::wait_for("the question", || (!engine.requests().is_empty()).then_some(()));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(started.pid()).unwrap(),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert_eq!(started.wait(), 4);
}

#[test]
fn invalid_answers_are_reported_with_the_request() {
    let list = |answer: &str, len: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{answer}").into_bytes()
    };
    let one = r#"[{"Id":"a","Labels":{"#;
    for (bytes, expected) in [
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "does not speak HTTP"),
        (Vec::new(), "the connection broke"),
        (list("[", 1), "does not follow its API"),
        (list("{}", 2), "does not follow its API"),
        (list(r#"[{"Id":1}]"#, 10), "does not follow its API"),
        (list("[{}]", 4), "does not follow its API"),
        (list("<html>", 6), "does not follow its API"),
        (list(one, 1000), "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[{".to_vec(), "broke"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
            "list the containers",
        ),
    ] {
        let host = Host::new();
        let _engine = host.engine_but(&Store::default(), move |_, path| {
            path.starts_with("/containers/json").then(|| Answer::Raw(bytes.clone()))
        });
        fails(&host, &["cleanup"], &["list the containers", expected]);
    }
}

#[test]
fn an_error_of_the_engine_is_reported_with_its_status_and_its_text() {
    let host = Host::new();
    let _engine = host.engine_but(&Store::default(), |_, path| {
        let error = Answer::Json(503, json!({ "message": "try later" }));
        path.starts_with("/containers/json").then_some(error)
    });
    fails(&host, &["cleanup"], &["list the containers", "503", "try later"]);
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let host = Host::new();
    let _engine = host.engine_but(&Store::default(), |_, path| {
        path.starts_with("/containers/json").then_some(Answer::Endless)
    });
    // With much less memory than the answer needs.
    let finished = run(std::process::Command::new("prlimit")
        .arg("--as=60000000")
        .arg("--")
        .arg(crate::programs::manager())
        .args(host.command(&["cleanup"]).get_args()));
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("more than 67108864 bytes"), "{finished}");
}

#[test]
fn the_api_version_is_negotiated() {
    for (theirs, ours) in [("1.41", "/v1.41/"), ("1.30", "/v1.30/"), ("1.52", "/v1.45/")] {
        let host = Host::new();
        let engine = host.engine_but(&Store::default(), move |_, path| {
            (path == "/_ping").then_some(Answer::Ping(theirs))
        });
        host.manager(&["cleanup"]).ok();
        let requests = engine.requests();
        assert_eq!(requests[0], "GET /_ping");
        assert!(requests[1].contains(ours), "{requests:?}");
    }
    for (theirs, expected) in [("1.20", "at least 1.24"), ("new", "not a version")] {
        let host = Host::new();
        let _engine = Engine::start(&host.socket(), move |_, _| Answer::Ping(theirs));
        fails(&host, &["cleanup"], &[expected, "unix://"]);
    }
    let host = Host::new();
    let _engine = Engine::start(&host.socket(), |_, _| Answer::Json(200, json!("OK")));
    fails(&host, &["cleanup"], &["is it an engine"]);
}

#[test]
fn odd_containers_do_not_hide_the_others() {
    let odd = |id: &str, labels| Container { labels, ..Container::new(id) };
    let store = Store::of(&[
        odd("null", json!(null)),
        odd("list", json!(["io.balena.image.class"])),
        odd("number", json!({ "io.balena.image.class": 7 })),
        odd("nested", json!({ "io.balena.image.class": "overlay", "io.balena.x": { "y": 1 } })),
        Container { state: "dead", ..Container::new("1") },
        Container { state: "hibernating", labels: labels(&[]), ..Container::new("new-state") },
    ]);
    let host = Host::new();
    let _engine = host.engine_but(&store, |_, path| {
        // An engine that ignores filters.
        path.starts_with("/containers/json?").then_some(None)?
    });
    let finished = host.manager(&["cleanup", "--verbose"]).ok();
    assert!(finished.out.contains("1 removed, 2 kept"), "{finished}");
}

#[test]
fn connections_are_kept_and_no_request_is_sent_in_vain() {
    let store =
        Store::of(&(0..20).map(|number| Container::new(&format!("c{number}"))).collect::<Vec<_>>());
    let host = Host::new();
    let engine = host.engine(&store);
    host.manager(&["status"]).ok();
    let once = ["GET /_ping", "GET /v1.41/containers/json?all=1", "GET /v1.41/images/json?all=1"];
    let requests = engine.requests();
    assert!(once.iter().all(|one| requests.iter().any(|it| it == one)), "{requests:?}");
    let sizes = "images, volumes, and all containers, which may use them";
    assert_eq!(requests.len(), 1 + 1 + 1 + 20 + 3, "ping, list, info, inspections; {sizes}");
    host.manager(&["list"]).ok();
    assert_eq!(engine.requests().len(), 26 + 2);
}

#[test]
fn a_path_that_the_engine_does_not_know_is_not_a_removed_container() {
    for answer in [json!({ "message": "page not found" }), json!({})] {
        let store = Store::of(&[Container { error: "no", ..Container::new("1") }]);
        let host = Host::new();
        let _engine = host.engine_but(&store, move |method, _| {
            (method == "DELETE").then(|| Answer::Json(404, answer.clone()))
        });
        let finished = host.manager(&["cleanup", "--format", "json"]);
        assert_eq!(finished.code(), 1, "{finished}");
        assert_eq!(finished.json()["objects"][0]["result"], "failed");
    }
}

#[test]
fn docker_host_is_a_unix_socket_or_an_error_and_never_another_engine() {
    let host = Host::new();
    // The engine that would be used without DOCKER_HOST.
    let store = Store::of(&[Container { state: "dead", ..Container::new("1") }]);
    std::fs::create_dir_all(host.path("var/run")).unwrap();
    let socket = host.path("var/run/docker.sock");
    let asked = store.clone();
    let engine = Engine::start(&socket, move |method, path| asked.answer(method, path));
    let with = |value: &str, words: &[&str]| {
        let mut command = bare(words);
        command.args(["--host-root", host.path("").to_str().unwrap()]);
        run(command.env("DOCKER_HOST", value))
    };
    for value in ["tcp://127.0.0.1:1", "ssh://x", "fd://", "unix://docker.sock", "docker.sock"] {
        for words in [
            &["cleanup"][..],
            &["status"],
            &["list"],
            &["inspect", "1"],
            &["logs", "1"],
            &["check", "registry/name:tag"],
        ] {
            let finished = with(value, words);
            let named = finished.err.contains(&format!("DOCKER_HOST={value:?}"));
            assert!(finished.code() == 1 && named, "{words:?}: {finished}");
        }
        let finished = with(value, &["doctor"]);
        assert!(finished.code() == 1 && finished.out.contains("problem  engine"), "{finished}");
        assert!(finished.out.contains("DOCKER_HOST"), "{finished}");
        assert_eq!(with(value, &["check", "--rules"]).code(), 0, "it does not talk to an engine");
    }
    let named = with("/nowhere/else.sock", &["cleanup"]);
    assert!(named.code() == 1 && named.err.contains("/nowhere/else.sock"), "{named}");
    assert_eq!((engine.requests(), store.ids().len()), (Vec::new(), 1));
    for value in ["", socket.to_str().unwrap(), &format!("unix://{}", socket.display())] {
        with(value, &["list"]).ok();
    }
    assert_eq!(engine.requests().len(), 3 * 2);
}
