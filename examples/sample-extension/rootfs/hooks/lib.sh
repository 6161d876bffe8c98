# shellcheck shell=sh
# What the hooks of this extension share. They run on the host, so they find
# this file through EXTENSION_ROOTFS, the host's path of the image's files:
#
#     . "$EXTENSION_ROOTFS/hooks/lib.sh"
#
# Use only what every host has. An immutable system often brings busybox: plain
# POSIX sh, and no options that only the GNU tools know.

# Names the overlay mount, so that a later run can tell its own from others.
NAME=sample-extension

# What this extension ships, relative to the rootfs: files, or whole directories
# that belong to it alone. It is a list on purpose. Engines put files of their
# own into the rootfs (Docker: empty etc/hosts, etc/hostname, etc/resolv.conf,
# a link etc/mtab, dev, proc, sys); copying all of it would hide the host's.
# shellcheck disable=SC2034 # used by create and start
CONTENT='etc/sample-extension.conf
etc/udev/rules.d
usr/bin/sample-tool'

# The engine's umask is anything; the copies below are for every user.
umask 022

# What a hook prints lands in the container's log: `docker logs` shows it.
say() {
    printf '%s: %s\n' "$NAME" "$*"
}

# The last lines a failing hook printed become part of the error that the user
# sees, so say what is wrong and what to do about it, in one line.
fail() {
    printf '%s: %s\n' "$NAME" "$*" >&2
    exit 1
}

# Sets `target` and `store` from the container's mounts, or fails. A mount with
# the destination /target reaches a hook as EXTENSION_VOLUME_TARGET = the path
# on the host. This is the only way to hand a hook a setting at run time:
# `docker run --env` does not get here.
find_volumes() {
    [ -n "${EXTENSION_VOLUME_TARGET:-}" ] ||
        fail "no target: say which host directory to extend, with -v /host/dir:/target"
    [ -n "${EXTENSION_VOLUME_STORE:-}" ] ||
        fail "no store: give a volume for the files, with -v some-name:/store"
    # The kernel lists mounts by their real path; a symlink would never match.
    target=$(readlink -f "$EXTENSION_VOLUME_TARGET" || true)
    [ -d "$target" ] ||
        fail "target $EXTENSION_VOLUME_TARGET is not a directory on the host"
    store=$(readlink -f "$EXTENSION_VOLUME_STORE" || true)
    [ -d "$store" ] ||
        fail "store $EXTENSION_VOLUME_STORE is not a directory on the host"
}

# Waits until no other hook works on the store: a killed engine may leave a hook
# behind that still runs when the next one begins. The lock belongs to open file
# 9, and so goes with the last process that has it, however that ends.
lock_store() {
    exec 9<"$store"
    flock 9
}

# One line for each mount at the directory $1, the topmost last: "type source
# options". See proc_pid_mountinfo(5): the mount point is field 5; type, source
# and options follow a lone dash, which has no fixed place.
mounts_at() {
    awk -v at="$1" '$5 == at {
        for (i = 7; $i != "-"; i++);
        print $(i + 1), $(i + 2), $(i + 3)
    }' /proc/self/mountinfo
}
