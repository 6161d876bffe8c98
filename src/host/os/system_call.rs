//! A system call as a step of a longer work, whose error names the call and what it was for.

use crate::model::text::system_call::RefusedCall;

pub(crate) fn step<T>(
    call: &str,
    purpose: impl AsRef<str>,
    result: rustix::io::Result<T>,
) -> Result<T, RefusedCall> {
    result.map_err(|error| RefusedCall::new(call, purpose.as_ref(), &error.into()))
}
