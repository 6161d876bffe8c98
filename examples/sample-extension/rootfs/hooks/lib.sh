# shellcheck shell=sh
# Shared by the hooks of this extension. Hooks run on the host, so they find this
# file through EXTENSION_ROOTFS, the path of the image's files on the host:
#
#     . "$EXTENSION_ROOTFS/hooks/lib.sh"
#
# Use only tools that every host has. Immutable systems often have busybox: write
# POSIX sh, and use no options that only GNU tools have.

# The name of the overlay mount, by which a later run recognizes its own.
NAME=sample-extension

# The files of this extension, relative to the rootfs, and whole directories that
# belong to it alone. This is a list because engines put files of their own into the
# rootfs (Docker: empty etc/hosts, etc/hostname, etc/resolv.conf, a link etc/mtab,
# dev, proc, sys), and a copy of the whole rootfs would hide the host's.
# shellcheck disable=SC2034 # used by create and start
CONTENT='etc/sample-extension.conf
etc/udev/rules.d
usr/bin/sample-tool'

# The engine's umask is not known. The copies must be readable by every user.
umask 022

# The output of a hook goes to the container's log, which `docker logs` shows.
say() {
    printf '%s: %s\n' "$NAME" "$*"
}

# The last lines that a failing hook prints become part of the error message, so
# say in one line what is wrong and what to do about it.
fail() {
    printf '%s: %s\n' "$NAME" "$*" >&2
    exit 1
}

# Sets `target` and `store` from the container's mounts, or fails. A mount with
# the destination /target reaches a hook as EXTENSION_VOLUME_TARGET = the path
# on the host. This is the only way to pass a setting to a hook at run time:
# `docker run --env` has no effect.
find_volumes() {
    [ -n "${EXTENSION_VOLUME_TARGET:-}" ] ||
        fail "no target: name the host directory to extend with -v /host/dir:/target"
    [ -n "${EXTENSION_VOLUME_STORE:-}" ] ||
        fail "no store: name a volume for the files with -v some-name:/store"
    # The kernel lists mounts by their real path, so a symlink would never match.
    target=$(readlink -f "$EXTENSION_VOLUME_TARGET" || true)
    [ -d "$target" ] ||
        fail "target $EXTENSION_VOLUME_TARGET is not a directory on the host"
    store=$(readlink -f "$EXTENSION_VOLUME_STORE" || true)
    [ -d "$store" ] ||
        fail "store $EXTENSION_VOLUME_STORE is not a directory on the host"
}

# Waits until no other hook uses the store: a killed engine may leave a hook behind
# that still runs when the next one begins. The kernel releases the lock when the
# last process that has file descriptor 9 exits.
lock_store() {
    exec 9<"$store"
    flock 9
}

# Prints one line per mount on the directory $1, the topmost last: "type source
# options". See proc_pid_mountinfo(5): field 5 is the mount point; type, source and
# options follow a single dash, whose position varies.
mounts_at() {
    awk -v at="$1" '$5 == at {
        for (i = 7; $i != "-"; i++);
        print $(i + 1), $(i + 2), $(i + 3)
    }' /proc/self/mountinfo
}
