//! A device with kernel overrides, as a directory that is used as `/`: boot environment block, slots, state partition,
//! the engine's container store, and a health check.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::capture::run;
use super::finished::Finished;
use super::host::{BLOCK, BOOT, Host, script};

/// Three kernels.
pub(crate) const X: &str = "1111111111111111111111111111111111111111111111111111111111111111";
pub(crate) const Y: &str = "2222222222222222222222222222222222222222222222222222222222222222";
pub(crate) const Z: &str = "3333333333333333333333333333333333333333333333333333333333333333";

pub(crate) struct Device(pub(crate) Host);

impl Device {
    /// A device that runs the stock kernel in slot A, with a block of these lines and extensions that claim X and Y.
    pub(crate) fn new(lines: &str) -> Self {
        let host = Host::new();
        let device = Self(host);
        let host = &device.0;
        host.mounts(&format!(
            "/dev/sda2 / ext4 ro 0 0\n{BOOT}/dev/sda2 /mnt/sysroot/active ext4 ro 0 0\n/dev/sda4 /mnt/state ext4 rw 0 0\n"
        ));
        for device in ["sda2", "sda3"] {
            host.write(&format!("dev/{device}"), "");
        }
        std::fs::create_dir_all(host.path("dev/disk/by-label")).unwrap();
        device.link("../../sda2", "dev/disk/by-label/resin-rootA");
        device.link("../../sda3", "dev/disk/by-label/resin-rootB");
        for directory in ["mnt/state", "mnt/data/docker/containers", "mnt/data/boot-by-abi"] {
            std::fs::create_dir_all(host.path(directory)).unwrap();
        }
        host.write("mnt/data/remove_me_to_reset", "");
        device.set_block(lines);
        device.claim("x", X);
        device.claim("y", Y);
        device.check("exit 0");
        device
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    pub(crate) fn link(&self, target: &str, link: &str) {
        std::os::unix::fs::symlink(target, self.path(link)).unwrap();
    }

    /// Writes a block of 1,024 bytes.
    pub(crate) fn set_block(&self, lines: &str) {
        let mut block = format!("{BLOCK}{lines}").into_bytes();
        block.resize(1024, b'#');
        std::fs::create_dir_all(self.path("mnt/boot")).unwrap();
        std::fs::write(self.path("mnt/boot/bootenv"), block).unwrap();
    }

    /// The lines of the block, without signature and padding.
    pub(crate) fn block(&self) -> String {
        let block = std::fs::read_to_string(self.path("mnt/boot/bootenv")).unwrap();
        assert_eq!(block.len(), 1024);
        let lines = block.strip_prefix(BLOCK).unwrap().trim_end_matches('#');
        lines.to_owned()
    }

    /// A container of an extension that claims this kernel.
    pub(crate) fn claim(&self, id: &str, abi: &str) {
        self.container(id, &json!({}), abi);
    }

    pub(crate) fn container(&self, id: &str, state: &Value, abi: &str) {
        let labels = json!({
            "io.balena.image.class": "overlay", "io.balena.image.kernel-abi-id": abi,
        });
        let record = json!({
            "ID": id, "Name": format!("/{id}"), "State": state, "Image": format!("sha256:{abi}"),
            "Config": { "Image": "x", "Labels": labels },
        });
        self.0
            .write(&format!("mnt/data/docker/containers/{id}/config.v2.json"), &record.to_string());
    }

    pub(crate) fn remove_container(&self, id: &str) {
        std::fs::remove_dir_all(self.path(&format!("mnt/data/docker/containers/{id}"))).unwrap();
    }

    pub(crate) fn publish(&self, abi: &str) {
        self.link("../docker/volumes/v/_data/vmlinuz", &format!("mnt/data/boot-by-abi/{abi}"));
    }

    /// The published kernels.
    pub(crate) fn published(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("mnt/data/boot-by-abi")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs this kernel; none is the stock kernel.
    pub(crate) fn boot(&self, abi: Option<&str>) {
        let token = abi.map(|abi| format!(" balena_kernel_abi={abi}")).unwrap_or_default();
        self.0.write("proc/cmdline", &format!("quiet{token}\n"));
    }

    /// The health check of the OS, as a shell script.
    pub(crate) fn check(&self, text: &str) {
        script(&self.path("usr/bin/rollback-tests"), text);
    }

    /// The text of a file of the state partition; none if it is missing.
    pub(crate) fn state(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path("mnt/state").join(name)).ok()
    }

    pub(crate) fn prestate(&self) {
        self.0.write("mnt/state/extension-health-variables", "BALENAOS_ROLLBACK_VPNONLINE=0\n");
    }

    pub(crate) fn has_prestate(&self) -> bool {
        self.state("extension-health-variables").is_some()
    }

    /// A call without pauses.
    pub(crate) fn validate_command(&self, words: &[&str]) -> Command {
        let mut command =
            self.0.command(&["validate", "--settle", "0", "--retry", "0", "--attempts", "2"]);
        command.args(words);
        command
    }

    pub(crate) fn validate(&self) -> Finished {
        run(&mut self.validate_command(&[]))
    }
}
