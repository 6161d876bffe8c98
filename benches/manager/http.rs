//! HTTP over a unix socket, as much as the benchmark needs: a client that fills the engine and removes containers
//! for comparison, and a relay that counts the manager's requests.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::Result;

/// A connection, used for many requests.
pub(crate) struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        Ok(Self { reader: BufReader::new(UnixStream::connect(socket)?) })
    }

    /// Sends a request. A status other than 2xx is an error.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let kind = if body.starts_with(b"{") { "application/json" } else { "application/x-tar" };
        let len = body.len();
        let head = format!(
            "{method} /v1.41{path} HTTP/1.1\r\nHost: engine\r\nContent-Type: {kind}\r\n\
             Content-Length: {len}\r\n\r\n"
        );
        self.reader.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let status = self.line()?;
        let (mut len, mut chunked) = (0, false);
        loop {
            let header = self.line()?.to_ascii_lowercase();
            match header.split_once(": ") {
                Some(("content-length", text)) => len = text.parse()?,
                Some(("transfer-encoding", text)) => chunked = text == "chunked",
                Some(_) => {}
                None => break,
            }
        }
        let answer = if chunked { self.chunks()? } else { self.bytes(len)? };
        let code = status.split(' ').nth(1).unwrap_or_default();
        if !code.starts_with('2') {
            let text = String::from_utf8_lossy(&answer).into_owned();
            return Err(format!("{method} {path}: {status}: {text}").into());
        }
        Ok(answer)
    }

    pub(crate) fn json(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        Ok(serde_json::from_slice(&self.call(method, path, &body)?)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err("the engine hung up".into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let len = usize::from_str_radix(&self.line()?, 16)?;
            all.extend(self.bytes(len)?);
            self.line()?;
            if len == 0 {
                return Ok(all);
            }
        }
    }
}

/// Does `work` to `0..count` over `connections` connections at once.
pub(crate) fn each(
    socket: &Path,
    connections: usize,
    count: usize,
    work: impl Fn(&mut Client, usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let one = || {
        let run = || -> Result<()> {
            let mut client = Client::connect(socket)?;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(());
                }
                work(&mut client, index)?;
            }
        };
        run().map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

/// How many requests there were of each kind.
pub(crate) type Kinds = BTreeMap<String, usize>;

/// The kind of a request, such as `GET /containers/ID/json`: without the parts that differ within a kind.
pub(crate) fn kind(request: &str) -> String {
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, _query) = path.split_once('?').unwrap_or((path, ""));
    let mut parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && !part.starts_with("v1.")).collect();
    if let Some(second) = parts.get_mut(1).filter(|second| !["json", "df"].contains(*second)) {
        *second = "ID";
    }
    format!("{method} /{}", parts.join("/"))
}

/// Listens at `at`, forwards everything to `to`, and counts the requests, which have no bodies.
pub(crate) fn relay(at: &Path, to: PathBuf) -> Result<Arc<Mutex<Kinds>>> {
    let listener = UnixListener::bind(at)?;
    let kinds = Arc::new(Mutex::new(Kinds::new()));
    let counted = Arc::clone(&kinds);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (counted, to) = (Arc::clone(&counted), to.clone());
            // A caller or an engine that hangs up ends the conversation.
            std::thread::spawn(move || forward(&stream, &to, &counted).ok());
        }
    });
    Ok(kinds)
}

fn forward(caller: &UnixStream, to: &Path, kinds: &Mutex<Kinds>) -> Result<()> {
    let engine = UnixStream::connect(to)?;
    let (mut answers, mut back) = (engine.try_clone()?, caller.try_clone()?);
    std::thread::spawn(move || {
        let copied = std::io::copy(&mut answers, &mut back);
        drop(back.shutdown(std::net::Shutdown::Both));
        copied
    });
    let mut requests = BufReader::new(caller);
    let mut begins = true;
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line)? == 0 {
            engine.shutdown(std::net::Shutdown::Both)?;
            return Ok(());
        }
        if begins {
            let mut kinds = kinds.lock().map_err(|_| "a thread panicked")?;
            *kinds.entry(kind(&line)).or_default() += 1;
        }
        begins = line == "\r\n";
        (&engine).write_all(line.as_bytes())?;
    }
}
