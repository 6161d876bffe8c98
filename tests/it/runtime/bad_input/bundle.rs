//! The files of the bundle: `config.json` as a file, and the rootfs it names.

use super::{Afterwards, Check, Row, check};
use crate::container::Container;
use crate::finished::Finished;

/// Replaces `config.json`.
fn config(container: &Container, text: &str) -> Finished {
    std::fs::write(container.path("config.json"), text).unwrap();
    container.create()
}

fn rootfs(container: &Container, path: &str) -> Finished {
    container.configure(|config| config["root"]["path"] = path.into());
    container.create()
}

const CONFIG: &[&str] = &["{bundle}/config.json"];

const FILES: &[Row] = &[
    Row {
        what: "no config.json",
        names: CONFIG,
        explains: &[": missing", "--bundle"],
        call: |c| {
            std::fs::remove_file(c.path("config.json")).unwrap();
            c.create()
        },
    },
    Row {
        what: "no bundle",
        names: CONFIG,
        explains: &[": missing", "--bundle"],
        call: |c| {
            std::fs::remove_dir_all(c.text()).unwrap();
            c.create()
        },
    },
    Row {
        what: "a file as the bundle",
        names: CONFIG,
        explains: &["--bundle"],
        call: |c| {
            std::fs::remove_dir_all(c.text()).unwrap();
            std::fs::write(c.text(), "").unwrap();
            c.create()
        },
    },
    Row {
        what: "config.json is a directory",
        names: CONFIG,
        explains: &["not a regular file"],
        call: |c| {
            std::fs::remove_file(c.path("config.json")).unwrap();
            std::fs::create_dir(c.path("config.json")).unwrap();
            c.create()
        },
    },
    Row {
        what: "config.json is a FIFO",
        names: CONFIG,
        explains: &["not a regular file"],
        call: |c| {
            std::fs::remove_file(c.path("config.json")).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, c.path("config.json"), kind, mode, 0).unwrap();
            c.create()
        },
    },
    Row {
        what: "config.json is empty",
        names: CONFIG,
        explains: &["EOF"],
        call: |c| config(c, ""),
    },
    Row {
        what: "config.json is cut off",
        names: CONFIG,
        explains: &["EOF", "column"],
        call: |c| {
            let text = c.read("config.json");
            config(c, &text[..text.len() / 2])
        },
    },
    Row {
        what: "config.json is no JSON",
        names: CONFIG,
        explains: &["line 1 column"],
        call: |c| config(c, "ociVersion: 1.0.0"),
    },
    Row {
        what: "config.json is another JSON",
        names: CONFIG,
        explains: &["OCI configuration"],
        call: |c| config(c, "[1]"),
    },
    Row {
        what: "config.json is binary",
        names: CONFIG,
        explains: &["line 1 column"],
        call: |c| {
            std::fs::write(c.path("config.json"), b"\xff\xfe\x00").unwrap();
            c.create()
        },
    },
    Row {
        what: "config.json is huge",
        names: CONFIG,
        explains: &["1099511627776 bytes", "16777216"],
        call: |c| {
            let file = std::fs::File::options().write(true).open(c.path("config.json")).unwrap();
            file.set_len(1 << 40).unwrap();
            c.create()
        },
    },
    Row {
        what: "config.json is very deep",
        names: CONFIG,
        explains: &["OCI configuration"],
        call: |c| config(c, &"[".repeat(1_000_000)),
    },
];

const ROOTFS: &[Row] = &[
    Row {
        what: "rootfs missing",
        names: &["{bundle}/none"],
        explains: &["root.path", ": missing"],
        call: |c| rootfs(c, "none"),
    },
    Row {
        what: "absolute rootfs missing",
        names: &["/none/at/all"],
        explains: &["root.path", ": missing"],
        call: |c| rootfs(c, "/none/at/all"),
    },
    Row {
        what: "rootfs a file",
        names: &["{bundle}/config.json"],
        explains: &["root.path", "a directory"],
        call: |c| rootfs(c, "config.json"),
    },
    Row {
        what: "absolute rootfs a file",
        names: &["/etc/passwd"],
        explains: &["root.path", "a directory"],
        call: |c| rootfs(c, "/etc/passwd"),
    },
    Row {
        what: "rootfs below a file",
        names: &["{bundle}/config.json/x"],
        explains: &["root.path", "a directory"],
        call: |c| rootfs(c, "config.json/x"),
    },
    Row {
        what: "rootfs ..",
        names: &["{bundle}"],
        explains: &["root.path", "outside the bundle"],
        call: |c| rootfs(c, ".."),
    },
    Row {
        what: "rootfs climbs out",
        names: &["{bundle}"],
        explains: &["outside the bundle"],
        call: |c| rootfs(c, "rootfs/../../bundle/rootfs/../.."),
    },
    Row {
        what: "rootfs a link out",
        names: &["{bundle}/out"],
        explains: &["outside the bundle"],
        call: |c| {
            std::os::unix::fs::symlink("/", c.path("out")).unwrap();
            rootfs(c, "out")
        },
    },
    Row {
        what: "rootfs through a link out",
        names: &["{bundle}/out/etc"],
        explains: &["outside the bundle"],
        call: |c| {
            std::os::unix::fs::symlink("/", c.path("out")).unwrap();
            rootfs(c, "out/etc")
        },
    },
    Row {
        what: "rootfs a relative link out",
        names: &["{bundle}/out"],
        explains: &["outside the bundle"],
        call: |c| {
            std::os::unix::fs::symlink("../..", c.path("out")).unwrap();
            rootfs(c, "out")
        },
    },
    Row {
        what: "rootfs a loop of links",
        names: &["{bundle}/loop"],
        explains: &["root.path", "symbolic link"],
        call: |c| {
            std::os::unix::fs::symlink("loop", c.path("loop")).unwrap();
            rootfs(c, "loop")
        },
    },
];

#[test]
fn a_config_json_that_cannot_be_read_is_named() {
    check(FILES, Check::Names, Afterwards::Nothing);
}

#[test]
fn a_rootfs_that_cannot_be_used_is_named() {
    check(ROOTFS, Check::Names, Afterwards::Nothing);
}

mod only_ours {
    //! The cause and the fix in the error.

    use super::*;

    #[test]
    fn a_config_json_that_cannot_be_read_is_explained() {
        check(FILES, Check::Explains, Afterwards::Nothing);
    }

    #[test]
    fn a_rootfs_that_cannot_be_used_is_explained() {
        check(ROOTFS, Check::Explains, Afterwards::Nothing);
    }
}
