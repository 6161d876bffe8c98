//! `plan`: what the next boot, or the next OS, will make of the extensions.

mod generated;
mod kernel;
mod reference;
mod stores;
