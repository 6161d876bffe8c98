//! The features in docs/engines.md, and for each engine the tests that show them.

/// A cell of the table.
pub(crate) enum Cell {
    /// The tests that show it, without row and engine.
    Shown(&'static [&'static str]),
    /// Why the feature does not apply.
    NotApplicable(&'static str),
}

use Cell::{NotApplicable as Na, Shown};

/// The engines: their names in the tests, and in the document.
pub(crate) const ENGINES: [(&str, &str); 4] = [
    ("docker", "Docker"),
    ("containerd", "containerd (ctr)"),
    ("cri", "containerd (CRI)"),
    ("podman", "Podman"),
];

/// A feature with a cell for each of [`ENGINES`].
pub(crate) type Feature = (&'static str, [Cell; 4]);

const RUN: &[&str] = &[
    "an_extension_without_hooks_deploys",
    "hooks_run_in_order_on_the_host",
    "an_exited_extension_can_be_started_again",
];
const LOGS: &[&str] = &[
    "the_output_of_hooks_is_in_the_log_create_before_start",
    "a_create_hook_that_prints_a_mebibyte_hangs_nothing_and_is_logged",
];
const CREATE: &[&str] = &["a_failing_create_hook_is_quoted_and_can_be_fixed"];
const START: &[&str] = &["a_failing_start_hook_is_quoted_and_can_be_fixed"];
const DELETE: &[&str] = &["a_failing_delete_hook_does_not_stop_the_removal"];
const STOP: &[&str] = &["stop_is_answered_in_every_phase"];
const KILL: &[&str] = &["kill_is_answered_in_every_phase"];
const TERMINAL: &[&str] = &["a_terminal_works_and_shows_what_hooks_print"];
const CRI_NODE: &[&str] = &["a_pod_on_the_hosts_network_is_deployed_and_removed"];
const CRI_POD: &[&str] = &["a_pod_with_a_network_of_its_own_is_deployed_and_removed"];
const DOCKER_NETWORKS: &[&str] = &["the_host_keeps_its_network_and_mounts_whatever_the_network"];
const DAEMON_IN_CREATE: &[&str] = &["a_daemon_killed_during_a_create_hook_is_repaired_by_force"];
const DAEMON_IN_START: &[&str] = &["a_daemon_killed_during_a_start_hook_is_repaired_by_force"];
const DAEMON_IN_DELETE: &[&str] = &["a_daemon_killed_during_a_delete_hook_is_repaired_by_force"];
const PODMAN_BRIDGES: &[&str] = &["the_host_keeps_its_network_whatever_the_bridge"];
const STORE_OF_DOCKER: Cell = Na("Docker has one place for images");
const NO_STORE: Cell = Na("labels come as annotations");
const SHIM_OF_CRI: Cell = Na("the same shim as under `ctr`");
const DAEMON_OF_CRI: Cell = Na("the same daemon and shim as under `ctr`");

pub(crate) fn features() -> Vec<Feature> {
    vec![
        ("run", [Shown(RUN), Shown(RUN), Shown(CRI_NODE), Shown(RUN)]),
        ("logs", [Shown(LOGS), Shown(LOGS), Shown(CRI_NODE), Shown(LOGS)]),
        (
            "failed create",
            [
                Shown(CREATE),
                Shown(CREATE),
                Shown(&["a_failing_create_hook_is_quoted_and_leaves_the_pod_ready"]),
                Shown(CREATE),
            ],
        ),
        (
            "failed start",
            [
                Shown(START),
                Shown(START),
                Shown(&["a_failing_start_hook_is_quoted_and_leaves_the_pod_ready"]),
                Shown(START),
            ],
        ),
        (
            "failed delete hook",
            [
                Shown(DELETE),
                Shown(DELETE),
                Shown(&["a_failing_delete_hook_does_not_stop_the_removal"]),
                Shown(DELETE),
            ],
        ),
        (
            "stop",
            [
                Shown(&[
                    "stop_is_answered_in_every_phase",
                    "created_containers_can_be_stopped_and_removed",
                ]),
                Na("`ctr` has no stop"),
                Shown(CRI_NODE),
                Shown(STOP),
            ],
        ),
        (
            "kill",
            [
                Shown(KILL),
                Shown(&[
                    "kill_is_answered_in_every_phase",
                    "a_kubernetes_sandbox_runs_until_it_is_killed",
                ]),
                Na("the CRI has no kill"),
                Shown(KILL),
            ],
        ),
        (
            "rm -f",
            [
                Shown(&["rm_force_during_a_start_hook_leaves_nothing"]),
                Shown(DAEMON_IN_START),
                Na("the CRI has no removal by force"),
                Shown(&["initialized_containers_can_be_stopped_killed_and_removed"]),
            ],
        ),
        (
            "restart policy",
            [
                Shown(&["restart_policies_deploy_repeatedly"]),
                Na("`ctr` has none"),
                Na("the kubelet restarts pods, by creating a new container"),
                Shown(&["restart_always_continues_although_conmon_blocks_sigusr1"]),
            ],
        ),
        (
            "-t",
            [Shown(TERMINAL), Shown(TERMINAL), Na("the same shim as under `ctr`"), Shown(TERMINAL)],
        ),
        (
            "network none",
            [
                Shown(DOCKER_NETWORKS),
                Shown(&["a_network_of_its_own_and_the_hosts_work"]),
                Shown(CRI_POD),
                Shown(&["the_networks_host_and_none_work"]),
            ],
        ),
        (
            "network bridge",
            [
                Shown(DOCKER_NETWORKS),
                Na("`ctr` makes none without CNI plugins; with them, see the CRI"),
                Shown(CRI_POD),
                Shown(PODMAN_BRIDGES),
            ],
        ),
        (
            "network host",
            [
                Shown(DOCKER_NETWORKS),
                Shown(&["a_network_of_its_own_and_the_hosts_work"]),
                Shown(CRI_NODE),
                Shown(&["the_networks_host_and_none_work"]),
            ],
        ),
        (
            "user network",
            [
                Shown(&[
                    "the_host_keeps_its_network_and_mounts_whatever_the_network",
                    "a_network_without_an_address_on_the_host_does_not_redirect_it",
                ]),
                Na("`ctr` has none"),
                Na("the CRI has one network, which CNI decides"),
                Shown(PODMAN_BRIDGES),
            ],
        ),
        (
            "daemon restart",
            [
                Shown(&["extensions_outlive_a_restart_of_the_daemon"]),
                Shown(&["extensions_outlive_a_restart_of_the_daemon"]),
                Shown(&["a_pod_outlives_a_restart_of_containerd"]),
                Na("Podman has no daemon"),
            ],
        ),
        (
            "live-restore",
            [
                Shown(&["live_restore_finds_the_extension_again"]),
                Na("containerd always does this: see daemon restart"),
                Na("containerd always does this: see daemon restart"),
                Na("Podman has no daemon"),
            ],
        ),
        (
            "shim killed",
            [
                Shown(&[
                    "a_shim_killed_during_a_create_hook_leaves_nothing",
                    "a_shim_killed_between_create_and_start_leaves_nothing",
                    "a_shim_killed_during_a_start_hook_leaves_nothing",
                ]),
                Shown(&[
                    "a_shim_killed_during_a_create_hook_is_repaired_by_force",
                    "a_shim_killed_during_a_start_hook_is_repaired_by_force",
                    "a_shim_killed_during_a_delete_hook_is_repaired_by_force",
                ]),
                SHIM_OF_CRI,
                Shown(&[
                    "a_conmon_killed_during_a_create_hook_is_repaired_by_force",
                    "a_conmon_killed_during_a_start_hook_is_repaired_by_force",
                ]),
            ],
        ),
        (
            "daemon killed in create",
            [
                Shown(&[
                    "a_daemon_killed_during_a_create_hook_is_repaired_by_force",
                    "a_create_interrupted_by_the_end_of_the_daemon_can_be_repeated",
                ]),
                Shown(DAEMON_IN_CREATE),
                DAEMON_OF_CRI,
                Shown(&["a_podman_killed_during_a_create_hook_is_repaired_by_force"]),
            ],
        ),
        (
            "daemon killed in start",
            [
                Shown(DAEMON_IN_START),
                Shown(DAEMON_IN_START),
                DAEMON_OF_CRI,
                Shown(&["a_podman_killed_during_a_start_hook_is_repaired_by_force"]),
            ],
        ),
        (
            "daemon killed in delete",
            [
                Shown(DAEMON_IN_DELETE),
                Shown(DAEMON_IN_DELETE),
                DAEMON_OF_CRI,
                Na("conmon's exit command deletes; no Podman process is running then"),
            ],
        ),
        (
            "mounts apart",
            [
                Shown(&[
                    "hooks_reach_the_host_from_slave_mounts",
                    "hooks_reach_the_host_from_private_mounts",
                    "hooks_reach_the_host_from_shared_mounts",
                    "a_volume_that_only_the_engine_has_reaches_hooks",
                    "a_container_with_the_hosts_mounts_sees_no_attached_rootfs",
                    "deactivate_reaches_the_host_from_slave_mounts",
                ]),
                Shown(&["hooks_reach_the_host_from_slave_mounts"]),
                DAEMON_OF_CRI,
                Shown(&[
                    "hooks_reach_the_host_from_shared_mounts_apart",
                    "hooks_reach_the_host_with_a_user_namespace",
                ]),
            ],
        ),
        (
            "image stores",
            [
                STORE_OF_DOCKER,
                NO_STORE,
                NO_STORE,
                Shown(&[
                    "labels_come_from_an_additional_image_store",
                    "labels_come_from_the_image_stores_of_storage_conf",
                    "labels_come_from_an_image_store_apart",
                    "labels_come_by_a_transient_store",
                    "labels_are_found_even_if_the_images_id_is_not_the_digest_of_its_configuration",
                ]),
            ],
        ),
    ]
}
