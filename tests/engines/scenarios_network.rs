//! dockerd configures the network namespace of any process that it is given. If the proxy were in the host's
//! namespace, dockerd would change the host's interfaces and routes.

use std::fs;

use crate::command::{GONE, LIMIT};
use crate::deployment::Deployment;
use crate::docker::{Docker, Mounts};
use crate::engine::Engine as _;
use crate::image::{Image, touch};
use crate::process::poll_within;
use crate::processes::proxy_of;
use crate::test_list::Suite;

/// A host such as extensions run on: an uplink with both kinds of addresses and a default route.
const UPLINK: &str = "
    ip link add uplink0 type veth peer name elsewhere
    ip link set uplink0 up
    ip link set elsewhere up
    ip addr add 192.0.2.7/24 dev uplink0
    ip addr add 2001:db8::7/64 dev uplink0 nodad
    ip route add default via 192.0.2.1
    ip -6 route add default via 2001:db8::1";

/// The state of a host that a deployment must not change. The engine's bridges are left out, since they come up
/// and go down with their veth pairs, and so are the mounts of containers. Mounts of other tests that existed
/// when the daemon started are in its namespace too and disappear with their directories, so below the scratch
/// space only the daemon's own directory, `$0`, counts.
const SURVEY: &str = "
    mine() { grep -v -e veth -e docker0 -e br-; }
    ip -oneline addr | mine | sed 's/ tentative//; s/valid_lft.*//'
    ip -oneline link | mine
    ip route | mine
    ip -6 route | mine
    for file in /proc/sys/net/ipv6/conf/*/disable_ipv6 /proc/sys/net/ipv4/ip_forward; do
        echo $file $(cat $file)
    done | mine
    sed 's/^[0-9]* [0-9]* //' /proc/self/mountinfo | grep -v -e /merged -e /netns/ -e /mounts/shm |
        awk -v own=\"$0/\" '$3 !~ \"^/run/scratch/\" || index($3, own) == 1'";

pub(crate) fn add_to(suite: &mut Suite) {
    suite.test("docker::the_host_keeps_its_network_and_mounts_whatever_the_network", host_is_kept);
    suite.test(
        "docker::a_network_without_an_address_on_the_host_does_not_redirect_it",
        unnumbered_network,
    );
}

fn host_is_kept() {
    let docker = Docker::start_among(Mounts::Private, &[]);
    docker.on_its_host(&["sh", "-ec", UPLINK]).ok();
    docker.docker(&["network", "create", "--subnet=10.99.0.0/24", "mine"]).ok();
    for network in ["bridge", "none", "host", "mine"] {
        survey_around_a_deployment(&docker, network);
    }
}

/// A network without an address on the host. Here dockerd would *succeed* in replacing the host's default route
/// if the proxy were in the host's namespace.
fn unnumbered_network() {
    let docker = Docker::start_among(Mounts::Private, &[]);
    docker.on_its_host(&["sh", "-ec", UPLINK]).ok();
    let options = ["--opt=com.docker.network.bridge.inhibit_ipv4=true", "--gateway=10.98.0.1"];
    let create = ["network", "create", "--subnet=10.98.0.0/24", "unnumbered"];
    docker.docker(&[&create[..2], &options[..], &create[2..]].concat()).ok();
    survey_around_a_deployment(&docker, "unnumbered");
}

fn survey_around_a_deployment(docker: &Docker, network: &str) {
    let image = Image::extension()
        .hook("start", "echo > $NOTES/started; while [ ! -e $NOTES/go ]; do sleep 0.05; done");
    let extension = Deployment::of(image, docker);
    let own = docker.folder().display().to_string();
    let survey = || docker.on_its_host(&["sh", "-c", SURVEY, &own]).ok().out;
    let before = survey();
    assert!(before.contains("2001:db8::7") && before.contains("default via 192.0.2.1"), "{before}");

    let mut running = extension.begin_run(&[&format!("--network={network}")]);
    extension.await_note(&mut running, "started");
    let proxy = proxy_of(&docker.id(&extension.name));
    let during = survey();
    let namespace_of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let its_own = fs::read_link(proxy.path("ns/net")).unwrap();
    let of_the_host = namespace_of(docker.pid_of_daemon());
    touch(&extension.image.note("go"));
    running.finish_within(LIMIT).ok();
    extension.assert_deployed();
    // Interfaces disappear with a delay.
    let mut after = String::new();
    let _same = poll_within(GONE, || {
        after = survey();
        (after == before).then_some(())
    });
    extension.remove();

    let shares_the_hosts = network == "host";
    assert_eq!(its_own == of_the_host, shares_the_hosts, "{network}: the proxy's namespace");
    assert_same(network, "during", &before, &during);
    assert_same(network, "after", &before, &after);
    assert_same(network, "after removal of", &before, &survey());
}

#[track_caller]
fn assert_same(network: &str, when: &str, before: &str, now: &str) {
    let not_in = |other: &str, text: &str| {
        let differs = |line: &&str| !other.lines().any(|known| known == *line);
        text.lines().filter(differs).collect::<Vec<_>>().join("\n  ")
    };
    let (gone, new) = (not_in(now, before), not_in(before, now));
    assert!(
        gone.is_empty() && new.is_empty(),
        "the host changed {when} a deployment on the network {network}\ngone:\n  {gone}\nnew:\n  {new}"
    );
}
