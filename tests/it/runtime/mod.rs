//! The runtime: one file a verb, and one for each thing that several verbs share.

mod at_the_limit;
mod bad_input;
mod cgroup;
mod command_line;
mod console;
mod create;
mod delete;
mod environment;
mod features;
mod hook_output;
mod kill;
mod labels;
mod lifecycle;
mod list;
mod log;
mod manager;
mod network;
mod proxy;
mod ps;
mod race;
mod run;
mod sandbox;
mod spec_hooks;
mod start;
mod state;
mod unsupported;
