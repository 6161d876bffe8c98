//! Kernel overrides. The runtime calls these commands for a container whose image brings a kernel.

pub(super) mod call;
pub(super) mod fabricate;
