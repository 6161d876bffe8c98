//! The names in a folder. std's own reader panics when the folder cannot be closed, which would end a verb
//! in the middle of its work.

use std::ffi::CString;
use std::os::fd::AsFd;

/// Every name in a folder but `.` and `..`, in no order.
///
/// # Errors
/// getdents64(2)'s.
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
