//! The command line of `try`: an extension that is not deployed, and the command that is run with it.

use crate::cli::check::label;
use clap::{Args, ValueHint};
use std::ffi::OsString;

/// Run a command with an extension that is not deployed, in a root filesystem as the next boot would make it
///
/// The root filesystem has the OS and the extensions that plan would layer, with the image or the directory as if it were
/// deployed too. It is read-only, and so are the host's other mounts in it, except a new /tmp and /dev/shm. It is private to
/// the command and the processes that it starts: when the command ends, they are killed, and nothing is left. This is a
/// view and not a sandbox: the command is root, and sockets and devices are the host's. An image is read from the engine's
/// store (overlay2), so the engine may be down. docs/try.md explains the limits.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  balena-extension-manager try my/image:1.2 -- /usr/bin/tool --version
  balena-extension-manager try ./rootfs --label io.balena.image.override=1 --writable
  balena-extension-manager try my/image:1.2 --with other-extension -- sh -c 'cat /etc/other.conf'

Exit status: that of the command, or 128 and the number of the signal that killed it; 125 if there is no such view, \
126 if the command cannot be executed, 127 if it is missing, 2 for an invalid command line.")]
pub(crate) struct TryArguments {
    /// The name, the id or the beginning of the id of an image in the engine's store; or a directory with the
    /// files of an extension, whose path begins with / or a dot
    #[arg(value_name = "IMAGE|DIR", value_hint = ValueHint::AnyPath)]
    pub(crate) subject: String,
    /// Of the deployed extensions only this one: an id, a name, or the beginning of an id; repeat it for several
    /// [default: all that plan would layer]
    #[arg(long, value_name = "ID")]
    pub(crate) with: Vec<String>,
    /// Let the command write to the root filesystem; all changes are in memory, and end with it
    #[arg(long)]
    pub(crate) writable: bool,
    /// Accept an extension that brings a kernel, as if it only brought the files
    #[arg(long)]
    pub(crate) without_kernel: bool,
    /// Add a label that the image will have, or replace one; repeat it for several
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// The command and its arguments [default: the program that SHELL names, else /bin/sh]
    #[arg(value_name = "COMMAND", last = true, value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}
