//! The kernel modules that the guest loads, with those that they need.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of these modules below `kernel`, each after those that it needs.
pub(crate) fn in_order(kernel: &Path, names: &[&str]) -> Result<Vec<PathBuf>, String> {
    let mut known = BTreeMap::new();
    collect(&kernel.join("lib/modules"), &mut known)
        .map_err(|error| format!("{}: {error}", kernel.display()))?;
    let mut order = Vec::new();
    for &name in names {
        // What is built into the kernel has no file.
        if known.contains_key(name) {
            add(name, &known, &mut order)?;
        }
    }
    Ok(order)
}

/// All modules, by name.
fn collect(directory: &Path, known: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for item in fs::read_dir(directory)? {
        let path = item?.path();
        if path.symlink_metadata()?.is_dir() {
            collect(&path, known)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
            known.insert(name, path);
        }
    }
    Ok(())
}

fn add(
    name: &str,
    known: &BTreeMap<String, PathBuf>,
    order: &mut Vec<PathBuf>,
) -> Result<(), String> {
    let path = known.get(name).ok_or_else(|| format!("the kernel has no module {name}"))?;
    if order.contains(path) {
        return Ok(());
    }
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for needed in needs(&bytes) {
        add(&needed, known, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// The names behind `depends=` in a module's section `.modinfo`.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).replace('-', "_");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
