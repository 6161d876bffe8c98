//! The engine of the guest: it makes volumes, as dockerd does, and nothing else. The containers are on its disk.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::recorded_engine::{Answer, Engine};

/// The argument with which this program is the engine.
pub(crate) const STAGE: &str = "in-guest-engine";
const VOLUMES: &str = "/mnt/data/docker/volumes";

/// Serves until it is killed.
pub(crate) fn serve() -> ! {
    let _engine = Engine::with_bodies(Path::new("/run/docker.sock"), |method, path, body| {
        match (method, path) {
            ("GET", "/_ping") => Answer::Ping("1.41"),
            ("POST", "/volumes/create") => {
                let request: Value = serde_json::from_str(body).unwrap();
                let data = format!("{VOLUMES}/{}/_data", request["Name"].as_str().unwrap());
                std::fs::create_dir_all(&data).unwrap();
                Answer::Json(201, json!({ "Mountpoint": data }))
            }
            _ => Answer::Json(404, json!({ "message": "page not found" })),
        }
    });
    loop {
        std::thread::park();
    }
}
