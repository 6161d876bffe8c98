SUMMARY = "OCI runtime and manager for hostapp extensions"
DESCRIPTION = "Deploys container images that extend an immutable host, and cleans up after them."
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

inherit cargo cargo-update-recipe-crates systemd

# `bitbake -c update_crates` writes this file as well.
require ${BPN}-crates.inc

# Where the sources are: the layer or local.conf sets it, for example
#
#   BALENA_EXTENSION_RUNTIME_SRC = "git://git.example.com/balena-extension-runtime.git;protocol=https;branch=main"
#   SRCREV:pn-balena-extension-runtime = "the commit of the release, 40 hex digits"
#
# or, for a checkout on this machine:
#
#   INHERIT += "externalsrc"
#   EXTERNALSRC:pn-balena-extension-runtime = "/path/to/balena-extension-runtime"
#
# There is no default on purpose: an address that somebody else serves builds another program.
BALENA_EXTENSION_RUNTIME_SRC ?= ""

python () {
    if d.getVar('EXTERNALSRC'):
        return
    recipe = d.getVar('PN')
    source = (d.getVar('BALENA_EXTENSION_RUNTIME_SRC') or '').strip()
    if not source:
        bb.fatal("%s: BALENA_EXTENSION_RUNTIME_SRC is not set: set it to the git URL of the sources, with "
                 "SRCREV:pn-%s, or inherit externalsrc and set EXTERNALSRC:pn-%s" % (recipe, recipe, recipe))
    if (d.getVar('SRCREV') or 'INVALID') == 'INVALID':
        bb.fatal("%s: SRCREV:pn-%s is not set: set it to the commit of %s that is to be built"
                 % (recipe, recipe, source))
    d.prependVar('SRC_URI', source + ';destsuffix=git ')
}

# Releases of OpenEmbedded differ in where they unpack.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/git"

# The version that `--version` prints. Engines read it.
export BALENA_VERSION = "${PV}"

# Where the partition with the boot environment block is mounted. A device whose boot partition is encrypted has the
# block on another one, such as /mnt/efi.
BALENA_BOOT_MOUNT ?= "/mnt/boot"
export BALENA_BOOT_MOUNT

# Older releases of OpenEmbedded build the standard library so that only this strategy can be linked. With the one of
# Cargo.toml the link fails: "the crate `panic_abort` does not have the panic strategy `abort`".
export CARGO_PROFILE_RELEASE_PANIC = "unwind"

# Only the two programs: no tests, no benchmarks.
CARGO_BUILD_FLAGS += "--bins"

# Judges kernel overrides at every boot. balenaOS has a unit of this name itself: install the package elsewhere only.
PACKAGES =+ "${PN}-rollback"
SYSTEMD_PACKAGES = "${PN} ${PN}-rollback ${PN}-metrics"
SYSTEMD_SERVICE:${PN} = "balena-extension-cleanup.service"
SYSTEMD_SERVICE:${PN}-rollback = "extension-rollback.service"
FILES:${PN}-rollback = "${systemd_system_unitdir}/extension-rollback.service"
RDEPENDS:${PN}-rollback = "${PN}"

# Writes metrics for node_exporter, which the image chooses: set METRICS_FILE and ReadWritePaths= for its directory.
PACKAGES =+ "${PN}-metrics"
SYSTEMD_SERVICE:${PN}-metrics = "balena-extension-metrics.timer"
FILES:${PN}-metrics = "${systemd_system_unitdir}/balena-extension-metrics.*"
RDEPENDS:${PN}-metrics = "${PN}"

do_install:append() {
    install -D -m 0644 ${S}/dist/systemd/balena-extension-cleanup.service \
        ${D}${systemd_system_unitdir}/balena-extension-cleanup.service
    install -D -m 0644 ${S}/dist/systemd/extension-rollback.service \
        ${D}${systemd_system_unitdir}/extension-rollback.service
    install -m 0644 ${S}/dist/systemd/balena-extension-metrics.service \
        ${S}/dist/systemd/balena-extension-metrics.timer ${D}${systemd_system_unitdir}/
    # The OS updater runs this after an update has committed: see the file.
    install -D -m 0755 ${S}/dist/hooks/after-os-update \
        ${D}${nonarch_libdir}/${BPN}/after-os-update

    install -d ${D}${mandir}/man8
    install -m 0644 ${S}/dist/man/*.8 ${D}${mandir}/man8/
    install -D -m 0644 ${S}/dist/completions/balena-extension-manager.bash \
        ${D}${datadir}/bash-completion/completions/balena-extension-manager
}

PACKAGES =+ "${PN}-bash-completion"
FILES:${PN}-bash-completion = "${datadir}/bash-completion"
FILES:${PN} += "${nonarch_libdir}/${BPN}"

# The runtime also needs Linux 5.6 or newer and an engine, which the image chooses.
RRECOMMENDS:${PN} = "kernel-module-overlay"
