//! Whether files and directories can be trusted: who owns them, and who else may change them.
//! `host/os/trusted.rs` looks.

use std::fmt;

const ROOT: u32 = 0;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// In such a directory users cannot remove or rename files of other users (inode(7)).
const STICKY: u32 = 0o1000;

/// The owner, group and mode of a file, from stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// Why a file is not believed, as the predicate of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distrust {
    Owner {
        uid: u32,
    },
    Group {
        gid: u32,
        mode: u32,
    },
    Others {
        mode: u32,
    },
    /// Another name may be somewhere else, and have been there first.
    Names,
}

impl fmt::Display for Distrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { uid } => write!(formatter, "belongs to user {uid}"),
            Self::Group { gid, mode } => {
                write!(formatter, "is writable by group {gid} (mode {:04o})", mode & 0o7777)
            }
            Self::Others { mode } => {
                write!(formatter, "is writable by every user (mode {:04o})", mode & 0o7777)
            }
            Self::Names => formatter.write_str("has several hard links"),
        }
    }
}

/// The error of each check is who else may.
impl Ownership {
    /// Whether only `user` (and root, who can do everything) may change the file. Root's own files are
    /// not another user's: what decides what a user's call does must be that user's.
    pub(crate) fn is_of(self, user: u32) -> Result<(), Distrust> {
        self.belongs_to_one_of(&[user])?;
        self.is_written_by_the_owner_alone()
    }

    /// The same where root's files are believed too.
    pub(crate) fn is_of_root_or(self, user: u32) -> Result<(), Distrust> {
        self.belongs_to_one_of(&[ROOT, user])?;
        self.is_written_by_the_owner_alone()
    }

    /// Whether nobody but root and `user` can exchange what they have in this directory. Root's group
    /// counts as root: with umask 002 its directories are writable by it.
    pub(crate) fn is_safe_parent_for(self, user: u32) -> Result<(), Distrust> {
        self.belongs_to_one_of(&[ROOT, user])?;
        if self.mode & STICKY != 0 {
            return Ok(());
        }
        match self.is_written_by_the_owner_alone() {
            Err(Distrust::Group { gid: ROOT, .. }) => Ok(()),
            written => written,
        }
    }

    /// Whether root or `user` has made the file, whoever may write to it. The mode of a link means nothing.
    pub(crate) fn is_made_by_root_or(self, user: u32) -> Result<(), Distrust> {
        self.belongs_to_one_of(&[ROOT, user])
    }

    fn belongs_to_one_of(self, users: &[u32]) -> Result<(), Distrust> {
        if users.contains(&self.uid) { Ok(()) } else { Err(Distrust::Owner { uid: self.uid }) }
    }

    fn is_written_by_the_owner_alone(self) -> Result<(), Distrust> {
        let Self { gid, mode, .. } = self;
        match (mode & OTHERS_WRITE, mode & GROUP_WRITES) {
            (0, 0) => Ok(()),
            (0, _) => Err(Distrust::Group { gid, mode }),
            (_, _) => Err(Distrust::Others { mode }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(uid: u32, gid: u32, mode: u32) -> Ownership {
        Ownership { uid, gid, mode }
    }

    #[test]
    fn only_what_nobody_else_may_change_is_believed() {
        assert_eq!(file(0, 0, 0o40711).is_of(0), Ok(()));
        assert_eq!(file(7, 9, 0o40755).is_of(7), Ok(()));
        assert_eq!(file(0, 0, 0o40711).is_of(7), Err(Distrust::Owner { uid: 0 }));
        assert_eq!(file(7, 7, 0o40700).is_of(0), Err(Distrust::Owner { uid: 7 }));
        let group = Distrust::Group { gid: 0, mode: 0o40770 };
        assert_eq!(file(0, 0, 0o40770).is_of(0), Err(group));
        assert_eq!(file(0, 0, 0o41777).is_of(0), Err(Distrust::Others { mode: 0o41777 }));
        assert_eq!(file(0, 0, 0o100_600).is_of_root_or(7), Ok(()));
        assert_eq!(file(8, 0, 0o100_600).is_of_root_or(7), Err(Distrust::Owner { uid: 8 }));
    }

    #[test]
    fn a_parent_may_be_writable_if_it_is_sticky() {
        let parent = |uid, gid, mode| file(uid, gid, mode).is_safe_parent_for(5);
        assert_eq!(parent(0, 0, 0o41777), Ok(()));
        assert_eq!(parent(5, 5, 0o40700), Ok(()));
        assert_eq!(parent(0, 0, 0o40775), Ok(()));
        assert_eq!(parent(0, 50, 0o40775), Err(Distrust::Group { gid: 50, mode: 0o40775 }));
        assert_eq!(parent(0, 0, 0o40777), Err(Distrust::Others { mode: 0o40777 }));
        assert_eq!(parent(6, 6, 0o41777), Err(Distrust::Owner { uid: 6 }));
    }

    #[test]
    fn a_distrust_says_whose_it_is() {
        assert_eq!(Distrust::Owner { uid: 65534 }.to_string(), "belongs to user 65534");
        let others = Distrust::Others { mode: 0o40777 };
        assert_eq!(others.to_string(), "is writable by every user (mode 0777)");
    }
}
