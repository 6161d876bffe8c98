//! Where an engine is reached.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where the engine is and how long it may take.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) socket: PathBuf,
    /// For one request.
    pub(crate) patience: Duration,
    /// For all of them.
    pub(crate) deadline: Instant,
}
