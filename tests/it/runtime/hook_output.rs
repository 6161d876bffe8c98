//! The output of hooks: it is written to the container's own log, at create and at start, and hangs nothing,
//! however much it is and whatever process holds it open.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::container::Container;
use crate::process;

/// More than any pipe holds.
const MEBIBYTE: &str = "head -c 1048576 /dev/zero | tr '\\0' x; echo end";

#[test]
fn each_stream_of_create_and_start_is_written_to_the_containers_own() {
    let container = Container::new();
    for verb in ["create", "start"] {
        container.hook(verb, &format!("echo {verb} out; echo {verb} err >&2"));
    }
    container.create().ok();
    assert_eq!(container.printed(), "create out\n");
    let start = container.start().ok();
    assert_eq!((start.out.as_str(), start.err.as_str()), ("", ""), "that is an engine's terminal");
    assert_eq!(container.printed(), "create out\nstart out\n");
    assert_eq!(container.complained(), "create err\nstart err\n");
}

#[test]
fn the_output_of_failing_hooks_is_in_the_log_too() {
    let container = Container::new();
    container.hook("start", "echo one; echo two >&2; exit 1");
    container.create().ok();
    container.start().fails(&["hooks/start exited with status 1", "two"]);
    assert_eq!((container.printed(), container.complained()), ("one\n".into(), "two\n".into()));
}

#[test]
fn an_error_quotes_the_last_lines_and_keeps_to_one_line() {
    let container = Container::new();
    container.hook("create", "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; exit 2");
    let error = container.create().error();
    assert!(error.contains("hooks/create exited with status 2"), "{error}");
    assert!(error.contains("line 8") && error.contains("line 9"), "{error}");
    assert!(!error.contains("line 1") && !error.contains('\n'), "{error}");
}

#[test]
fn an_error_has_no_control_characters_of_the_hook() {
    let container = Container::new();
    container.hook("create", r#"printf 'red \033[31malert\a\r\n\377\n'; exit 2"#);
    let error = container.create().error();
    assert!(error.contains("alert") && !error.chars().any(char::is_control), "{error:?}");
}

#[test]
fn the_signal_that_ended_a_hook_is_named() {
    let container = Container::new();
    container.hook("create", "kill -SEGV $$");
    container.create().fails(&["hooks/create", "signal 11"]);
}

/// An engine reads its pipes only after `create` has returned.
#[test]
fn a_create_hook_that_prints_a_mebibyte_on_both_streams_does_not_hang() {
    let container = Container::new();
    container.hook("create", &format!("echo begin; {MEBIBYTE}; ({MEBIBYTE}) >&2"));
    let mut command = container.create_command();
    let mut create = process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert_eq!(create.wait(), 0);
    // The proxy holds the other end of the pipes.
    container.delete_by_force().ok();
    for (pipe, begin) in [read(create.pipes().stdout.take()), read(create.pipes().stderr.take())]
        .iter()
        .zip(["begin\nx", "x"])
    {
        assert!(
            pipe.starts_with(begin) && pipe.ends_with("xend\n"),
            "begin and end are what is kept"
        );
    }
}

fn read(pipe: Option<impl std::io::Read>) -> String {
    let mut text = String::new();
    pipe.unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_start_hook_that_prints_an_unread_mebibyte_does_not_hang() {
    let container = Container::new();
    container.hook("start", MEBIBYTE);
    let mut command = container.create_command();
    let mut create = process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert_eq!(create.wait(), 0);
    container.start().ok();
    assert!(read(create.pipes().stdout.take()).starts_with("xxx"));
}

#[test]
fn a_start_hook_that_prints_a_mebibyte_to_a_reader_loses_nothing() {
    let container = Container::new();
    container.hook("start", MEBIBYTE);
    let mut command = container.create_command();
    let mut create = process::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    assert_eq!(create.wait(), 0);
    let pipe = create.pipes().stdout.take();
    let reader = std::thread::spawn(move || read(pipe));
    container.start().ok();
    let text = reader.join().unwrap();
    assert_eq!((text.len(), text.ends_with("xend\n")), (1_048_576 + 4, true));
}

#[test]
fn output_to_a_file_is_complete() {
    let container = Container::new();
    container.hook("create", MEBIBYTE);
    container.hook("start", MEBIBYTE);
    container.create().ok();
    assert_eq!(container.printed().len(), 1_048_576 + 4);
    container.start().ok();
    assert_eq!(container.printed().len(), 2 * (1_048_576 + 4));
}

#[test]
fn a_closed_container_log_is_not_an_error() {
    let container = Container::new();
    container.hook("create", MEBIBYTE);
    container.hook("start", "echo started; touch started");
    let mut command = container.create_command();
    let mut create = process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    drop((create.pipes().stdout.take(), create.pipes().stderr.take()));
    assert_eq!(create.wait(), 0);
    container.start().ok();
    assert!(container.has("started"));
}

/// Engines wait for the end of the output of `start`, not only for the process.
#[test]
fn a_background_child_of_a_hook_delays_nothing() {
    for verb in ["create", "start", "delete"] {
        let container = Container::new();
        container.hook(verb, "sleep 100 & echo $! > child");
        let began = Instant::now();
        container.create().ok();
        for verb in ["start", "delete"] {
            let mut command = container.command(&[verb, &container.id]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut call = process::start(&mut command);
            let (out, err) = (read(call.pipes().stdout.take()), read(call.pipes().stderr.take()));
            assert_eq!((call.wait(), out.as_str(), err.as_str()), (0, "", ""));
        }
        assert!(began.elapsed() < process::allowed(Duration::from_secs(8)), "{verb}");
        let child: i32 = container.read("child").parse().unwrap();
        assert!(
            process::is_alive(child),
            "{verb}: what a successful hook starts is its own affair"
        );
        process::end(child);
    }
}

#[test]
fn a_background_child_does_not_keep_the_containers_log_open() {
    let container = Container::new();
    container.hook("create", "sleep 100 & echo $! > child");
    let mut command = container.create_command();
    let mut create = process::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    assert_eq!(create.wait(), 0);
    container.start().ok();
    // An engine waits seconds for a process that holds these pipes. This read must reach their end.
    let began = Instant::now();
    assert_eq!(read(create.pipes().stdout.take()), "");
    assert!(began.elapsed() < process::allowed(Duration::from_secs(8)));
    process::end(container.read("child").parse().unwrap());
}

#[test]
fn nothing_is_left_of_a_hook_that_fails() {
    let container = Container::new();
    container.hook("create", "sleep 100 & setsid sleep 100 & (sleep 100 &) ; exit 1");
    container.create().fails(&["hooks/create exited with status 1"]);
    container.left_nothing();
}

#[test]
fn a_hook_that_closes_its_output_is_still_waited_for() {
    let container = Container::new();
    container.hook("create", "exec >&- 2>&-; sleep 0.3; touch done");
    container.create().ok();
    assert!(container.has("done"));
}

#[test]
fn a_hook_that_closes_its_output_and_fails_fails() {
    let container = Container::new();
    container.hook("create", "exec >&- 2>&-; sleep 0.1; exit 9");
    container.create().fails(&["hooks/create exited with status 9"]);
    container.left_nothing();
}

/// Creates the container. Its standard output is a pipe without another writer.
fn created_with_a_pipe(container: &Container) -> std::fs::File {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut create = container.create_command();
    create.stdin(Stdio::null()).stdout(write).stderr(container.beside_file("stderr"));
    assert_eq!(process::start(&mut create).wait(), 0);
    read.into()
}

/// A start whose container's log gets a reader late, after the backlog has overflowed.
#[test]
fn output_continues_after_a_gap_and_no_process_spins() {
    let container = Container::new();
    container.hook("start", "head -c 4000000 /dev/zero; touch printed; while [ ! -e go ]; do sleep 0.05; done; echo after; while [ ! -e end ]; do sleep 0.05; done");
    let read = created_with_a_pipe(&container);
    let mut start = process::start(&mut container.command(&["start", &container.id]));
    process::wait_for("the hook to have printed", || container.has("printed").then_some(()));
    let reader = std::thread::spawn(move || {
        use std::io::Read as _;
        let (mut read, mut seen) = (read, Vec::new());
        let mut bytes = [0; 65_536];
        while !seen.ends_with(b"after\n") {
            let len = read.read(&mut bytes).unwrap();
            assert!(len > 0, "the end came before the hook went on");
            seen.extend(&bytes[..len]);
        }
        (read, seen)
    });
    // The contents of the pipe and the backlog have been read.
    std::thread::sleep(Duration::from_millis(500));
    let ticks = || {
        let process = crate::proc_fs::Process(start.pid());
        process.stat(14) + process.stat(15)
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before < 20, "it spins: {before} to {}", ticks());
    std::fs::write(container.path("go"), "").unwrap();
    process::wait_for("the output", || reader.is_finished().then_some(()));
    let (_read, seen) = reader.join().unwrap();
    std::fs::write(container.path("end"), "").unwrap();
    assert_eq!(start.wait(), 0);
    let notes = String::from_utf8_lossy(&seen).matches("bytes of output left out]").count();
    assert_eq!(notes, 1);
}

#[test]
fn a_slow_reader_does_not_hold_up_a_start() {
    let container = Container::new();
    container.hook("start", "head -c 1000000 /dev/zero; echo the end");
    let read = created_with_a_pipe(&container);
    // 40 kB per second.
    let reader = std::thread::spawn(move || {
        use std::io::Read as _;
        let (mut read, mut seen, mut bytes) = (read, Vec::new(), [0; 4096]);
        loop {
            match read.read(&mut bytes).unwrap() {
                0 => return seen,
                len => seen.extend(&bytes[..len]),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let began = Instant::now();
    container.start().ok();
    assert!(began.elapsed() < process::allowed(Duration::from_secs(5)), "{:?}", began.elapsed());
    let seen = String::from_utf8(reader.join().unwrap()).unwrap();
    assert!(seen.ends_with("the end\n") && seen.contains("bytes of output left out]"));
}
