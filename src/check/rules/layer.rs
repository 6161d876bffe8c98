//! What a layer is made of, and what engines refuse of it: the words between `check/read`, which reads
//! layers, `unpack.rs` beside this file, which unpacks them, and the rules in `layers.rs`.

use crate::check::rules::tree::{Content, Layer};

/// The longest name of a file (`NAME_MAX`).
pub(super) const NAME_MAX: usize = 255;
/// The longest path and the longest target of a link that the kernel takes, less its NUL.
pub(super) const PATH_MAX: usize = 4095;
/// How many faults of one layer are kept.
pub(super) const FAULTS_MAX: usize = 1000;

/// An entry of the archive.
#[derive(Debug)]
pub(crate) struct Member {
    /// As it stands in the archive, what is not UTF-8 escaped.
    pub(crate) name: String,
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug)]
pub(crate) enum What {
    File(Content),
    Folder,
    Link {
        target: String,
    },
    HardLink {
        target: String,
    },
    /// A device, or the whiteout of overlayfs, which has the numbers 0/0.
    Device {
        whiteout: bool,
    },
    Fifo,
    /// A header about the whole archive, which no file comes from.
    Global,
    /// A kind that engines do not unpack.
    Unknown {
        flag: u8,
    },
}

/// Why an engine cannot unpack a layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    #[error("the same path stands in the layer twice")]
    Twice,
    #[error("it lies below {at:?}, which is {what} in the same layer")]
    Below { at: String, what: &'static str },
    #[error("it lies behind the link {at:?}, which leads to nothing in the same layer")]
    Behind { at: String },
    #[error("too many links lead there")]
    Loop,
    #[error("a name in it is longer than {NAME_MAX} bytes, or all of it too long for an engine")]
    TooLong,
    #[error("only a folder can stand in the place of the rootfs itself")]
    Root,
    #[error("it is a hard link to {target:?}, which the same layer does not have before it")]
    HardLink { target: String },
    #[error("it is a hard link to {target:?}, which is a folder")]
    HardLinkToFolder { target: String },
    #[error("it is a link without a target, or with one of more than {PATH_MAX} bytes")]
    Target,
    #[error("it is a whiteout of something that the same layer has")]
    OwnWhiteout,
    #[error("a later entry of the layer takes this folder away")]
    FolderGone,
    #[error("its type {} is not one that engines unpack", char::from(*flag).escape_default())]
    Unknown { flag: u8 },
    #[error("it is a sparse file as tar --format=gnu -S writes it, which engines do not unpack")]
    Sparse,
    #[error("the kernel does not take its extended attribute {name}")]
    Attribute { name: String },
    /// The bytes themselves are not a layer.
    #[error("{0}")]
    Unreadable(String),
}

/// What is wrong with a layer, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: Option<String>,
    pub(crate) why: Why,
}

/// What engines would refuse of an image's layers, and what else is to be said of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LayerFacts {
    pub(crate) refusals: Vec<Refusal>,
    /// Paths that lead out of the rootfs.
    pub(crate) climbing: Vec<String>,
    /// Layers that are compressed with zstd.
    pub(crate) zstd: Vec<String>,
    /// Whether the files of a layer are not known whole.
    pub(crate) is_unread: bool,
    /// Whether the end of the archive is not marked as such, and nothing else tells where it is.
    pub(crate) may_be_cut_off: bool,
}

/// Why an engine would not load an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) layer: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) why: String,
}

impl LayerFacts {
    /// Takes over what is known of one layer, and hands out the layer itself.
    pub(crate) fn add(&mut self, name: Option<&str>, unpacked: Unpacked) -> Layer {
        for Fault { path, why } in unpacked.faults {
            self.is_unread |= matches!(why, Why::Unreadable(_));
            self.refuse(name, path, why.to_string());
        }
        self.climbing.extend(unpacked.climbs);
        unpacked.layer
    }

    /// Keeps a refusal.
    pub(crate) fn refuse(&mut self, layer: Option<&str>, path: Option<String>, why: String) {
        if self.refusals.len() < FAULTS_MAX {
            self.refusals.push(Refusal { layer: layer.map(str::to_owned), path, why });
        }
    }
}

/// A layer that has been unpacked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) layer: Layer,
    pub(crate) faults: Vec<Fault>,
    /// The first path that leads out of the rootfs; engines stop at its root.
    pub(crate) climbs: Option<String>,
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Why {
        Twice, Below { at, what }, Behind { at }, Loop, TooLong, Root, HardLink { target },
        HardLinkToFolder { target }, Target, OwnWhiteout, FolderGone, Unknown { flag }, Sparse,
        Attribute { name }, Unreadable(_),
    }
}
