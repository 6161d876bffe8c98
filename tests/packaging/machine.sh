# A machine for tests/packaging/machine.rs: a copy of this one's root filesystem with the package
# installed, booted by its systemd once for every script.
#
#   unshare --mount sh -eu machine.sh FOLDER PACKAGE
#
# FOLDER has prepare (run before the first boot, as in a chroot), boot-1, boot-2 … (each run in one
# boot, which ends with it), install (the command) and daemon.json. What they print is in FOLDER/report.
folder=$1
package=$2
limit=120
boot=

# Version 2 alone, wherever this machine has it: a cgroup of our own there, and what systemd and the
# engine make is below it. It is mounted only where it is not yet, because mounting it once more from
# outside a cgroup namespace changes the options of the mount that is there.
cgroups=$(findmnt --noheadings --list --types cgroup2 --output TARGET | head -n 1)
if [ -z "$cgroups" ]; then
    mkdir "$folder/cgroups"
    mount -t cgroup2 cgroup2 "$folder/cgroups"
    cgroups=$folder/cgroups
fi
remove_cgroup() {
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
}
# What a run that was killed outright could not remove itself.
for cgroup in "$cgroups"/packaging-tests-*; do
    [ ! -d "$cgroup" ] || [ -e "/proc/${cgroup##*-}" ] || remove_cgroup "$cgroup" || true
done
cgroup=$cgroups/packaging-tests-$$
mkdir "$cgroup"
left() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        remove_cgroup "$cgroup" && return
        sleep 0.2
    done
    echo "left behind: $cgroup" >&2
    exit 1
}
trap left EXIT
trap '[ -z "$boot" ] || kill "$boot"; exit 130' HUP INT TERM

disk=$folder/disk
mkdir "$disk"
mount -t tmpfs -o mode=0755 none "$disk"
mkdir "$disk/upper" "$disk/work" "$disk/root" "$disk/docker" "$disk/containerd"
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$disk/root"
root=$disk/root

# Nothing of what this machine boots with is to run.
rm -rf "$root/etc/systemd/system" "$root"/lib/systemd/system/*.wants "$root/var/log/journal" \
    "$root/etc/default/docker" "$root/etc/containerd"
mkdir -p "$root/etc/systemd/system" "$root/etc/docker" "$root/var/lib/docker" "$root/var/lib/containerd"
: >"$root/etc/fstab"
# An overlay cannot be what an overlay lies on.
mount --bind "$disk/docker" "$root/var/lib/docker"
mount --bind "$disk/containerd" "$root/var/lib/containerd"
mkdir "$root/steps"
mount --bind "$folder" "$root/steps"
cp "$package" "$root/package.deb"
# So that dpkg does not index all man pages anew.
rm -f "$root/var/lib/man-db/auto-update"

# Without a network, and with nothing of the running machine in sight.
unshare --mount --net --pid --fork --kill-child -- sh -euc '
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs none "$1/run"
    exec chroot "$1" sh -eu /steps/install' sh "$root" >"$folder/installed" 2>&1 || {
    cat "$folder/installed" >&2
    exit 1
}

cp "$folder/daemon.json" "$root/etc/docker/daemon.json"
units=$root/etc/systemd/system
wanted() { # wanted TARGET UNIT
    mkdir -p "$units/$1.wants"
    ln -s "/lib/systemd/system/$2" "$units/$1.wants/$2"
}
wanted sysinit.target systemd-journald.service
wanted sockets.target systemd-journald.socket
wanted sockets.target systemd-journald-dev-log.socket
wanted sockets.target docker.socket
wanted multi-user.target docker.service
mkdir "$units/docker.service.d"
cat >"$units/docker.service.d/in-a-sandbox.conf" <<END
[Service]
Environment="DOCKER_OPTS=--iptables=false --ip6tables=false --bridge=none --ip-forward=false"
END
# It stands in for the real one: it comes after the engine, and says when it was let go.
cat >"$units/balena-supervisor.service" <<END
[Unit]
After=docker.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
END
# The test itself, in a boot. It does not wait for the boot, so that the boot does not wait for it.
cat >"$units/steps.service" <<END
[Unit]
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=exec
Environment=HOME=/root
ExecStart=/bin/sh -eu /steps/now
StandardOutput=append:/steps/report
StandardError=append:/steps/report
[Install]
WantedBy=multi-user.target
END
systemctl --quiet --root="$root" enable balena-supervisor.service steps.service
chroot "$root" sh -eu /steps/prepare

# Becomes process 1. The clock, modules, devices and audit of this machine are out of reach of it, as
# are the parts of /proc/sys that no namespace holds.
become_init='
    root=$1
    mount -t proc proc "$root/proc"
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
    mount -o remount,bind,ro "$root/proc/sys"
    trigger=$root/proc/sysrq-trigger
    [ ! -e "$trigger" ] || mount --bind /dev/null "$trigger"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=0755 none "$root/dev"
    for device in null zero full random urandom tty; do
        : >"$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,mode=0620,ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t tmpfs -o mode=0755 none "$root/run"
    mount -t tmpfs -o mode=1777 none "$root/tmp"
    hostname machine
    cd "$root"
    mkdir run/old
    pivot_root . run/old
    umount -l /run/old
    rmdir /run/old
    exec setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-audit_control,-audit_read -- \
        env -i container=balena-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --unit=multi-user.target'

number=1
while [ -e "$folder/boot-$number" ]; do
    cp "$folder/boot-$number" "$folder/now"
    echo "--- boot $number" >>"$folder/report"
    # Only process 1 is in the cgroup, as systemd wants it. A namespace of processes that has been
    # powered off looks like one that was interrupted. In the background, a trap need not wait.
    timeout --kill-after=1 --signal=KILL "$limit" unshare --mount --pid --net --uts --ipc --fork \
        --kill-child -- sh -euc 'echo 0 >"$1/cgroup.procs"; exec unshare --cgroup -- sh -euc "$2" sh "$3"' \
        sh "$cgroup" "$become_init" "$root" </dev/null &
    boot=$!
    status=0
    wait "$boot" || status=$?
    boot=
    if [ "$status" -ne 130 ]; then
        echo "boot $number did not end by powering off within $limit s, but with status $status" >&2
        exit 1
    fi
    number=$((number + 1))
done
