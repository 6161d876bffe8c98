//! A containerd as Kubernetes uses it: through its CRI socket, with the runtime as the handler that a
//! `RuntimeClass` would name.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::command::{LIMIT, run};
use crate::ctr::Containerd;
use crate::finished::Finished;
use crate::image::Image;
use crate::process::{poll_within, wait_for_within};
use crate::sandbox::{RUNTIME, SCRATCH};

const CLIENT: &str = include_str!("cri.py");
const PAUSE: &str = "localhost/pause:1";
/// The kubelet's number for the network namespace of the host.
const NODE: u64 = 2;

pub(crate) struct Cri {
    containerd: Containerd,
    /// The image of sandbox containers. It is empty: only the proxy runs.
    pause: Image,
}

/// A pod, and the request that made it. The request is repeated for each container.
pub(crate) struct Pod {
    pub(crate) id: String,
    config: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// The network of the host.
    Node,
    /// A network of the pod, from a CNI plugin.
    Pod,
}

impl Cri {
    pub(crate) fn start() -> Self {
        let containerd = Containerd::start_with(|dir| {
            write_cni(dir);
            configuration(dir)
        });
        let cri = Self { containerd, pause: Image::unlabelled() };
        cri.import(&cri.pause, PAUSE);
        cri
    }

    /// Restarts containerd, and returns once its CRI answers.
    pub(crate) fn restart(&self, signal: Signal) {
        self.containerd.restart(signal);
        wait_for_within(LIMIT, "the CRI", || {
            self.call("RuntimeService/Version", &json!({}), "1").succeeded().then_some(())
        });
    }

    /// Imports an image into the store that the kubelet's pulls use.
    pub(crate) fn import(&self, image: &Image, reference: &str) {
        let archive = image.archive(reference).display().to_string();
        self.containerd.ctr(&["--namespace=k8s.io", "images", "import", &archive]).ok();
        // The CRI learns about it from an event.
        let request = json!({ "1": { "1": reference } });
        let ask = || self.call("ImageService/ImageStatus", &request, "1.1");
        let known = poll_within(LIMIT, || ask().out.contains("sha256:").then_some(()));
        assert!(known.is_some(), "{}\n{}", ask(), self.containerd.log());
    }

    pub(crate) fn run_pod(&self, name: &str, network: Network) -> Pod {
        let mut linux = json!({});
        if network == Network::Node {
            linux = json!({ "2": { "1": { "1": NODE } } });
        }
        let metadata = json!({ "1": name, "2": format!("uid-{name}"), "3": "default" });
        let config = json!({ "1": metadata, "3": self.logs(), "8": linux });
        let request = json!({ "1": config, "2": "extension" });
        let id = self.ask("RuntimeService/RunPodSandbox", &request, "1");
        Pod { id, config }
    }

    /// Creates a container with the image's labels as annotations, and returns its id.
    pub(crate) fn create(&self, pod: &Pod, image: &Image, reference: &str) -> String {
        let labels = image.labels.iter().map(|(key, value)| json!({ "1": key, "2": value }));
        let labels: Vec<Value> = labels.collect();
        let log = format!("{}.log", image.name);
        let container = json!({
            "1": { "1": image.name }, "2": { "1": reference }, "10": labels, "11": log, "15": {},
        });
        let request = json!({ "1": pod.id, "2": container, "3": pod.config });
        self.ask("RuntimeService/CreateContainer", &request, "1")
    }

    pub(crate) fn start_container(&self, id: &str) -> Finished {
        self.call("RuntimeService/StartContainer", &json!({ "1": id }), "1")
    }

    /// The state and exit code, as the kubelet shows them.
    pub(crate) fn container(&self, id: &str) -> (&'static str, String) {
        let field = |path| self.ask("RuntimeService/ContainerStatus", &json!({ "1": id }), path);
        let state = match field("1.3").as_str() {
            "" | "0" => "created",
            "1" => "running",
            "2" => "exited",
            _ => "unknown",
        };
        (state, field("1.7"))
    }

    pub(crate) fn is_ready(&self, pod: &Pod) -> bool {
        let request = json!({ "1": pod.id });
        // READY is the zero of an enumeration, which is not sent.
        let state = self.ask("RuntimeService/PodSandboxStatus", &request, "1.3");
        matches!(state.as_str(), "" | "0")
    }

    /// A call on one pod or container by its id.
    #[track_caller]
    pub(crate) fn on(&self, method: &str, id: &str) -> Finished {
        self.call(&format!("RuntimeService/{method}"), &json!({ "1": id }), "1").ok()
    }

    /// The tasks and containers that containerd still has.
    pub(crate) fn remains(&self) -> String {
        let listed =
            |what| self.containerd.ctr(&["--namespace=k8s.io", what, "list", "-q"]).ok().out;
        listed("task") + &listed("container")
    }

    pub(crate) fn log_of(&self, image: &Image) -> String {
        let path = Path::new(&self.logs()).join(format!("{}.log", image.name));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    fn logs(&self) -> String {
        self.containerd.dir().join("logs").display().to_string()
    }

    #[track_caller]
    fn ask(&self, method: &str, request: &Value, path: &str) -> String {
        self.call(method, request, path).ok().out.trim().to_owned()
    }

    #[track_caller]
    fn call(&self, method: &str, request: &Value, path: &str) -> Finished {
        let socket = self.containerd.dir().join("socket");
        let mut client = Command::new("python3");
        client.args(["-c", CLIENT]).arg(socket).args([method, &request.to_string(), path]);
        // Without this, gRPC writes messages to standard error.
        run(client.env("GRPC_VERBOSITY", "NONE").current_dir(SCRATCH))
    }
}

fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{dir}/cni"
  conf_dir = "{dir}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "extension"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.extension]
  runtime_type = "io.containerd.runc.v2"
  container_annotations = ["io.balena.*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.extension.options]
  BinaryName = "{RUNTIME}"
"#
    )
}

/// A network plugin that reports an address and configures nothing. The runtime does not care which interfaces
/// a pod has, but the pod must have a network namespace.
fn write_cni(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    const PLUGIN: &str = r#"#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
ADD) echo '{"cniVersion":"0.3.1","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"version":"4","interface":0,"address":"10.97.0.2/24"}]}' ;;
esac
"#;
    let plugins = dir.join("cni");
    std::fs::create_dir(&plugins).unwrap();
    // The CRI calls the first by itself, and the second because it is in the list.
    for name in ["loopback", "claims"] {
        std::fs::write(plugins.join(name), PLUGIN).unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(plugins.join(name), executable).unwrap();
    }
    let list = json!({ "cniVersion": "0.3.1", "name": "pods", "plugins": [{ "type": "claims" }] });
    std::fs::write(plugins.join("pods.conflist"), list.to_string()).unwrap();
}
