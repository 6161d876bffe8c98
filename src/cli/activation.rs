//! The commands of the manager that the runtime starts for a container whose image brings a kernel. They are not in the
//! help: what they need, only a runtime of the same version knows.

use crate::cli::check::label;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The first word of such a call.
pub(crate) const COMMAND: &str = "kernel";

/// What the runtime wants.
#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Copy the kernel of an image into a volume
    Fabricate(OfContainer),
    /// Publish and arm the kernel of an image
    Activate(OfContainer),
}

/// The container, as the runtime has found it.
#[derive(Debug, Args)]
pub(crate) struct OfContainer {
    /// The version of the runtime
    #[arg(long, value_name = "VERSION")]
    pub(crate) caller: String,
    /// The id of the container
    #[arg(long, value_name = "ID")]
    pub(crate) container: String,
    /// The rootfs, in this mount namespace
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: PathBuf,
    /// The identity of the engine's data root in the runtime's mount namespace
    #[arg(long, value_name = "DEVICE:INODE")]
    pub(crate) docker_root_is: Option<String>,
    /// The volume for the kernel
    #[arg(long, value_name = "NAME")]
    pub(crate) volume: Option<String>,
    /// A label of the image
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
}

impl OfContainer {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, text)| text.as_str())
    }
}
