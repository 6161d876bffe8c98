//! The kernel and the modules in the merged layers of an extension or of the OS. `kernel_image.rs` reads the same of an
//! image that is mounted.

use crate::host::engine::merged_layers::{LayerDirectory, MergedEntry, entries, find};
use crate::host::kernel::kernel_image::{self, MODULES, SYMBOLS};
use crate::model::engine::boot_selection::BroughtModules;
use crate::model::extension::claim::Running;
use crate::model::text::cause::in_words;
use rustix::fs::FileType;
use std::io;
use std::os::fd::AsFd as _;

/// The path at which the kernel, and so the initramfs, looks for modules.
const MODULES_OF_KERNEL: &str = "lib/modules";

/// For which kernel an extension has modules. `open` opens its layers, the topmost first.
///
/// # Errors
/// What a decision would depend on cannot be read.
pub(crate) fn brought_modules(
    open: impl Fn() -> Result<Vec<LayerDirectory>, String>,
    booted: &Running,
) -> Result<BroughtModules, String> {
    let Ok(release) = &booted.kernel_release else {
        let modules = directories(open()?, MODULES_OF_KERNEL)?;
        return match (modules.is_empty(), &booted.kernel_release) {
            (false, Err(why)) => Err(why.clone()),
            (_, _) => Ok(BroughtModules::Unrelated),
        };
    };
    let modules = find(open()?, &format!("{MODULES_OF_KERNEL}/{release}"));
    match modules.map_err(|error| unread(&error))? {
        Some(MergedEntry::Directory(_)) => {}
        Some(MergedEntry::Other { .. }) | None => return Ok(BroughtModules::Unrelated),
    }
    let Some(abi) = booted.abi.as_ref().map_err(Clone::clone)? else {
        return Ok(BroughtModules::KernelMissing);
    };
    let boot = find(open()?, "boot").map_err(|error| unread(&error))?;
    let Some(MergedEntry::Directory(boot)) = boot else {
        return Ok(BroughtModules::KernelMissing);
    };
    let mut unread_kernel = None;
    for (_, entry) in entries(&boot).map_err(|error| unread(&error))? {
        let MergedEntry::Other { folder, name, kind: FileType::RegularFile, .. } = entry else {
            continue;
        };
        let Ok(name) = name.to_str() else { continue };
        match kernel_image::hash_of(folder.as_fd(), name) {
            Ok(Some(hash)) if hash == *abi => return Ok(BroughtModules::KernelInBoot),
            Ok(_) => {}
            Err(error) => {
                unread_kernel =
                    Some(format!("its boot/{name} cannot be read: {}", in_words(&error)));
            }
        }
    }
    match unread_kernel {
        Some(why) => Err(why),
        None => Ok(BroughtModules::KernelMissing),
    }
}

/// The file or directory by which an extension brings a kernel or its modules, if it does.
pub(crate) fn brought_files(
    open: impl Fn() -> Result<Vec<LayerDirectory>, String>,
) -> Result<Option<String>, String> {
    let boot = find(open()?, "boot").map_err(|error| unread(&error))?;
    if let Some(MergedEntry::Directory(boot)) = boot {
        for (name, entry) in entries(&boot).map_err(|error| unread(&error))? {
            if let MergedEntry::Other { kind: FileType::RegularFile, .. } = entry {
                return Ok(Some(format!("/boot/{}", name.to_string_lossy())));
            }
        }
    }
    for modules in MODULES {
        if let Some(release) = directories(open()?, modules)?.first() {
            return Ok(Some(format!("/{modules}/{release}")));
        }
    }
    Ok(None)
}

/// The releases for which an OS has modules.
pub(crate) fn releases(os: Vec<LayerDirectory>) -> Result<Vec<String>, String> {
    directories(os, MODULES_OF_KERNEL)
}

/// The release of the kernel that an extension brings: the first directory of modules with the symbols of its kernel.
pub(crate) fn release(
    open: impl Fn() -> Result<Vec<LayerDirectory>, String>,
) -> Result<Option<String>, String> {
    for modules in MODULES {
        for release in directories(open()?, modules)? {
            let symbols = find(open()?, &format!("{modules}/{release}/{SYMBOLS}"));
            if let Some(MergedEntry::Other { kind: FileType::RegularFile, .. }) =
                symbols.map_err(|error| unread(&error))?
            {
                return Ok(Some(release));
            }
        }
    }
    Ok(None)
}

/// The names of the directories in the directory `path`, in their order; none if it is missing.
fn directories(stack: Vec<LayerDirectory>, path: &str) -> Result<Vec<String>, String> {
    let found = find(stack, path).map_err(|error| unread(&error))?;
    let Some(MergedEntry::Directory(parts)) = found else { return Ok(Vec::new()) };
    let entries = entries(&parts).map_err(|error| unread(&error))?.into_iter();
    let directories = entries.filter(|(_, entry)| matches!(entry, MergedEntry::Directory(_)));
    Ok(directories.map(|(name, _)| name.to_string_lossy().into_owned()).collect())
}

fn unread(error: &io::Error) -> String {
    format!("its layers cannot be read: {}", in_words(error))
}
