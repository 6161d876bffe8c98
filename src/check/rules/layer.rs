//! The entries of a layer, and the rules about layers: the reasons for which engines refuse one. `check/read`
//! reads layers, and `unpack.rs` unpacks them.

use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::check::rules::tree::{Content, Layer};

/// The longest name of a file (`NAME_MAX`).
pub(super) const NAME_MAX: usize = 255;
/// The longest path, and the longest target of a link, without the NUL (`PATH_MAX`).
pub(super) const PATH_MAX: usize = 4095;
/// The most faults of one layer that are kept.
pub(super) const FAULTS_MAX: usize = 1000;

/// An entry of a layer.
#[derive(Debug)]
pub(crate) struct Member {
    /// The name in the archive. Bytes that are not UTF-8 are escaped.
    pub(crate) name: String,
    pub(crate) kind: MemberKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

/// The type of an entry.
#[derive(Debug)]
pub(crate) enum MemberKind {
    File(Content),
    Directory,
    Link {
        target: String,
    },
    HardLink {
        target: String,
    },
    /// A device, or the whiteout of overlayfs, which is the device 0/0.
    Device {
        whiteout: bool,
    },
    Fifo,
    /// A header about the whole archive; it creates no file.
    Global,
    /// A type that engines do not unpack.
    Unknown {
        flag: u8,
    },
}

/// Why an engine cannot unpack a layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FaultKind {
    #[error("the layer contains this path twice")]
    Twice,
    #[error("the path is below {at:?}, which is {what} in this layer")]
    Below { at: String, what: &'static str },
    #[error("the path is below the link {at:?}, whose target is not in this layer")]
    Behind { at: String },
    #[error("the path leads through too many links")]
    Loop,
    #[error("a name is longer than {NAME_MAX} bytes, or the path is too long for an engine")]
    TooLong,
    #[error("only a directory can replace the rootfs itself")]
    Root,
    #[error("a hard link to {target:?}, which does not come before it in this layer")]
    HardLink { target: String },
    #[error("a hard link to {target:?}, which names a directory")]
    HardLinkToDirectory { target: String },
    #[error("a link without a target, or with a target of more than {PATH_MAX} bytes")]
    Target,
    #[error("a whiteout of a path in this layer")]
    OwnWhiteout,
    #[error("a later entry of this layer removes this directory")]
    DirectoryGone,
    #[error("engines do not unpack entries of type {}", char::from(*flag).escape_default())]
    Unknown { flag: u8 },
    #[error("a sparse file as tar --format=gnu -S writes it, which engines do not unpack")]
    Sparse,
    #[error("the kernel does not accept the extended attribute {name}")]
    Attribute { name: String },
    /// The file is not a layer.
    #[error("{0}")]
    Unreadable(String),
}

/// A fault of a layer, and the path that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: Option<String>,
    pub(crate) kind: FaultKind,
}

/// The facts about the layers of an image that the rules need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LayerFacts {
    pub(crate) refusals: Vec<LayerRefusal>,
    /// Paths that lead out of the rootfs.
    pub(crate) leading_out: Vec<String>,
    /// Layers that are compressed with zstd.
    pub(crate) zstd: Vec<String>,
    /// Whether the files of a layer are not completely known.
    pub(crate) is_unread: bool,
    /// Whether the archive has no end mark, and nothing else shows that it is complete.
    pub(crate) may_be_cut_off: bool,
}

/// Why an engine would not load an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerRefusal {
    pub(crate) layer: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) why: String,
}

impl LayerFacts {
    /// Adds the facts about one layer, and returns the layer itself.
    pub(crate) fn add(&mut self, name: Option<&str>, unpacked: Unpacked) -> Layer {
        self.is_unread |= unpacked.is_unreadable();
        for Fault { path, kind } in unpacked.faults {
            self.refuse(name, path, kind.to_string());
        }
        self.leading_out.extend(unpacked.leads_out);
        unpacked.layer
    }

    pub(crate) fn refuse(&mut self, layer: Option<&str>, path: Option<String>, why: String) {
        if self.refusals.len() < FAULTS_MAX {
            self.refusals.push(LayerRefusal { layer: layer.map(str::to_owned), path, why });
        }
    }
}

/// A layer that has been unpacked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) layer: Layer,
    pub(crate) faults: Vec<Fault>,
    /// The first path that leads out of the rootfs; engines stop at its root.
    pub(crate) leads_out: Option<String>,
}

impl Unpacked {
    /// Whether its files are not completely known.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.kind, FaultKind::Unreadable(_)))
    }
}

/// Applies the rules.
pub(crate) fn check(layers: &LayerFacts, findings: &mut Findings) {
    for LayerRefusal { layer, path, why } in &layers.refusals {
        let message = match layer {
            Some(layer) => format!("in the layer {layer}: {why}"),
            None => why.clone(),
        };
        let fix = "build the image again: engines refuse to load or pull this one";
        match path {
            Some(path) => findings.add_at(Rule::Layer, path, message, fix),
            None => findings.add(Rule::Layer, message, fix),
        }
    }
    for layer in &layers.zstd {
        let message = format!("the layer {layer} is compressed with zstd");
        let fix =
            "compress it with gzip: balenaEngine, and Docker before version 23, cannot unpack it";
        findings.add(Rule::LayerZstd, message, fix);
    }
    for path in &layers.leading_out {
        let message =
            "this path in a layer leads out of the rootfs; engines put the file below the root";
        findings.add_at(Rule::PathOut, path, message, "write the path without ..");
    }
    if layers.may_be_cut_off {
        let message = "the archive has no end mark: files at its end may be missing";
        findings.add(Rule::CutOff, message, "export it again if it was copied or downloaded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;

    #[test]
    fn every_fact_about_the_layers_is_reported() {
        let mut layers = LayerFacts {
            leading_out: vec!["../x".to_owned()],
            zstd: vec!["a.tar".to_owned()],
            may_be_cut_off: true,
            ..LayerFacts::default()
        };
        layers.refuse(Some("a.tar"), Some("usr/x".to_owned()), "twice".to_owned());
        layers.refuse(None, None, "no rootfs".to_owned());
        let mut findings = Findings::default();
        check(&layers, &mut findings);
        assert_eq!(rules(findings), ["layer", "layer", "layer-zstd", "path-out", "cut-off"]);
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum FaultKind {
        Twice, Below { at, what }, Behind { at }, Loop, TooLong, Root, HardLink { target },
        HardLinkToDirectory { target }, Target, OwnWhiteout, DirectoryGone, Unknown { flag }, Sparse,
        Attribute { name }, Unreadable(_),
    }
}
