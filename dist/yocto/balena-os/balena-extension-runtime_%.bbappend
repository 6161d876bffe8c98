# What balenaOS needs beside the recipe. docs/balena-os.md gives the reasons.

BALENA_EXTENSION_RUNTIME_REGISTER ?= "0"

do_install:append() {
    # The name that the OS has for the unit of every boot. Nothing may run cleanup twice.
    ln -s balena-extension-cleanup.service \
        ${D}${systemd_system_unitdir}/hostapp-extensions-cleanup.service

    if [ "${BALENA_EXTENSION_RUNTIME_REGISTER}" = 1 ]; then
        for engine in balena balena-host; do
            install -D -m 0644 ${S}/dist/yocto/balena-os/register-runtime.conf \
                ${D}${systemd_system_unitdir}/$engine.service.d/register-runtime.conf
        done
    fi
}

FILES:${PN} += "${systemd_system_unitdir}"
