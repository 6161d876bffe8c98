//! A fact in a JSON document: its value, or `{"unreadable": why}` if it cannot be read.

use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase", untagged)]
pub(super) enum Read<T> {
    Value(T),
    Unreadable { unreadable: String },
}

impl<T> Read<T> {
    pub(super) fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Unreadable { .. } => None,
        }
    }
}

impl<T> From<Result<T, String>> for Read<T> {
    fn from(read: Result<T, String>) -> Self {
        match read {
            Ok(value) => Self::Value(value),
            Err(unreadable) => Self::Unreadable { unreadable },
        }
    }
}
