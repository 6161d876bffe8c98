//! The properties of `config.json`: missing, of a wrong type, of a wrong value.

use serde_json::{Value, json};

use super::{Afterwards, Check, Row, check};
use crate::container::Container;
use crate::finished::Finished;

/// Sets one property of `config.json`, or removes it.
fn with(container: &Container, property: &str, value: Option<Value>) -> Finished {
    container.configure(|config| match value {
        Some(value) => drop(config.as_object_mut().unwrap().insert(property.to_owned(), value)),
        None => drop(config.as_object_mut().unwrap().remove(property)),
    });
    container.create()
}

fn rootfs(container: &Container, path: &str) -> Finished {
    with(container, "root", Some(json!({ "path": path })))
}

fn hook(container: &Container, hook: Value) -> Finished {
    with(container, "hooks", Some(json!({ "createRuntime": [hook] })))
}

const CONFIG: &[&str] = &["{bundle}/config.json"];

const PROPERTIES: &[Row] = &[
    Row {
        what: "a root that is an array",
        names: &["{bundle}/config.json"],
        explains: &["invalid type: sequence, expected an object"],
        call: |c| with(c, "root", Some(json!(["rootfs"]))),
    },
    Row {
        what: "a mount that is an array",
        names: &["{bundle}/config.json"],
        explains: &["invalid type: sequence, expected an object"],
        call: |c| with(c, "mounts", Some(json!([["/boot", "/boot"]]))),
    },
    Row {
        what: "no ociVersion",
        names: &["{bundle}/config.json", "ociVersion"],
        explains: &["no ociVersion"],
        call: |c| with(c, "ociVersion", None),
    },
    Row {
        what: "ociVersion 2.0.0",
        names: &["ociVersion", "2.0.0"],
        explains: &["unsupported", "1.x"],
        call: |c| with(c, "ociVersion", Some("2.0.0".into())),
    },
    Row {
        what: "ociVersion 0.9.0",
        names: &["ociVersion", "0.9.0"],
        explains: &["unsupported", "1.x"],
        call: |c| with(c, "ociVersion", Some("0.9.0".into())),
    },
    Row {
        what: "ociVersion not SemVer",
        names: &["ociVersion"],
        explains: &["\"1.0\"", "SemVer"],
        call: |c| with(c, "ociVersion", Some("1.0".into())),
    },
    Row {
        what: "ociVersion a number",
        names: CONFIG,
        explains: &["expected a string"],
        call: |c| with(c, "ociVersion", Some(1.into())),
    },
    Row {
        what: "no process",
        names: &["{bundle}/config.json", "process"],
        explains: &["CMD"],
        call: |c| with(c, "process", None),
    },
    Row {
        what: "process null",
        names: &["{bundle}/config.json", "process"],
        explains: &["CMD"],
        call: |c| with(c, "process", Some(Value::Null)),
    },
    Row {
        what: "process a number",
        names: CONFIG,
        explains: &["invalid type: integer `7`"],
        call: |c| with(c, "process", Some(7.into())),
    },
    Row {
        what: "terminal a string",
        names: CONFIG,
        explains: &["\"yes\"", "boolean"],
        call: |c| with(c, "process", Some(json!({ "terminal": "yes" }))),
    },
    Row {
        what: "no root",
        names: &["{bundle}/config.json", "root.path"],
        explains: &["no root.path"],
        call: |c| with(c, "root", None),
    },
    Row {
        what: "root without a path",
        names: &["root.path"],
        explains: &["no root.path"],
        call: |c| with(c, "root", Some(json!({}))),
    },
    Row {
        what: "root.path empty",
        names: &["root.path"],
        explains: &["no root.path"],
        call: |c| rootfs(c, ""),
    },
    Row {
        what: "root a string",
        names: CONFIG,
        explains: &["invalid type: string"],
        call: |c| with(c, "root", Some("rootfs".into())),
    },
    Row {
        what: "annotations a list",
        names: CONFIG,
        explains: &["invalid type: sequence"],
        call: |c| with(c, "annotations", Some(json!([1]))),
    },
    Row {
        what: "an annotation a number",
        names: CONFIG,
        explains: &["invalid type: integer `1`"],
        call: |c| with(c, "annotations", Some(json!({ "a": 1 }))),
    },
    Row {
        what: "mounts a string",
        names: CONFIG,
        explains: &["invalid type: string"],
        call: |c| with(c, "mounts", Some("/x".into())),
    },
    Row {
        what: "a mount without a destination",
        names: &["destination"],
        explains: &["missing field"],
        call: |c| with(c, "mounts", Some(json!([{}]))),
    },
    Row {
        what: "namespaces a string",
        names: CONFIG,
        explains: &["invalid type: string"],
        call: |c| with(c, "linux", Some(json!({ "namespaces": "network" }))),
    },
    Row {
        what: "cgroupsPath a number",
        names: CONFIG,
        explains: &["invalid type: integer `3`"],
        call: |c| with(c, "linux", Some(json!({ "cgroupsPath": 3 }))),
    },
    Row {
        what: "hooks a list",
        names: CONFIG,
        explains: &["config.json"],
        call: |c| with(c, "hooks", Some(json!(["/bin/true"]))),
    },
    Row {
        what: "a hook a string",
        names: CONFIG,
        explains: &["invalid type: string"],
        call: |c| hook(c, "/bin/true".into()),
    },
    Row {
        what: "a hook without a path",
        names: &["path"],
        explains: &["missing field"],
        call: |c| hook(c, json!({ "args": ["x"] })),
    },
    Row {
        what: "a hook with a relative path",
        names: &["createRuntime", "bin/true"],
        explains: &["must be absolute"],
        call: |c| hook(c, json!({ "path": "bin/true" })),
    },
    Row {
        what: "a hook with timeout 0",
        names: &["createRuntime", "timeout"],
        explains: &["above zero"],
        call: |c| hook(c, json!({ "path": "/bin/true", "timeout": 0 })),
    },
    Row {
        what: "a hook with timeout -1",
        names: &["createRuntime", "timeout"],
        explains: &["-1", "above zero"],
        call: |c| hook(c, json!({ "path": "/bin/true", "timeout": -1 })),
    },
    Row {
        what: "a hook with a NUL byte",
        names: &["createRuntime"],
        explains: &["NUL byte"],
        call: |c| hook(c, json!({ "path": "/bin/true", "args": ["a\0b"] })),
    },
    Row {
        what: "root.path with a NUL byte",
        names: &["root.path"],
        explains: &["NUL byte"],
        call: |c| rootfs(c, "root\0fs"),
    },
];

#[test]
fn a_config_json_that_is_wrong_is_named_with_its_property() {
    check(PROPERTIES, Check::Names, Afterwards::Nothing);
}

mod only_ours {
    //! The cause and the fix in the error.

    use super::*;

    #[test]
    fn a_config_json_that_is_wrong_is_explained() {
        check(PROPERTIES, Check::Explains, Afterwards::Nothing);
    }
}
