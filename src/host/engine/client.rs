//! The engine's HTTP API over its unix socket. ureq does the HTTP; this file adds the socket, limits in time and
//! size, and errors that name the request and contain the engine's message.

use crate::host::engine::error::Error;
use crate::host::engine::socket::Engine;
use crate::host::engine::transport::{NoNames, UnixConnector};
use crate::host::os::signals::Stop;
use crate::model::engine::api::{self, ApiVersion};
use crate::model::engine::inspection::Errors;
use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, BodyReader};

/// How many requests are sent at once. More gain nothing: the engine is the bottleneck.
pub(crate) const PARALLEL: usize = 4;
/// The largest answer about one object.
pub(crate) const ONE: u64 = 8 * 1024 * 1024;
/// The largest list. Ten thousand containers take some 15 MB.
pub(crate) const LIST: u64 = 64 * 1024 * 1024;
/// The largest error message.
const MESSAGE: u64 = 64 * 1024;
const BUFFER: usize = 16 * 1024;
/// Only Podman has this header in its answer to a ping.
const PODMAN: &str = "libpod-api-version";

/// A client of an engine that has answered. Threads share it; idle connections are kept.
pub(crate) struct Client {
    agent: Agent,
    engine: Engine,
    api: ApiVersion,
    errors: Errors,
    sent: AtomicUsize,
}

impl Client {
    /// Connects, and negotiates the version of the API.
    pub(crate) fn connect(engine: Engine, stop: &Arc<Stop>) -> Result<Self, Error> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent("balena-extension-manager")
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_idle_connections(PARALLEL)
            .max_idle_connections_per_host(PARALLEL)
            .build();
        let connector = UnixConnector { socket: engine.socket.clone(), stop: Arc::clone(stop) };
        let agent = Agent::with_parts(config, connector, NoNames);
        let sent = AtomicUsize::new(0);
        let (api, errors) = (ApiVersion::NEWEST, Errors::Kept);
        let mut client = Self { agent, engine, api, errors, sent };
        let answer = client.ping("get the engine's API version")?;
        let header = answer.headers().get("api-version").and_then(|value| value.to_str().ok());
        if answer.headers().contains_key(PODMAN) {
            client.errors = Errors::NotKept;
        }
        let socket = client.engine.socket.clone();
        client.api = api::negotiate(header).map_err(|source| Error::Api { socket, source })?;
        Ok(client)
    }

    /// Sends the request that every engine answers at once, whatever else it does.
    pub(crate) fn ping(&self, what: &str) -> Result<Response<Body>, Error> {
        self.exchange(Request::Get, "/_ping", what, self.engine.request_timeout)
    }

    /// The negotiated version.
    pub(crate) fn api(&self) -> ApiVersion {
        self.api
    }

    /// Whether the engine keeps the reason why a container failed.
    pub(crate) fn errors(&self) -> Errors {
        self.errors
    }

    /// The number of requests that were sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Requests information about one object. `path` follows the API's version; `what` names the request in
    /// errors.
    pub(crate) fn ask<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, Error> {
        let answer = self.get(path, what)?;
        // Read whole: it is small, and serde reads single bytes many times slower.
        self.decode(answer, ONE, what, |mut reader| {
            let mut bytes = Vec::with_capacity(BUFFER);
            reader.read_to_end(&mut bytes).map_err(serde_json::Error::io)?;
            serde_json::from_slice(&bytes)
        })
    }

    /// Requests one document that may be as long as a list, and parses it as it arrives.
    pub(crate) fn ask_long<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, Error> {
        let answer = self.get(path, what)?;
        self.decode(answer, LIST, what, |reader| serde_json::from_reader(reader))
    }

    /// Requests a list, and passes its items on one by one, so that a long list is never in memory.
    ///
    /// # Errors
    /// As `ask`; some items may have been passed on before.
    pub(crate) fn each(
        &self,
        path: &str,
        what: &str,
        item: impl FnMut(&RawValue),
    ) -> Result<(), Error> {
        let answer = self.get(path, what)?;
        self.decode(answer, LIST, what, |reader| each_item(reader, item))
    }

    /// Requests any number of bytes, such as an image. This may take until the deadline.
    ///
    /// # Errors
    /// No answer, or an error as an answer. Later failures are errors of the reader.
    pub(crate) fn download(&self, path: &str, what: &str) -> Result<impl Read + use<>, Error> {
        let answer = self.exchange(Request::Get, &self.versioned(path), what, Duration::MAX)?;
        Ok(Download {
            body: answer.into_body().into_with_config().limit(u64::MAX).reader(),
            what: what.to_owned(),
            engine: self.engine.clone(),
        })
    }

    /// Makes an object, or finds the one that has its name; the answer is about it.
    ///
    /// # Errors
    /// The object may exist.
    pub(crate) fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
        what: &str,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(object);
        let body = body.map_err(|source| Error::Unsendable { what: what.to_owned(), source })?;
        let path = self.versioned(path);
        let timeout = self.engine.request_timeout;
        let answer = self.exchange(Request::Post(&body), &path, what, timeout)?;
        self.decode(answer, ONE, what, |reader| serde_json::from_reader(reader))
    }

    /// Sends a removal.
    ///
    /// # Errors
    /// The object may still exist.
    pub(crate) fn remove(&self, path: &str, what: &str) -> Result<(), Error> {
        let path = self.versioned(path);
        let mut answer =
            self.exchange(Request::Delete, &path, what, self.engine.request_timeout)?;
        // Read to its end, so that the connection can be used again. The object is removed in any case.
        let mut body = answer.body_mut().with_config().limit(ONE).reader();
        let _ = io::copy(&mut body, &mut io::sink());
        Ok(())
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.api)
    }

    fn get(&self, path: &str, what: &str) -> Result<Response<Body>, Error> {
        self.exchange(Request::Get, &self.versioned(path), what, self.engine.request_timeout)
    }

    /// Sends a request and reads the head of its answer, within `limit` and the deadline. An error as an answer is an
    /// error.
    fn exchange(
        &self,
        request: Request<'_>,
        path: &str,
        what: &str,
        limit: Duration,
    ) -> Result<Response<Body>, Error> {
        let uri = Uri::builder().scheme("http").authority("engine").path_and_query(path).build();
        let uri = uri.map_err(|source| Error::Uri { what: what.to_owned(), source })?;
        let mut answer = match self.send(request, &uri, limit) {
            // The engine may close an idle connection at the moment it is used again. Every request can be
            // repeated: a second removal finds nothing, and a volume that was made is found.
            Err(error) if is_closed(&error) => self.send(request, &uri, limit),
            answer => answer,
        }
        .map_err(|source| self.failed(what, source))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let mut body = Vec::new();
        let reader = answer.body_mut().with_config().limit(MESSAGE).reader();
        // Without a readable message, the error has only its status.
        let _ = reader.take(MESSAGE).read_to_end(&mut body);
        let message = api::message(&body).unwrap_or_default();
        Err(Error::Refused { what: what.to_owned(), status: status.as_u16(), message })
    }

    fn send(
        &self,
        request: Request<'_>,
        uri: &Uri,
        limit: Duration,
    ) -> Result<Response<Body>, ureq::Error> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let left = self.engine.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ureq::Error::Timeout(ureq::Timeout::Global));
        }
        let limit = Some(left.min(limit));
        let agent = &self.agent;
        match request {
            Request::Get => agent.get(uri).config().timeout_global(limit).build().call(),
            Request::Delete => agent.delete(uri).config().timeout_global(limit).build().call(),
            Request::Post(body) => {
                let request = agent.post(uri).config().timeout_global(limit).build();
                request.content_type("application/json").send(body)
            }
        }
    }

    fn decode<T>(
        &self,
        mut answer: Response<Body>,
        limit: u64,
        what: &str,
        decode: impl FnOnce(BufReader<BodyReader<'_>>) -> serde_json::Result<T>,
    ) -> Result<T, Error> {
        let body = answer.body_mut().with_config().limit(limit).reader();
        // The concrete type, because only that has a fast path for single bytes in std. All readers read to
        // the end of the framing, so that the connection can be used again.
        let body = BufReader::with_capacity(BUFFER, body);
        decode(body).map_err(|error| {
            if !error.is_io() {
                return Error::Garbage { what: what.to_owned(), source: error };
            }
            let source = ureq::Error::from(io::Error::from(error));
            if matches!(source, ureq::Error::BodyExceedsLimit(_)) {
                return Error::TooLarge { what: what.to_owned(), limit };
            }
            self.failed(what, source)
        })
    }

    fn failed(&self, what: &str, source: ureq::Error) -> Error {
        Error::of_exchange(what, &self.engine, source)
    }
}

/// The method of a request, and its body.
#[derive(Clone, Copy)]
enum Request<'a> {
    Get,
    Delete,
    /// JSON.
    Post(&'a [u8]),
}

/// An answer that is read as it arrives. Its errors name the request.
struct Download<R> {
    body: R,
    what: String,
    engine: Engine,
}

impl<R: Read> Read for Download<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer).map_err(|error| {
            let source = ureq::Error::from(error);
            io::Error::other(Error::of_exchange(&self.what, &self.engine, source))
        })
    }
}

/// Whether the connection was closed before any answer.
fn is_closed(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error, ureq::Error::Io(error)
        if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof))
}

/// Passes on every item of a JSON list as its own text, so that an item that cannot be parsed does not hide the others.
/// `null` is an empty list, as Go writes it.
fn each_item(reader: impl Read, item: impl FnMut(&RawValue)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    json.deserialize_any(PassOn(item))?;
    json.end()
}

struct PassOn<F>(F);

impl<'de, F: FnMut(&RawValue)> Visitor<'de> for PassOn<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<Box<RawValue>>()? {
            (self.0)(&item);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> serde_json::Result<Vec<String>> {
        let mut items = Vec::new();
        each_item(text.as_bytes(), |item| items.push(item.get().to_owned()))?;
        Ok(items)
    }

    #[test]
    fn items_arrive_in_order_and_null_is_an_empty_list() {
        assert_eq!(read("[1, {\"a\":[]},null]\n").unwrap(), ["1", "{\"a\":[]}", "null"]);
        assert!(read("[]").unwrap().is_empty());
        assert!(read("null").unwrap().is_empty());
        for text in ["", "[1", "[1,x]", "{}", "[1] x", "1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
