//! The recorded engine: an HTTP server on a unix socket. The test provides every answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// The answer to a request.
pub(crate) enum Answer {
    Json(u16, Value),
    /// The version of its API, for `/_ping`.
    Ping(&'static str),
    /// The same, from Podman.
    PodmanPing(&'static str),
    /// These bytes, and then it closes the connection.
    Raw(Vec<u8>),
    /// An endless list, sent as fast as the client reads.
    Endless,
    /// No answer until the client disconnects.
    Hang,
    /// Another answer, after a delay.
    Late(Duration, Box<Answer>),
}

type Respond = dyn Fn(&str, &str, &str) -> Answer + Send + Sync;

struct Shared {
    respond: Box<Respond>,
    requests: Mutex<Vec<String>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    ending: AtomicBool,
}

/// A server that ends when it is dropped.
pub(crate) struct Engine {
    socket: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Engine {
    /// Listens at `socket`. `respond` gets the method and the path without the version.
    pub(crate) fn start(
        socket: &Path,
        respond: impl Fn(&str, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::with_bodies(socket, move |method, path, _| respond(method, path))
    }

    /// The same, where `respond` also gets the body of the request.
    pub(crate) fn with_bodies(
        socket: &Path,
        respond: impl Fn(&str, &str, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let shared = Arc::new(Shared {
            respond: Box::new(respond),
            requests: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
        });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.ending.load(Ordering::SeqCst) {
                        break;
                    }
                    let (shared, stream) = (Arc::clone(&shared), stream.unwrap());
                    // A client may disconnect at any time.
                    std::thread::spawn(move || drop(shared.converse(&stream)));
                }
            }
        });
        Self { socket: socket.to_owned(), shared, accepting: Some(accepting) }
    }

    /// `METHOD path` of every request so far, in the order of their arrival.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The requests that remove something, sorted.
    pub(crate) fn removals(&self) -> Vec<String> {
        let mut removals: Vec<String> =
            self.requests().into_iter().filter(|request| request.starts_with("DELETE")).collect();
        removals.sort();
        removals
    }

    /// The highest number of concurrent requests.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        // Wakes the accepting thread up.
        drop(UnixStream::connect(&self.socket));
        drop(self.accepting.take().map(JoinHandle::join));
        drop(std::fs::remove_file(&self.socket));
    }
}

impl Shared {
    fn converse(&self, stream: &UnixStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut len = 0;
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header)? == 0 || header == "\r\n" {
                    break;
                }
                if let Some(number) = header.to_lowercase().strip_prefix("content-length:") {
                    len = number.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; len];
            reader.read_exact(&mut body)?;
            let body = String::from_utf8(body).unwrap();
            let mut words = line.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            self.requests.lock().unwrap().push(format!("{method} {path}"));
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_in_flight.fetch_max(now, Ordering::SeqCst);
            let answer = (self.respond)(method, without_version(path), &body);
            let go_on = self.give(stream, answer);
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            if !go_on? {
                return Ok(());
            }
        }
    }

    /// Whether the connection remains open.
    fn give(&self, mut stream: &UnixStream, answer: Answer) -> std::io::Result<bool> {
        match answer {
            Answer::Json(status, value) => {
                let body = if status == 204 { String::new() } else { value.to_string() };
                let len = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {len}\r\n\r\n");
                stream.write_all(format!("{head}{body}").as_bytes())?;
                Ok(true)
            }
            Answer::Ping(version) => {
                let head = format!("HTTP/1.1 200 OK\r\nApi-Version: {version}\r\n");
                stream.write_all(format!("{head}Content-Length: 2\r\n\r\nOK").as_bytes())?;
                Ok(true)
            }
            Answer::PodmanPing(version) => {
                let head = format!("HTTP/1.1 200 OK\r\nApi-Version: {version}\r\n");
                let head =
                    format!("{head}Libpod-Api-Version: 4.3.1\r\nContent-Length: 2\r\n\r\nOK");
                stream.write_all(head.as_bytes())?;
                Ok(true)
            }
            Answer::Raw(bytes) => {
                stream.write_all(&bytes)?;
                Ok(false)
            }
            Answer::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[")?;
                let item = r#"{"Id":"x","Labels":{}},"#.repeat(1000);
                // Until the client closes the connection.
                loop {
                    stream.write_all(item.as_bytes())?;
                }
            }
            Answer::Hang => {
                stream.set_read_timeout(Some(Duration::from_millis(50)))?;
                while !self.ending.load(Ordering::SeqCst) {
                    if let Ok(0) = (&mut &*stream).read(&mut [0]) {
                        break;
                    }
                }
                Ok(false)
            }
            Answer::Late(time, answer) => {
                std::thread::sleep(time);
                self.give(stream, *answer)
            }
        }
    }
}

/// `/v1.41/x` is `/x`.
fn without_version(path: &str) -> &str {
    let rest = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    rest.unwrap_or(path)
}
