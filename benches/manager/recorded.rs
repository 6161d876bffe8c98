//! The recorded engine: it answers with the documents of a real engine, repeated for any number of containers,
//! and counts the requests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::docker::{IMAGES, Role, VOLUMES, role};
use super::http::{Client, Kinds, kind};
use crate::Result;

/// A real engine's documents about one extension.
pub(crate) struct Recording {
    listed: Value,
    inspected: Value,
    images: Value,
    volumes: Value,
    usage: Value,
}

impl Recording {
    /// Asks a real engine.
    pub(crate) fn take(socket: &Path) -> Result<Self> {
        let mut client = Client::connect(socket)?;
        let mut ask = |path: &str| client.json("GET", path, &Value::Null);
        let filter = "filters=%7B%22label%22%3A%5B%22io.balena.image.class%3Doverlay%22%5D%7D";
        let listed = ask(&format!("/containers/json?all=1&{filter}"))?;
        // The document of a container with a volume is longer.
        let all = listed.as_array().ok_or("no list of containers")?;
        let listed = all.iter().find(|one| one["Mounts"][0].is_object());
        let listed = listed.ok_or("no container has a volume")?.clone();
        let id = listed["Id"].as_str().unwrap_or_default();
        let inspected = ask(&format!("/containers/{id}/json"))?;
        let images = ask(&format!("/images/json?{filter}"))?;
        let volumes = ask(&format!("/volumes?{filter}"))?;
        let usage = ask("/system/df")?;
        Ok(Self { listed, inspected, images, volumes, usage })
    }
}

/// The answers, prepared.
struct Answers {
    list: String,
    /// The pieces of the document around each occurrence of the id.
    inspected: Vec<String>,
    failed: Vec<String>,
    images: String,
    volumes: String,
    usage: String,
    kinds: Mutex<Kinds>,
}

/// Stands for the id in a document.
const MARK: &str = "@ID@";

/// An id of the usual length that begins with the number.
fn id(index: usize) -> String {
    format!("{index:08x}{}", "0123456789abcdef".repeat(4).split_at(8).1)
}

/// Listens at `at`, as an engine with `count` extensions, of which the first `failed` have failed.
pub(crate) fn serve(
    at: &Path,
    recording: &Recording,
    count: usize,
    failed: usize,
) -> Result<Counter> {
    let containers: Vec<Value> = (0..count)
        .map(|index| {
            let mut one = recording.listed.clone();
            one["Id"] = json!(id(index));
            one["Names"] = json!([format!("/container-{index}")]);
            let image = format!("sha256:{}", id(index % IMAGES));
            one["ImageID"] = json!(image);
            one["Mounts"][0]["Name"] = json!(format!("volume-{}", index % VOLUMES));
            let version = if role(index) == Role::Stale { "1.*" } else { "2.113.*" };
            one["Labels"]["io.balena.image.os-version"] = json!(version);
            if index < failed {
                one["Status"] = json!("Exited (128) 3 minutes ago");
            }
            one
        })
        .collect();
    let list = format!("{}\n", json!(containers));
    // An engine of version 20.10 reports everything, whatever the request asks for.
    let mut usage = recording.usage.clone();
    usage["Containers"] = json!(containers);
    let usage = usage.to_string();
    let parts = |state: &[(&str, Value)]| {
        let mut one = recording.inspected.clone();
        one["Id"] = json!(MARK);
        for (name, value) in state {
            one["State"][name] = value.clone();
        }
        let text = one.to_string().replace("/container-0", MARK);
        text.split(MARK).map(str::to_owned).collect()
    };
    let error = json!("OCI runtime create failed: hook hooks/create exited with status 3: unknown");
    let answers = Arc::new(Answers {
        list,
        inspected: parts(&[]),
        failed: parts(&[("Error", error), ("ExitCode", json!(128))]),
        images: recording.images.to_string(),
        volumes: recording.volumes.to_string(),
        usage,
        kinds: Mutex::default(),
    });
    let listener = UnixListener::bind(at)?;
    let counter = Counter(Arc::clone(&answers));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            // A caller that hangs up ends the conversation.
            std::thread::spawn(move || converse(&stream, &answers, failed).ok());
        }
    });
    Ok(counter)
}

/// Counts the requests.
pub(crate) struct Counter(Arc<Answers>);

impl Counter {
    /// The requests since the last call.
    pub(crate) fn take(&self) -> Kinds {
        self.0.kinds.lock().map(|mut kinds| std::mem::take(&mut *kinds)).unwrap_or_default()
    }
}

fn converse(stream: &UnixStream, answers: &Answers, failed: usize) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let request = line.clone();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        let kind = kind(&request);
        let index = |at| usize::from_str_radix(request.split('/').nth(at)?.get(..8)?, 16).ok();
        let inspected;
        let (status, body) = match kind.as_str() {
            "GET /_ping" => (200, "OK"),
            "GET /containers/json" => (200, answers.list.as_str()),
            "GET /containers/ID/json" => {
                let index = index(3).ok_or("an id without a number")?;
                let parts = if index < failed { &answers.failed } else { &answers.inspected };
                inspected = parts.join(&id(index));
                (200, inspected.as_str())
            }
            "GET /images/json" => (200, answers.images.as_str()),
            "GET /volumes" => (200, answers.volumes.as_str()),
            "GET /system/df" => (200, answers.usage.as_str()),
            _ if kind.starts_with("DELETE ") => (204, ""),
            _ => return Err(format!("the recorded engine cannot answer {request}").into()),
        };
        // Before the answer, because the caller may hang up right after it.
        *answers.kinds.lock().map_err(|_| "a thread panicked")?.entry(kind).or_default() += 1;
        let len = body.len();
        // Like dockerd: short answers have a length, long answers come in chunks.
        let head = format!("HTTP/1.1 {status} X\r\nApi-Version: 1.41\r\nServer: Docker/20.10\r\n");
        let mut out = stream;
        match len {
            0..2048 => write!(out, "{head}Content-Length: {len}\r\n\r\n{body}")?,
            _ => {
                write!(out, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
                for piece in body.as_bytes().chunks(2048) {
                    let frame = format!("{:x}\r\n", piece.len());
                    out.write_all(&[frame.as_bytes(), piece, b"\r\n"].concat())?;
                }
                out.write_all(b"0\r\n\r\n")?;
            }
        }
    }
}
