//! The kernels: Debian's, a copy of it with another hash, and one that does not boot.

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::emulated::packages::run;

/// The kernel that an extension brings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Override {
    /// Debian's, with other bytes at the end, which nothing reads.
    Good,
    /// Debian's, whose compressed part does not begin as one: it prints that, and halts.
    Broken,
}

/// What a kernel that does not boot prints at last (`arch/x86/boot/compressed/misc.c`).
pub(crate) const HALTED: &str = "-- System halted";

/// Its file, made of the stock kernel.
pub(crate) fn image(stock: &[u8], kind: Override) -> Vec<u8> {
    let mut image = stock.to_vec();
    match kind {
        Override::Good => image.extend(b"another kernel"),
        Override::Broken => {
            let (payload, _) = payload(stock);
            image[payload..payload + 6].fill(0);
        }
    }
    image
}

/// The name of a kernel.
pub(crate) fn abi(image: &[u8]) -> String {
    Sha256::digest(image).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Offset and length of the compressed part (Documentation/arch/x86/boot.rst: `setup_sects`, `payload_offset`,
/// `payload_length`).
fn payload(image: &[u8]) -> (usize, usize) {
    let field = |at: usize| {
        let bytes = image[at..at + 4].try_into().unwrap();
        usize::try_from(u32::from_le_bytes(bytes)).unwrap()
    };
    let protected_mode = (usize::from(image[0x1f1]) + 1) * 512;
    (protected_mode + field(0x248), field(0x24c))
}

/// Writes the kernel as the firmware may load it: unpacked, which would take the emulated machine 6 s at each boot.
pub(crate) fn unpack(stock: &[u8], to: &Path) -> Result<(), String> {
    let (start, len) = payload(stock);
    let packed = to.with_extension("xz");
    let show = |error| format!("{}: {error}", to.display());
    fs::write(&packed, &stock[start..start + len]).map_err(show)?;
    let unpacked = fs::File::create(to).map_err(show)?;
    // The size of the kernel follows the stream.
    let mut xz = Command::new("xz");
    run(xz.args(["--decompress", "--stdout", "--single-stream"]).arg(&packed).stdout(unpacked))?;
    fs::remove_file(&packed).map_err(show)
}
