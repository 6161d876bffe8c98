//! The names in a folder. std's own reader panics when the folder cannot be closed, which would end a verb
//! in the middle of its work.

use rustix::fs::{Mode, OFlags};
use std::ffi::CString;
use std::os::fd::AsFd;

/// Every name in a folder but `.` and `..`, in no order.
pub(crate) fn names(folder: impl AsFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// The numbers among the names in a folder of `/proc`, in no order.
///
/// # Errors
/// The folder cannot be opened or read.
pub(crate) fn numbers(path: &str) -> rustix::io::Result<Vec<i32>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let names = names(rustix::fs::open(path, flags, Mode::empty())?)?;
    Ok(names.iter().filter_map(|name| name.to_str().ok()?.parse().ok()).collect())
}
