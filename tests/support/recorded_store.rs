//! The contents of a recorded engine: containers, images and volumes, with a real engine's rules about what may
//! be removed.

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use super::recorded_engine::Answer;

pub(crate) const CLASS: &str = "io.balena.image.class";
pub(crate) const KERNEL: &str = "io.balena.image.kernel-version";
pub(crate) const OS: &str = "io.balena.image.os-version";
pub(crate) const ABI: &str = "io.balena.image.kernel-abi-id";
pub(crate) const SERVICE: &str = "io.balena.service-name";

/// The labels of an extension, and others.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> Value {
    let mut labels = json!({ CLASS: "overlay" });
    for (name, text) in pairs {
        labels[*name] = (*text).into();
    }
    labels
}

/// A container in one state.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// `None`: derived from the id.
    pub(crate) name: Option<&'static str>,
    pub(crate) state: &'static str,
    pub(crate) error: &'static str,
    pub(crate) image: String,
    pub(crate) labels: Value,
    /// Name and path on the host.
    pub(crate) volumes: Vec<(String, String)>,
    pub(crate) exit_code: i64,
    /// The name of the runtime that ran it.
    pub(crate) runtime: &'static str,
}

impl Container {
    /// A deployed extension.
    pub(crate) fn new(id: &str) -> Self {
        let (id, image) = (id.to_owned(), "sha256:image".to_owned());
        let labels = labels(&[]);
        Self {
            id,
            name: None,
            state: "exited",
            error: "",
            image,
            labels,
            volumes: Vec::new(),
            exit_code: 0,
            runtime: "extension",
        }
    }

    fn mounts(&self) -> Value {
        let mounts = self.volumes.iter().map(|(name, path)| {
            json!({ "Type": "volume", "Name": name, "Source": path, "Destination": "/data" })
        });
        mounts.collect()
    }

    fn listed(&self) -> Value {
        let name = self.name.map_or_else(|| format!("name-of-{}", self.id), str::to_owned);
        json!({
            "Id": self.id, "Names": [format!("/{name}")], "Image": "image",
            "ImageID": self.image, "State": self.state, "Labels": self.labels,
            "Mounts": self.mounts(),
        })
    }

    fn inspected(&self) -> Value {
        json!({
            "Id": self.id, "Mounts": self.mounts(),
            "State": {
                "Status": self.state, "Error": self.error, "ExitCode": self.exit_code,
                "StartedAt": "2026-01-01T00:00:00Z"
            },
            "HostConfig": { "Runtime": self.runtime },
            "GraphDriver": { "Data": { "UpperDir": format!("/d/overlay2/own-{}/diff", self.id) } },
        })
    }
}

#[derive(Clone, Default)]
pub(crate) struct Contents {
    pub(crate) containers: Vec<Container>,
    /// Id and labels; each has one tag and takes 1,000 bytes.
    pub(crate) images: Vec<(String, Value)>,
    /// Name and labels; each takes 10 bytes.
    pub(crate) volumes: Vec<(String, Value)>,
}

/// The contents, shared by the test and its engine.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<Contents>>);

impl Store {
    pub(crate) fn new(contents: Contents) -> Self {
        Self(Arc::new(Mutex::new(contents)))
    }

    pub(crate) fn of(containers: &[Container]) -> Self {
        Self::new(Contents { containers: containers.to_vec(), ..Contents::default() })
    }

    pub(crate) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.contents().containers.iter().map(|container| container.id.clone()).collect()
    }

    /// Answers as an engine would.
    pub(crate) fn answer(&self, method: &str, path: &str) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut contents = self.contents();
        match (method, parts.as_slice()) {
            ("GET", ["_ping"]) => Answer::Ping("1.41"),
            ("GET", ["info"]) => Answer::Json(
                200,
                json!({
                    "Runtimes": {
                        "extension": { "path": "/usr/bin/balena-extension-runtime" },
                        "runc": { "path": "runc" },
                        "shim": { "path": "" },
                    },
                    "DockerRootDir": "/mnt/engine",
                }),
            ),
            ("GET", ["containers", "json"]) => {
                let all = contents.containers.iter();
                let wanted = all.filter(|container| {
                    !query.contains("filters=") || container.labels[CLASS] == "overlay"
                });
                Answer::Json(200, wanted.map(Container::listed).collect())
            }
            ("GET", ["containers", id, "json"]) => {
                match contents.containers.iter().find(|container| container.id == *id) {
                    Some(container) => Answer::Json(200, container.inspected()),
                    None => missing(),
                }
            }
            ("DELETE", ["containers", id]) => {
                let before = contents.containers.len();
                contents.containers.retain(|container| container.id != *id);
                removed(contents.containers.len() < before)
            }
            ("GET", ["images", "json"]) => {
                let images = contents.images.iter().map(|(id, labels)| {
                    json!({
                        "Id": id, "RepoTags": [format!("{id}:latest")], "RepoDigests": null,
                        "Labels": labels, "Size": 1000
                    })
                });
                Answer::Json(200, images.collect())
            }
            ("DELETE", ["images", id]) => {
                if contents.containers.iter().any(|container| container.image == *id) {
                    return Answer::Json(409, json!({ "message": "image is being used" }));
                }
                let before = contents.images.len();
                contents.images.retain(|(image, _)| image != id);
                removed(contents.images.len() < before)
            }
            ("GET", ["volumes"]) | ("GET", ["system", "df"]) => {
                let in_use = |name: &String| {
                    let mut used = contents.containers.iter().flat_map(|one| &one.volumes);
                    used.any(|(volume, _)| volume == name)
                };
                let volumes = contents.volumes.iter().filter(|(name, labels)| {
                    let is_extension = !query.contains("label") || labels[CLASS] == "overlay";
                    is_extension && !(query.contains("dangling") && in_use(name))
                });
                let volumes = volumes.map(|(name, labels)| {
                    json!({ "Name": name, "Labels": labels, "UsageData": { "Size": 10 } })
                });
                Answer::Json(200, json!({ "Volumes": volumes.collect::<Value>() }))
            }
            ("DELETE", ["volumes", name]) => {
                let mut users = contents.containers.iter().flat_map(|one| &one.volumes);
                if users.any(|(volume, _)| volume == name) {
                    return Answer::Json(409, json!({ "message": "volume is in use" }));
                }
                let before = contents.volumes.len();
                contents.volumes.retain(|(volume, _)| volume != name);
                removed(contents.volumes.len() < before)
            }
            _ => Answer::Json(404, json!({ "message": "page not found" })),
        }
    }
}

fn removed(found: bool) -> Answer {
    if found { Answer::Json(204, Value::Null) } else { missing() }
}

fn missing() -> Answer {
    Answer::Json(404, json!({ "message": "no such object" }))
}
