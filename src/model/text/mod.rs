//! Text: log lines, errors, JSON, and what may be printed of the text of others.

pub(crate) mod cut;
pub(crate) mod hex;
pub(crate) mod phrase;
pub(crate) mod cause;
pub(crate) mod system_call;
pub(crate) mod log;
pub(crate) mod json_object;
pub(crate) mod go_json;
