//! Decides whether an OS update can still roll back. Each boot loader of balenaOS records this in its own file
//! below the boot mount; `host/kernel/boot_mounts.rs` reads the files.

use crate::model::kernel::block::{Block, InvalidBlock, MAX_LEN, UPGRADE_AVAILABLE};

/// The format of a boot loader's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `name=value` lines, as U-Boot imports them.
    Lines,
    /// GRUB's block, which the balena bootloader also uses.
    Block,
}

/// The files below a boot mount, with their formats.
pub(crate) const FILES: [(&str, Form); 5] = [
    ("resinOS_uEnv.txt", Form::Lines),
    ("bootenv", Form::Block),
    ("grubenv", Form::Block),
    ("EFI/BOOT/grubenv", Form::Block),
    ("grub/grubenv", Form::Block),
];

/// A file of a boot loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootFile {
    pub(crate) path: String,
    /// Whether the file says that an update can roll back, or why it cannot be read.
    pub(crate) can_roll_back: Result<bool, String>,
}

/// A boot partition that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootPartition {
    pub(crate) directory: String,
    /// The boot loaders' files that exist.
    pub(crate) files: Vec<BootFile>,
}

/// A directory on which a boot partition may be mounted; `None` if it does not exist. The error is why its files are
/// unknown.
pub(crate) type BootMount = Result<Option<BootPartition>, String>;

/// Whether an OS update can still roll back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rollback {
    Impossible,
    /// This file says so.
    Possible {
        path: String,
    },
    Unknown {
        why: String,
    },
}

impl Rollback {
    /// Decides from all boot mounts. `boot` is `/mnt/boot`; devices with an encrypted boot partition also have
    /// one of the `others`. One file that says so is enough; otherwise every file must be known.
    pub(crate) fn judge(boot: &BootMount, others: &[BootMount]) -> Self {
        let all = || std::iter::once(boot).chain(others);
        let files = || all().flatten().flatten().flat_map(|partition| &partition.files);
        if let Some(file) = files().find(|file| file.can_roll_back == Ok(true)) {
            return Self::Possible { path: file.path.clone() };
        }
        let unread = files().find_map(|file| file.can_roll_back.as_ref().err());
        let unknown = unread.or_else(|| all().find_map(|mount| mount.as_ref().err()));
        match (unknown, boot) {
            (Some(why), _) => Self::Unknown { why: why.clone() },
            (None, Ok(Some(partition))) if files().next().is_none() => {
                let (directory, names) = (&partition.directory, FILES.map(|(name, _)| name));
                Self::Unknown { why: format!("{directory:?} has none of {}", names.join(", ")) }
            }
            (None, _) => Self::Impossible,
        }
    }
}

/// Why the content of a boot loader's file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unclear {
    #[error(transparent)]
    Block(#[from] InvalidBlock),
    #[error("the file has {len} bytes, at most {MAX_LEN} are allowed")]
    TooLong { len: usize },
    #[error("the file is not text")]
    NotText,
    #[error("{UPGRADE_AVAILABLE} is {value:?}, neither 0 nor 1")]
    Value { value: String },
}

/// Whether a file says that an update can roll back.
pub(crate) fn can_roll_back(form: Form, bytes: &[u8]) -> Result<bool, Unclear> {
    match form {
        Form::Block => Ok(Block::parse(bytes)?.can_roll_back()),
        Form::Lines => lines_can_roll_back(bytes),
    }
}

/// Of two lines that set the value, U-Boot takes the last; here any 1 counts.
fn lines_can_roll_back(bytes: &[u8]) -> Result<bool, Unclear> {
    if bytes.len() > MAX_LEN {
        return Err(Unclear::TooLong { len: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Unclear::NotText)?;
    if text.contains('\0') {
        return Err(Unclear::NotText);
    }
    let values = text.lines().filter_map(|line| line.trim().split_once('='));
    let values = values.filter(|(name, _)| name.trim_end() == UPGRADE_AVAILABLE);
    let values: Vec<&str> = values.map(|(_, value)| value.trim()).collect();
    if values.contains(&"1") {
        return Ok(true);
    }
    match values.into_iter().find(|value| !matches!(*value, "" | "0")) {
        Some(value) => Err(Unclear::Value { value: value.chars().take(100).collect() }),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(directory: &str, files: &[Result<bool, &str>]) -> BootMount {
        let files = files.iter().enumerate().map(|(number, said)| BootFile {
            path: format!("{directory}/{number}"),
            can_roll_back: said.map_err(str::to_owned),
        });
        Ok(Some(BootPartition { directory: directory.to_owned(), files: files.collect() }))
    }

    #[test]
    fn one_file_refuses_and_only_all_of_them_allow() {
        let possible = |path: &str| Rollback::Possible { path: path.to_owned() };
        let not_mounted = || Err("no boot partition is mounted".to_owned());
        let open = || mounted("/b", &[Ok(false)]);
        for (boot, others, expected) in [
            (Ok(None), vec![], Rollback::Impossible),
            (open(), vec![], Rollback::Impossible),
            (open(), vec![mounted("/e", &[])], Rollback::Impossible),
            (mounted("/b", &[]), vec![mounted("/e", &[Ok(false)])], Rollback::Impossible),
            (mounted("/b", &[Ok(false), Ok(true)]), vec![], possible("/b/1")),
            (open(), vec![mounted("/e", &[Ok(true)])], possible("/e/0")),
            (mounted("/b", &[Err("torn"), Ok(true)]), vec![], possible("/b/1")),
            (not_mounted(), vec![mounted("/e", &[Ok(true)])], possible("/e/0")),
        ] {
            assert_eq!(Rollback::judge(&boot, &others), expected, "{boot:?} {others:?}");
        }
        for (boot, others, text) in [
            (not_mounted(), vec![], "no boot partition"),
            (not_mounted(), vec![open()], "no boot partition"),
            (open(), vec![not_mounted()], "no boot partition"),
            (mounted("/b", &[]), vec![], "has none of resinOS_uEnv.txt, bootenv"),
            (mounted("/b", &[Ok(false), Err("torn")]), vec![], "torn"),
        ] {
            let Rollback::Unknown { why } = Rollback::judge(&boot, &others) else {
                panic!("{boot:?} {others:?}")
            };
            assert!(why.contains(text), "{why}");
        }
    }

    #[test]
    fn lines_of_u_boot_are_read_like_blocks_of_grub() {
        let value = |value: &str| Unclear::Value { value: value.to_owned() };
        for (text, expected) in [
            ("resin_root_part=3\nupgrade_available=1\n", Ok(true)),
            ("upgrade_available=1", Ok(true)),
            ("upgrade_available=1\r\nupgrade_available=0\n", Ok(true)),
            ("resin_root_part=3\nupgrade_available=0\n", Ok(false)),
            ("resin_root_part=2\n", Ok(false)),
            ("", Ok(false)),
            ("upgrade_available=\n", Ok(false)),
            ("#upgrade_available=1\n", Ok(false)),
            ("x_upgrade_available=1\n", Ok(false)),
            ("upgrade_available=2\n", Err(value("2"))),
            ("upgrade_available=1\0x=2", Err(Unclear::NotText)),
        ] {
            assert_eq!(can_roll_back(Form::Lines, text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(can_roll_back(Form::Lines, b"\xff"), Err(Unclear::NotText));
        let long = vec![b'x'; MAX_LEN + 1];
        assert_eq!(can_roll_back(Form::Lines, &long), Err(Unclear::TooLong { len: long.len() }));
        let block = b"# GRUB Environment Block\nupgrade_available=1\n###";
        assert_eq!(can_roll_back(Form::Block, block), Ok(true));
        assert!(can_roll_back(Form::Block, b"torn").is_err());
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Unclear {
        Block(..), TooLong { len }, NotText, Value { value },
    }
}
