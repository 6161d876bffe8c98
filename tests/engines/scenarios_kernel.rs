//! An image that brings a kernel, on a dockerd of its own machine: a device with a boot environment, a state partition
//! and a data partition, made of mounts in its own namespaces.

use std::fs;
use std::process::Command;

use crate::capture::start;
use crate::command::LIMIT;
use crate::finished::Finished;
use crate::image::Image;
use crate::sandbox::{RUNTIME, SCRATCH};
use crate::test_list::Suite;

/// Of "a".
const ABI: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

/// Process 1 of the machine. `$1` is the layer of the image, `$2` the runtime, `$3` an empty directory, and the rest are
/// the options of the import. `STATE` says whether the state partition is mounted.
const MACHINE: &str = r###"
    layer=$1 runtime=$2 scratch=$3; shift 3
    mount -t tmpfs -o mode=755 mnt /mnt
    mkdir -p /mnt/data/docker /mnt/state /mnt/boot "$scratch/run/under-test" "$scratch/run/scratch"
    printf '# GRUB Environment Block\n%0999d' 0 | tr 0 '#' > /mnt/bootenv
    mount -t tmpfs boot /mnt/boot && cp /mnt/bootenv /mnt/boot/bootenv
    [ -z "$STATE" ] || mount -t tmpfs state /mnt/state
    mount -t tmpfs data /mnt/data && mkdir /mnt/data/docker
    mount --rbind /run/under-test "$scratch/run/under-test"
    mount --rbind /run/scratch "$scratch/run/scratch"
    mount --rbind "$scratch/run" /run
    ip link set lo up
    echo '{}' > "$scratch/daemon.json"
    dockerd --config-file "$scratch/daemon.json" --data-root /mnt/data/docker --exec-root "$scratch/exec" \
        --host unix:///run/docker.sock --pidfile "$scratch/pid" --iptables=false --ip6tables=false \
        --userland-proxy=false --storage-driver=overlay2 --bridge=none \
        --add-runtime "extension=$runtime" > "$scratch/log" 2>&1 &
    daemon=$!
    for try in $(seq 450); do
        docker version > /dev/null 2>&1 && break
        kill -0 "$daemon" || { cat "$scratch/log" >&2; exit 1; }
        sleep 0.2
    done
    docker import "$@" "$layer" image > /dev/null
    echo "run: $(docker run --runtime=extension --network=none --name kernel image 2>&1)"
    docker inspect -f 'container: {{.State.Status}} {{.State.ExitCode}}' kernel
    echo "log: $(docker logs kernel 2>&1 | tr '\n' ' ')"
    docker volume ls -q | sed 's/^/volume: /'
    tr -d '#' < /mnt/boot/bootenv
    [ ! -e /mnt/data/boot-by-abi ] || echo "link: $(cat /mnt/data/boot-by-abi/*)"
    docker rm kernel > /dev/null
    kill "$daemon"; wait "$daemon"
"###;

pub(crate) fn add_to(suite: &mut Suite) {
    suite.test("docker::a_kernel_is_armed_on_a_device", armed);
    suite.test("docker::a_kernel_needs_a_state_partition", without_state);
    suite.test("docker::a_kernel_that_is_not_in_the_image_is_refused", refused);
}

/// Runs an image with this kernel on a machine of its own.
fn deploy(kernel: &str, state: &str) -> Finished {
    let mut image = Image::extension().hook("start", "echo hook $EXTENSION_VOLUME_BOOT");
    image.label("io.balena.image.kernel-abi-id", ABI);
    for (name, text) in [("boot/vmlinuz", kernel), ("lib/modules/6.1.0/Module.symvers", "")] {
        let path = image.rootfs().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let scratch = tempfile::Builder::new().prefix("kernel").tempdir_in(SCRATCH).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["--propagation", "private", "sh", "-ec", MACHINE, "sh"]);
    command.arg(image.tar()).arg(RUNTIME).arg(scratch.path()).args(image.changes());
    // Its dockerd may take as long as a command.
    start(command.env("STATE", state)).finish_within(2 * LIMIT)
}

#[track_caller]
fn has(finished: &Finished, texts: &[&str]) {
    for text in texts {
        assert!(finished.out.contains(text), "{text:?} was expected of {finished}");
    }
}

fn armed() {
    let finished = deploy("a", "yes").ok();
    has(
        &finished,
        &[
            "container: exited 0",
            "hook /mnt/data/docker/volumes/ext_",
            "volume: ext_",
            &format!("kernel_override_abi={ABI}"),
            "link: a",
        ],
    );
}

fn without_state() {
    let finished = deploy("a", "").ok();
    let texts = [
        "docker: Error response from daemon: OCI runtime start failed: cannot arm the kernel",
        "the state partition is not mounted",
        "container: created 1",
        "volume: ext_",
    ];
    has(&finished, &texts);
    // 128, or 137 if the engine has seen the end of the proxy first. With 126 or 127 an agent would not try again.
    let is_final =
        ["126", "127"].iter().any(|code| finished.out.contains(&format!("created {code}")));
    assert!(!is_final, "{finished}");
    assert!(!finished.out.contains("kernel_override_abi"), "{finished}");
}

fn refused() {
    let finished = deploy("b", "yes").ok();
    has(
        &finished,
        &[
            "container: exited 1",
            "refused: the kernel of the image cannot be used: no regular file directly in /boot",
        ],
    );
    assert!(!finished.out.contains("kernel_override_abi"), "{finished}");
}
