//! An image that brings its own kernel: create has the manager copy it into a volume, and start has it published and
//! armed. Each test has its own machine, with a process 1, and with an engine in another mount namespace.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::mount_namespace::Machine;
use crate::container::Container;
use crate::finished::Finished;
use crate::manager::host::version;
use crate::manager::recorded_engine::{Answer, Engine};
use crate::{capture, leftovers, process};

/// Of "a".
const ABI: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
const BLOCK: &str = "# GRUB Environment Block\n";
/// What makes the container's directory `mnt` that of the machine, and its socket that of the engine.
const MOUNTS: &str = r#"
    mount --bind "$X/mnt" /mnt && mount --bind "$X/mnt/state" /mnt/state && mount --bind "$X/mnt/data" /mnt/data &&
    mount --bind "$X/mnt/boot" /mnt/boot && ln -s "$X/engine.sock" /run/docker.sock"#;

struct Device {
    machine: Machine,
    container: Container,
}

impl Device {
    /// A device, and a container whose image brings a kernel.
    fn new() -> Self {
        let device = Self { machine: Machine::new("slave"), container: Container::new() };
        let container = &device.container;
        let labels = json!({
            "io.balena.image.class": "overlay", "io.balena.image.kernel-abi-id": ABI,
            "io.balena.image.kernel-version": "6.1.83",
        });
        let record = json!({
            "ID": container.id, "Image": format!("sha256:{}", "0".repeat(64)),
            "Config": { "Labels": labels },
        });
        container.configure(|config| config["annotations"] = json!({}));
        device.write(
            &format!("mnt/data/docker/containers/{}/config.v2.json", container.id),
            &record.to_string(),
        );
        device.write("mnt/state/x", "");
        device.set_block("");
        std::fs::create_dir_all(device.volume()).unwrap();
        for (name, text) in [
            ("boot/vmlinuz", "a"),
            ("boot/config", "CONFIG_X=y"),
            ("usr/lib/modules/6.1.83-v8/Module.symvers", ""),
        ] {
            device.write(&format!("bundle/rootfs/{name}"), text);
        }
        for verb in ["create", "start", "delete"] {
            container.hook(verb, &format!("echo {verb} $EXTENSION_VOLUME_BOOT >> ran"));
        }
        device.host(MOUNTS).ok();
        device
    }

    fn host(&self, script: &str) -> Finished {
        let beside = self.container.beside("");
        self.machine.shell(self.machine.host, &format!("X={}; {script}", beside.display()))
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.container.beside(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn set_block(&self, lines: &str) {
        self.write("mnt/boot/bootenv", &format!("{BLOCK}{lines}{}", "#".repeat(900)));
    }

    fn block(&self) -> String {
        let text = std::fs::read_to_string(self.container.beside("mnt/boot/bootenv")).unwrap();
        text.strip_prefix(BLOCK).unwrap().trim_end_matches('#').to_owned()
    }

    fn name(&self) -> String {
        let id = &self.container.id;
        format!("ext_{}_{}_boot", &id[..id.len().min(12)], "0".repeat(12))
    }

    /// The volume as the machine sees it.
    fn shown_volume(&self) -> String {
        format!("/mnt/data/docker/volumes/{}/_data", self.name())
    }

    fn volume(&self) -> PathBuf {
        self.container.beside(&self.shown_volume()[1..])
    }

    fn engine(&self) -> Engine {
        let volume = self.shown_volume();
        self.engine_that(move || Answer::Json(201, json!({ "Mountpoint": volume })))
    }

    fn engine_that(&self, make: impl Fn() -> Answer + Send + Sync + 'static) -> Engine {
        Engine::start(&self.container.beside("engine.sock"), move |method, _| match method {
            "POST" => make(),
            _ => Answer::Ping("1.41"),
        })
    }

    /// `command` as the engine calls it, with the program at `runtime`.
    fn as_engine(&self, runtime: Option<&Path>, command: &Command) -> Command {
        let program = runtime.unwrap_or(Path::new(command.get_program()));
        let mut with_root = Command::new(program);
        with_root.args(["--docker-root", "/mnt/data/docker"]).args(command.get_args());
        self.machine.command(self.machine.engine, &with_root)
    }

    fn create_command(&self) -> Command {
        self.as_engine(None, &self.container.create_command())
    }

    fn create(&self) -> Finished {
        self.container.create_by(&mut self.create_command())
    }

    fn call(&self, words: &[&str]) -> Finished {
        let command = self.container.command(&[words, &[&self.container.id]].concat());
        self.container.finish(&mut self.as_engine(None, &command))
    }

    fn state(&self) -> String {
        let path = self.container.root().join(&self.container.id).join("state.json");
        std::fs::read_to_string(path).unwrap()
    }

    /// The proxy, whose exit status only the machine's process 1 gets, is gone.
    fn has_stopped(&self) {
        assert_eq!(self.call(&["state"]).ok().json()["status"], "stopped");
    }

    fn armed(&self) -> bool {
        !self.block().is_empty()
    }

    fn left_nothing(&self) {
        self.container.left_nothing();
        self.machine.is_clean();
    }
}

#[test]
fn create_fills_the_volume_and_start_arms_the_kernel() {
    let device = Device::new();
    let engine = device.engine();
    device.create().ok();
    let text = |name: &str| std::fs::read_to_string(device.volume().join(name)).unwrap();
    assert_eq!([text("vmlinuz"), text("config")], ["a", "CONFIG_X=y"]);
    assert_eq!(engine.requests(), ["GET /_ping", "POST /v1.41/volumes/create"]);
    assert!(device.state().contains(&format!(r#""volume":"{}""#, device.name())));
    assert!(!device.armed(), "armed by create");
    device.call(&["start"]).silent();
    assert_eq!(device.block(), format!("kernel_override_abi={ABI}\n"));
    let link = device.container.beside("mnt/data/boot-by-abi").join(ABI);
    let expected = format!("../docker/volumes/{}/_data/vmlinuz", device.name());
    assert_eq!(std::fs::read_link(link).unwrap(), Path::new(&expected));
    let prestate = device.container.beside("mnt/state/extension-health-variables");
    assert!(std::fs::read_to_string(prestate).unwrap().contains("VPNONLINE=0"));
    device.has_stopped();
    assert!(!device.state().contains("refused"));
    assert!(device.container.complained().contains(ABI), "{}", device.container.complained());
    device.call(&["delete"]).silent();
    let shown = device.shown_volume();
    let ran = format!("create {shown}\nstart {shown}\ndelete {shown}");
    assert_eq!(device.container.read("ran"), ran);
    assert!(device.volume().join("vmlinuz").exists(), "the volume outlives the container");
    device.left_nothing();
}

#[test]
fn the_volume_takes_the_place_of_a_mount_at_boot() {
    let device = Device::new();
    let _engine = device.engine();
    device.container.configure(|config| {
        let mount = |at: &str, source: &str| json!({ "destination": at, "source": source });
        config["mounts"] = json!([mount("/boot", "/one"), mount("/data", "/two")]);
    });
    device.container.hook("create", "env > environment");
    device.create().ok();
    let environment = device.container.read("environment");
    let volumes: Vec<&str> =
        environment.lines().filter(|line| line.starts_with("EXTENSION_VOLUME")).collect();
    let boot = format!("EXTENSION_VOLUME_BOOT={}", device.shown_volume());
    assert_eq!(volumes, [boot.as_str(), "EXTENSION_VOLUME_DATA=/two"]);
}

#[test]
fn a_kernel_that_is_refused_ends_the_container_with_status_1() {
    let device = Device::new();
    let _engine = device.engine();
    device.write("mnt/state/override-rejected", &format!("{ABI}\n"));
    device.create().ok();
    let finished = device.call(&["start"]).ok();
    let reason = "refused: the kernel of the image cannot be used: the kernel";
    assert!(finished.warnings().contains(reason), "{finished}");
    assert!(finished.warnings().contains("was tried and rejected"), "{finished}");
    assert!(device.container.complained().contains(reason), "{}", device.container.complained());
    device.has_stopped();
    assert!(device.state().contains(r#""refused":"the kernel"#), "{}", device.state());
    assert!(device.container.read("ran").contains("start"), "the hook runs first");
    assert!(!device.armed());
    device.call(&["delete"]).silent();
    device.left_nothing();
}

#[test]
fn a_condition_of_the_machine_fails_the_start_with_its_reason() {
    let device = Device::new();
    let _engine = device.engine();
    device.host("umount /mnt/state").ok();
    device.create().ok();
    let finished = device.call(&["start"]);
    finished.fails(&["cannot arm the kernel of the image", "the state partition is not mounted"]);
    device.has_stopped();
    assert!(!device.armed());
    device.call(&["delete"]).ok();
    device.left_nothing();
}

#[test]
fn a_file_that_comes_into_boot_after_create_has_no_volume() {
    let device = Device::new();
    let _engine = device.engine();
    std::fs::remove_dir_all(device.container.path("rootfs/boot")).unwrap();
    device
        .container
        .hook("start", "mkdir $EXTENSION_ROOTFS/boot; printf a > $EXTENSION_ROOTFS/boot/k");
    device.create().ok();
    device.call(&["start"]).fails(&["no volume with its kernel"]);
}

#[test]
fn the_data_root_of_the_engine_is_that_of_process_1_too() {
    let device = Device::new();
    let _engine = device.engine();
    let beside = device.container.beside("");
    let script = format!(
        "mount --bind {0}/mnt/data/docker {0}/mnt/state && mount -t tmpfs x /mnt/data/docker && cp -r {0}/mnt/state/. /mnt/data/docker",
        beside.display()
    );
    device.machine.shell(device.machine.engine, &script).ok();
    device.create().fails(&["is another directory in the mount namespace of process 1"]);
    device.left_nothing();
}

/// Copies both programs into a directory of their own, the manager as `change` leaves it.
fn programs(device: &Device, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> PathBuf {
    let folder = device.container.beside("programs");
    std::fs::create_dir_all(&folder).unwrap();
    let runtime = folder.join("balena-extension-runtime");
    // The guard of an earlier call may still be ending: a file that runs cannot be written.
    let _absent = std::fs::remove_file(&runtime);
    crate::bundle::executable(&runtime, &std::fs::read(crate::programs::runtime()).unwrap());
    let manager = folder.join("balena-extension-manager");
    let _absent = std::fs::remove_file(&manager);
    if let Some(bytes) = change(std::fs::read(crate::programs::manager()).unwrap()) {
        crate::bundle::executable(&manager, &bytes);
    }
    runtime
}

fn create_by(device: &Device, runtime: &Path) -> Finished {
    let command = device.container.create_command();
    device.container.create_by(&mut device.as_engine(Some(runtime), &command))
}

#[test]
fn without_the_manager_beside_it_the_runtime_says_so() {
    let device = Device::new();
    let _engine = device.engine();
    let runtime = programs(&device, |_| None);
    let expected = runtime.with_file_name("balena-extension-manager");
    create_by(&device, &runtime).fails(&[
        "the image brings a kernel",
        expected.to_str().unwrap(),
        "must be installed beside this program",
        "missing",
    ]);
    assert!(!device.container.has("ran"));
    device.left_nothing();
}

#[test]
fn a_manager_of_another_version_is_named() {
    let device = Device::new();
    let _engine = device.engine();
    let (own, mut other) = (version(), version());
    other.replace_range(other.len() - 1.., if other.ends_with('7') { "8" } else { "7" });
    let runtime = programs(&device, |bytes| {
        let mut bytes = bytes;
        let found: Vec<usize> = bytes
            .windows(own.len())
            .enumerate()
            .filter(|(_, seen)| *seen == own.as_bytes())
            .map(|(at, _)| at)
            .collect();
        for at in found {
            bytes[at..at + other.len()].copy_from_slice(other.as_bytes());
        }
        Some(bytes)
    });
    create_by(&device, &runtime).fails(&[
        "cannot make the volume for the kernel of the image",
        &format!("this is balena-extension-manager {other}"),
        &format!("balena-extension-runtime {own}"),
    ]);
    // A program that does not know the call, as the managers before it.
    let runtime = programs(&device, |_| Some(std::fs::read("/bin/ls").unwrap()));
    create_by(&device, &runtime).fails(&["is not of version", &own]);
    let runtime = programs(&device, |_| Some(b"neither".to_vec()));
    create_by(&device, &runtime).fails(&["kernel fabricate cannot be run", "neither a program"]);
    assert!(!device.container.has("ran"));
    device.left_nothing();
}

/// What these programs print is in the container's log, and a failure is none that an engine takes for final.
#[test]
fn the_manager_is_called_with_a_limit_and_its_exit_status_is_the_answer() {
    let device = Device::new();
    let another = |path: &str| programs(&device, |_| Some(std::fs::read(path).unwrap()));
    let start_by = |runtime: &Path| {
        let command = device.container.command(&["start", &device.container.id]);
        device.container.finish(&mut device.as_engine(Some(runtime), &command))
    };
    create_by(&device, &another("/bin/echo")).ok();
    let (id, version) = (&device.container.id, version());
    let said = device.container.printed();
    for text in [
        &format!("kernel fabricate --timeout 290 --caller {version} --container {id} "),
        &format!("--label io.balena.image.kernel-abi-id={ABI} "),
        &format!("--volume {} --docker-root /mnt/data/docker ", device.name()),
    ] {
        assert!(said.contains(text), "{text} in {said}");
    }
    start_by(&another("/bin/echo")).ok();
    let said = device.container.printed();
    let words = format!("kernel activate --timeout 110 --caller {version} --container {id} ");
    assert!(said.contains(&words), "{said}");
    device.call(&["delete"]).ok();
    for (program, texts) in [
        ("/bin/false", &["cannot make the volume for the kernel of the image"][..]),
        // Its status is 127.
        ("/usr/bin/env", &["cannot make the volume for the kernel of the image", "ENOENT"]),
    ] {
        create_by(&device, &another(program)).fails(texts);
    }
    for (program, texts) in [
        ("/bin/false", &["cannot arm the kernel of the image"][..]),
        ("/usr/bin/env", &["cannot arm the kernel of the image", "ENOENT"]),
        ("/bin/ls", &["is not of version", "install both programs of one version"]),
    ] {
        create_by(&device, &another("/bin/echo")).ok();
        start_by(&another(program)).fails(texts);
        device.has_stopped();
        device.call(&["delete"]).ok();
    }
    device.left_nothing();
}

/// As when memory is short.
#[test]
fn a_manager_that_is_killed_fails_the_create() {
    let device = Device::new();
    let engine = device.engine_that(|| Answer::Hang);
    let mut command = device.create_command();
    let create = capture::start(&mut command);
    process::wait_for("the request", || {
        engine.requests().iter().any(|request| request.starts_with("POST")).then_some(())
    });
    let manager = leftovers::processes(&device.container.id).into_iter().find(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        words.starts_with(b"balena-extension-manager\0kernel\0")
    });
    process::signal(manager.unwrap(), rustix::process::Signal::KILL);
    let finished = create.finish_within(Duration::from_secs(30));
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(!device.container.has("ran"));
    device.left_nothing();
}

/// As nothing else of the engine's environment reaches a hook.
#[test]
fn the_engine_is_the_one_at_the_usual_socket_whatever_the_environment_of_the_runtime_says() {
    let device = Device::new();
    let engine = device.engine();
    let mut command = device.create_command();
    device.container.create_by(command.env("DOCKER_HOST", "unix:///nowhere.sock")).ok();
    assert_eq!(engine.requests(), ["GET /_ping", "POST /v1.41/volumes/create"]);
}

#[test]
fn an_engine_that_cannot_make_the_volume_fails_the_create() {
    let device = Device::new();
    device.create().fails(&["needs a volume of Docker or balenaEngine"]);
    let _engine = device.engine_that(|| Answer::Json(201, json!({ "Mountpoint": "/mnt/state" })));
    device.create().fails(&["another engine"]);
    assert!(!device.container.has("ran"));
    device.left_nothing();
}

#[test]
fn labels_that_do_not_come_from_a_store_of_docker_name_no_image() {
    let container = Container::new();
    container.label("io.balena.image.kernel-abi-id", ABI);
    std::fs::create_dir(container.path("rootfs/boot")).unwrap();
    std::fs::write(container.path("rootfs/boot/vmlinuz"), "a").unwrap();
    container.create().fails(&["the image brings a kernel", "Docker and balenaEngine"]);
    container.left_nothing();
}

#[test]
fn a_service_whose_name_no_volume_can_have_is_refused_before_the_engine_is_asked() {
    let device = Device::new();
    let engine = device.engine();
    let path = format!("mnt/data/docker/containers/{}/config.v2.json", device.container.id);
    let text = std::fs::read_to_string(device.container.beside(&path)).unwrap();
    for service in ["a/b", "a b", ""] {
        let labels = format!(r#""Labels":{{"io.balena.service-name":"{service}","#);
        device.write(&path, &text.replace(r#""Labels":{"#, &labels));
        if service.is_empty() {
            // As if there were no label.
            device.create().ok();
        } else {
            device.create().fails(&["the volume for it cannot be named", service]);
            assert_eq!(engine.requests(), [""; 0]);
        }
    }
}

#[test]
fn an_image_id_that_the_engines_record_does_not_have_is_not_guessed() {
    let device = Device::new();
    let engine = device.engine();
    let path = format!("mnt/data/docker/containers/{}/config.v2.json", device.container.id);
    let text = std::fs::read_to_string(device.container.beside(&path)).unwrap();
    let id = format!(r#""Image":"sha256:{}""#, "0".repeat(64));
    assert!(text.contains(&id), "{text}");
    for (image, expected) in [
        (r#""Image":"""#, "the id of the container's image is not known"),
        (r#""Other":1"#, "the id of the container's image is not known"),
        (r#""Image":"alpine""#, r#"the id of the container's image, "alpine", is not a SHA-256"#),
    ] {
        device.write(&path, &text.replace(&id, image));
        device.create().fails(&["the volume for it cannot be named", expected]);
        assert_eq!(engine.requests(), [""; 0]);
    }
    device.left_nothing();
}

#[test]
fn a_forced_delete_ends_a_call_of_the_manager() {
    let device = Device::new();
    let engine = device.engine_that(|| Answer::Hang);
    let mut command = device.create_command();
    let mut create = process::start(command.stdin(std::process::Stdio::null()));
    process::wait_for("the request", || {
        engine.requests().iter().any(|request| request.starts_with("POST")).then_some(())
    });
    let begun = Instant::now();
    device.call(&["delete", "--force"]).ok();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_ne!(create.wait(), 0);
    process::wait_for("the manager to be gone", || {
        leftovers::processes(&device.container.id).is_empty().then_some(())
    });
    device.left_nothing();
}

#[test]
fn an_extension_that_names_no_kernel_opens_no_file_for_one() {
    let container = Container::new();
    std::fs::create_dir(container.path("rootfs/boot")).unwrap();
    std::fs::write(container.path("rootfs/boot/vmlinuz"), "a").unwrap();
    let trace = container.beside("trace");
    let strace = |command: &Command| {
        let mut strace = Command::new("strace");
        strace.args(["-e", "trace=%file", "-o"]).arg(&trace);
        strace.arg(command.get_program()).args(command.get_args());
        capture::run(&mut strace).ok();
        let text = std::fs::read_to_string(&trace).unwrap();
        for name in ["boot", "balena-extension-manager\""] {
            let of_kernel = |line: &&str| line.contains(name) && !line.contains("execve");
            assert_eq!(text.lines().find(of_kernel), None);
        }
    };
    strace(&container.create_command());
    strace(&container.command(&["start", &container.id]));
    container.delete().ok();
}
