//! A real dockerd, filled through its API. The state of an ended container is written into the engine's store
//! while the engine is down: running thousands of containers would take an hour and change no figure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::http::{Client, each};
use crate::Result;

pub(crate) const IMAGES: usize = 200;
pub(crate) const VOLUMES: usize = 200;
/// The number of connections that fill the engine.
const FILLERS: usize = 4;

/// A daemon in the network and mount namespace of this process.
pub(crate) struct Docker {
    dir: PathBuf,
    daemon: Child,
}

/// The purpose of a container, image or volume.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Current,
    Stale,
    Foreign,
}

/// Of ten, eight are for the running system, one is for another system, and one is not an extension.
pub(crate) fn role(index: usize) -> Role {
    match index % 10 {
        8 => Role::Stale,
        9 => Role::Foreign,
        _ => Role::Current,
    }
}

fn labels(role: Role) -> Value {
    let os_version = if role == Role::Stale { "1.*" } else { "2.113.*" };
    match role {
        Role::Foreign => json!({ "maintainer": "somebody" }),
        Role::Current | Role::Stale => json!({
            "io.balena.image.class": "overlay",
            "io.balena.image.kernel-version": "6.1.0",
            "io.balena.image.os-version": os_version,
            "io.balena.image.store": "data",
            "io.balena.service-name": "extension",
        }),
    }
}

impl Docker {
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("daemon.json"), "{}")?;
        let mut docker = Self { dir: dir.to_owned(), daemon: spawn(dir)? };
        docker.await_ready()?;
        Ok(docker)
    }

    fn await_ready(&mut self) -> Result<()> {
        for _ in 0..1200 {
            if let Some(status) = self.daemon.try_wait()? {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(format!("dockerd ended with {status}:\n{log}").into());
            }
            let answers = |mut client: Client| client.call("GET", "/_ping", b"").is_ok();
            if Client::connect(&self.socket()).is_ok_and(answers) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("dockerd did not come up within two minutes".into())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// Processor time of the daemon and its containerd.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let daemon = self.daemon.id();
        let mut all = Duration::ZERO;
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let Ok(text) = fs::read_to_string(path.join("stat")) else { continue };
            let pid = text.split(' ').next().and_then(|word| word.parse().ok());
            let Some((_, fields)) = text.rsplit_once(") ") else { continue };
            let fields: Vec<u64> = fields.split(' ').map(|it| it.parse().unwrap_or(0)).collect();
            // proc_pid_stat(5), behind the name: state ppid … utime stime, in hundredths.
            let (parent, ticks) = (fields[1], fields[11] + fields[12]);
            if pid == Some(daemon) || parent == u64::from(daemon) {
                all += Duration::from_millis(ticks * 10);
            }
        }
        Ok(all)
    }

    /// Makes the images and volumes.
    pub(crate) fn fill(&self) -> Result<()> {
        let socket = self.socket();
        each(&socket, FILLERS, IMAGES, |client, index| {
            let mut changes = String::new();
            for (name, text) in labels(role(index)).as_object().into_iter().flatten() {
                changes.push_str(&format!(
                    "&changes=LABEL%20{name}%3D{}",
                    text.as_str().unwrap_or("")
                ));
            }
            let path = format!(
                "/images/create?fromSrc=-&repo=image-{index}&tag=1&changes=CMD%20%5B%22none%22%5D{changes}"
            );
            client.call("POST", &path, &archive(index)).map(drop)
        })?;
        each(&socket, FILLERS, VOLUMES, |client, index| {
            let name = format!("volume-{index}");
            let body = json!({ "Name": name, "Labels": labels(role(index)) });
            client.json("POST", "/volumes/create", &body).map(drop)
        })
    }

    /// Makes containers, one of each image in turn; the first of each image has its volume.
    pub(crate) fn create(&self, prefix: &str, roles: &[Role], count: usize) -> Result<()> {
        let images: Vec<usize> =
            (0..IMAGES).filter(|index| roles.contains(&role(*index))).collect();
        each(&self.socket(), FILLERS, count, |client, index| {
            let image = images[index % images.len()];
            let binds = if index < images.len() && prefix == "container" {
                json!([format!("volume-{image}:/data")])
            } else {
                Value::Null
            };
            let body = json!({
                "Image": format!("image-{image}:1"),
                "HostConfig": { "NetworkMode": "none", "Binds": binds },
            });
            let path = format!("/containers/create?name={prefix}-{index}");
            client.json("POST", &path, &body).map(drop)
        })
    }

    /// Stops the daemon, calls `change` on each container's recorded state, and starts the daemon again.
    pub(crate) fn rewrite(&mut self, change: impl Fn(usize, &mut Value)) -> Result<()> {
        self.stop()?;
        for entry in fs::read_dir(self.dir.join("data/containers"))? {
            let path = entry?.path().join("config.v2.json");
            let mut record: Value = serde_json::from_slice(&fs::read(&path)?)?;
            let index =
                record["Name"].as_str().and_then(|name| name.rsplit_once('-')?.1.parse().ok());
            let state = &mut record["State"];
            state["StartedAt"] = json!("2026-01-02T03:04:05.678Z");
            state["FinishedAt"] = json!("2026-01-02T03:04:05.789Z");
            change(index.ok_or("a container without a number")?, state);
            fs::write(&path, record.to_string())?;
        }
        self.daemon = spawn(&self.dir)?;
        self.await_ready()
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.daemon.try_wait()?.is_none() {
            kill(Pid::from_raw(i32::try_from(self.daemon.id())?), Signal::SIGTERM)?;
            self.daemon.wait()?;
        }
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Its mounts end with the namespaces of this process.
        drop(self.stop());
    }
}

fn spawn(dir: &Path) -> Result<Child> {
    let log = fs::File::options().create(true).append(true).open(dir.join("log"))?;
    let in_dir = |name: &str| dir.join(name).display().to_string();
    Ok(Command::new("dockerd")
        .args(["--config-file", &in_dir("daemon.json"), "--pidfile", &in_dir("pid")])
        .args(["--data-root", &in_dir("data"), "--exec-root", &in_dir("exec")])
        .args(["--host", &format!("unix://{}", in_dir("socket"))])
        .args(["--iptables=false", "--ip6tables=false", "--userland-proxy=false"])
        .args(["--storage-driver=overlay2", "--bridge=none"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?)
}

/// A layer with one file, which differs for every image.
fn archive(index: usize) -> Vec<u8> {
    let text = format!("image {index}");
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(u64::try_from(text.len()).unwrap_or_default());
    let mut builder = tar::Builder::new(Vec::new());
    let added = builder.append_data(&mut header, "content", text.as_bytes());
    added.and_then(|()| builder.into_inner()).expect("an archive in memory")
}
