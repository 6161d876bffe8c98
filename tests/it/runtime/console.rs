//! `process.terminal`: a pty whose master goes over the console socket, and whose slave the proxy has.

use std::fs::File;
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;

use crate::container::Container;
use crate::proc_fs::Process;
use crate::process;

/// A container with a terminal, and the socket an engine listens on.
fn with_terminal() -> (Container, UnixListener) {
    let container = Container::new();
    container.configure(|config| config["process"]["terminal"] = true.into());
    let socket = UnixListener::bind(container.beside("console")).unwrap();
    (container, socket)
}

fn create(container: &Container) -> crate::finished::Finished {
    let socket = container.beside("console");
    let mut command = container.command(&["create", "--console-socket", socket.to_str().unwrap()]);
    command.args(["-b", container.text(), "--pid-file"]).arg(container.pid_file());
    container.create_by(command.arg(&container.id))
}

/// Does what an engine does with the socket: accepts, and receives one message with one descriptor.
fn receive(socket: &UnixListener) -> File {
    // The engine only accepts after create has returned, so the connection must be waiting.
    socket.set_nonblocking(true).unwrap();
    let (stream, _) = socket.accept().unwrap();
    stream.set_nonblocking(false).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let (mut control, mut data) = (RecvAncillaryBuffer::new(&mut space), [0; 4096]);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message =
        rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut data)], &mut control, flags)
            .unwrap();
    assert!((1..4096).contains(&message.bytes), "without data the descriptor would not arrive");
    let messages: Vec<RecvAncillaryMessage<'_>> = control.drain().collect();
    assert_eq!(messages.len(), 1);
    let mut descriptors: Vec<OwnedFd> = messages
        .into_iter()
        .flat_map(|message| {
            let RecvAncillaryMessage::ScmRights(descriptors) = message else {
                panic!("only descriptors were expected")
            };
            descriptors.collect::<Vec<OwnedFd>>()
        })
        .collect();
    assert_eq!(descriptors.len(), 1);
    let mut rest = Vec::new();
    (&stream).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "one message, then the end");
    File::from(descriptors.pop().unwrap())
}

/// The output of the terminal until its last process has ended.
fn output(mut master: File) -> String {
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    // The end of a pty is an error, EIO.
    while let Ok(len @ 1..) = master.read(&mut bytes) {
        text.push_str(std::str::from_utf8(&bytes[..len]).unwrap());
    }
    text
}

#[test]
fn the_master_arrives_and_the_proxy_has_the_slave_on_its_streams() {
    let (container, socket) = with_terminal();
    create(&container).ok();
    let master = receive(&socket);
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let proxy = Process(container.pid());
    for number in 0..3 {
        assert_eq!(proxy.descriptor(number).to_str().unwrap(), name.to_str().unwrap());
    }
    process::wait_for("the last descriptor", || (proxy.descriptors() == [0, 1, 2]).then_some(()));
    container.start().ok();
}

#[test]
fn the_output_of_hooks_appears_on_the_terminal() {
    let (container, socket) = with_terminal();
    container.hook("create", "echo create out; echo create err >&2");
    container.hook("start", "echo start out");
    create(&container).ok();
    let master = receive(&socket);
    container.start().ok();
    let output = output(master);
    for text in ["create out\r\n", "create err\r\n", "start out\r\n"] {
        assert!(output.contains(text), "{output:?}");
    }
    assert_eq!((container.printed(), container.complained()), (String::new(), String::new()));
}

#[test]
fn the_size_is_that_of_the_spec() {
    let (container, socket) = with_terminal();
    container.configure(|config| {
        config["process"]["consoleSize"] = json!({ "height": 24, "width": 132 })
    });
    create(&container).ok();
    let size = rustix::termios::tcgetwinsize(receive(&socket)).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (24, 132));
}

#[test]
fn the_terminal_is_open_until_the_proxy_ends() {
    let (container, socket) = with_terminal();
    create(&container).ok();
    let master = receive(&socket);
    rustix::io::ioctl_fionbio(&master, true).unwrap();
    let read = (&master).read(&mut [0; 1]).unwrap_err();
    assert_eq!(read.kind(), std::io::ErrorKind::WouldBlock, "nothing to read is not the end");
    container.kill("KILL").ok();
    process::exit_status(container.pid());
    assert_eq!((&master).read(&mut [0; 1]).unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn a_megabyte_on_an_unread_terminal_does_not_hang() {
    let (container, socket) = with_terminal();
    container.hook("create", "head -c 1048576 /dev/zero | tr '\\0' x; touch printed");
    create(&container).ok();
    assert!(container.has("printed"));
    drop(receive(&socket));
    container.start().ok();
}

#[test]
fn a_create_hook_that_fails_leaves_nothing_behind_the_terminal() {
    let (container, socket) = with_terminal();
    container.hook("create", "echo on the terminal; exit 3");
    create(&container).fails(&["hooks/create exited with status 3: on the terminal"]);
    drop(socket);
    container.left_nothing();
}

#[test]
fn a_terminal_without_a_socket_is_an_error() {
    let (container, _socket) = with_terminal();
    container.create().fails(&["process.terminal", "--console-socket"]);
    container.left_nothing();
}

#[test]
fn a_socket_without_a_terminal_is_an_error() {
    let (container, _socket) = with_terminal();
    container.configure(|config| config["process"]["terminal"] = false.into());
    create(&container).fails(&["process.terminal", "--console-socket"]);
    container.left_nothing();
}

#[test]
fn a_socket_without_a_listener_is_an_error_that_names_it() {
    let (container, socket) = with_terminal();
    drop(socket);
    let path = container.beside("console");
    create(&container).fails(&["console socket", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    create(&container).fails(&["console socket", path.to_str().unwrap()]);
    container.left_nothing();
}
