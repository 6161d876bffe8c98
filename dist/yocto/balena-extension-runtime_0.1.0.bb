SUMMARY = "OCI runtime and manager for hostapp extensions"
DESCRIPTION = "Deploys container images that extend an immutable host, and cleans up after them."
HOMEPAGE = "https://github.com/balena-os/balena-extension-runtime"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

inherit cargo cargo-update-recipe-crates systemd

# `bitbake -c update_crates` writes this file as well.
require ${BPN}-crates.inc

# In your layer, add SRCREV with the commit of the tag. Without it, bitbake asks the server at every parse.
SRC_URI += "git://github.com/balena-os/balena-extension-runtime.git;protocol=https;nobranch=1;tag=v${PV}"
S = "${WORKDIR}/git"

# The version that `--version` prints. Engines read it.
export BALENA_VERSION = "${PV}"

# Only the two programs: no tests, no benchmarks.
CARGO_BUILD_FLAGS += "--bins"

SYSTEMD_SERVICE:${PN} = "balena-extension-cleanup.service"

do_install:append() {
    install -D -m 0644 ${S}/dist/systemd/balena-extension-cleanup.service \
        ${D}${systemd_system_unitdir}/balena-extension-cleanup.service
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
