//! The two architectures: their names in Debian, and the machines that QEMU emulates for them.

/// An architecture.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// Debian's name.
    pub(crate) name: &'static str,
    /// The name for `make build ARCH=`, of which `tools/arm-tests` makes the directory.
    pub(crate) build: &'static str,
    /// The package that depends on the newest kernel.
    pub(crate) kernel: &'static str,
    /// QEMU's program and its options for the machine.
    pub(crate) qemu: &'static str,
    pub(crate) options: &'static [&'static str],
}

impl Architecture {
    pub(crate) const ALL: [&'static Self; 2] = [
        &Self {
            name: "arm64",
            build: "aarch64",
            kernel: "linux-image-arm64",
            qemu: "qemu-system-aarch64",
            // Pointer authentication takes a third of the time of an emulated program.
            options: &["-cpu", "max,pauth-impdef=on"],
        },
        &Self {
            name: "armhf",
            build: "armv7",
            kernel: "linux-image-armmp",
            qemu: "qemu-system-arm",
            options: &["-cpu", "cortex-a15"],
        },
    ];
}
