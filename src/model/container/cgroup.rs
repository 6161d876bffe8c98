//! `linux.cgroupsPath`: which leaf cgroup the proxy lives in (runtime-spec config-linux.md,
//! "Cgroups Path"). Both forms that engines send are understood: a path, and systemd's
//! `slice:prefix:name`.

/// Why a `cgroupsPath` is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidCgroupsPath {
    #[error("linux.cgroupsPath {path:?} leaves the cgroup hierarchy")]
    Escapes { path: String },
    #[error("linux.cgroupsPath {path:?} names no cgroup below the root")]
    Empty { path: String },
    #[error("linux.cgroupsPath {path:?}: {slice:?} is not the name of a systemd slice")]
    Slice { path: String, slice: String },
    #[error("linux.cgroupsPath {path:?}: {unit:?} is not the name of a systemd unit")]
    Unit { path: String, unit: String },
}

/// The leaf below the root of every hierarchy, without a leading slash.
pub(crate) fn leaf(path: &str) -> Result<String, InvalidCgroupsPath> {
    let parts: Vec<&str> = path.split(':').collect();
    let expanded = match parts.as_slice() {
        [slice, prefix, name] if !path.starts_with('/') => {
            let unit = if name.ends_with(".slice") {
                (*name).to_owned()
            } else if prefix.is_empty() {
                format!("{name}.scope")
            } else {
                format!("{prefix}-{name}.scope")
            };
            // A unit has one directory; directories in between would be left behind.
            if unit.contains('/') {
                return Err(InvalidCgroupsPath::Unit { path: path.to_owned(), unit });
            }
            format!("{}/{unit}", slice_path(path, slice)?)
        }
        _ => path.to_owned(),
    };
    let mut components = Vec::new();
    for component in expanded.split('/') {
        match component {
            "" | "." => {}
            ".." => return Err(InvalidCgroupsPath::Escapes { path: path.to_owned() }),
            component if component.contains('\0') => {
                return Err(InvalidCgroupsPath::Escapes { path: path.to_owned() });
            }
            component => components.push(component),
        }
    }
    if components.is_empty() {
        return Err(InvalidCgroupsPath::Empty { path: path.to_owned() });
    }
    Ok(components.join("/"))
}

/// `a-b.slice` lies in `a.slice/a-b.slice` (systemd.slice(5)).
fn slice_path(path: &str, slice: &str) -> Result<String, InvalidCgroupsPath> {
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let wrong = || InvalidCgroupsPath::Slice { path: path.to_owned(), slice: slice.to_owned() };
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.contains('/')).ok_or_else(wrong)?;
    if stem == "-" {
        return Ok(String::new());
    }
    let mut prefix = String::new();
    let mut expanded = Vec::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(wrong());
        }
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        expanded.push(format!("{prefix}.slice"));
    }
    Ok(expanded.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_a_leaf() {
        for (path, expected) in [
            ("/docker/abc", "docker/abc"),
            ("docker//./abc/", "docker/abc"),
            ("/libpod_parent/libpod-1", "libpod_parent/libpod-1"),
            ("system.slice:docker:abc", "system.slice/docker-abc.scope"),
            (":docker:abc", "system.slice/docker-abc.scope"),
            ("a-b.slice:p:n", "a.slice/a-b.slice/p-n.scope"),
            ("-.slice::n", "n.scope"),
            ("/a:b:c", "a:b:c"),
        ] {
            assert_eq!(leaf(path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn nothing_leaves_the_hierarchy() {
        for path in ["/..", "/a/../b", "../x", "/a\0b", "x.slice:a\0b:y"] {
            assert!(matches!(leaf(path), Err(InvalidCgroupsPath::Escapes { .. })), "{path}");
        }
        assert!(matches!(leaf("/"), Err(InvalidCgroupsPath::Empty { .. })));
        assert!(matches!(leaf("user:p:n"), Err(InvalidCgroupsPath::Slice { .. })));
        assert!(matches!(leaf("a--b.slice:p:n"), Err(InvalidCgroupsPath::Slice { .. })));
        assert!(matches!(leaf("a/b.slice:p:n"), Err(InvalidCgroupsPath::Slice { .. })));
        for path in ["x.slice:../..:y", "x.slice:p/q:n", "x.slice:p:n/m", "x.slice::n/m.slice"] {
            assert!(matches!(leaf(path), Err(InvalidCgroupsPath::Unit { .. })), "{path}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum InvalidCgroupsPath {
        Escapes { path }, Empty { path }, Slice { path, slice }, Unit { path, unit },
    }
}
