//! `history`: the events of kernel overrides, the oldest first.

use super::super::{Failure, ManagerExit, Session, print, print_json};
use super::KernelError;
use crate::cli::kernel::HistoryArguments;
use crate::cli::values::OutputFormat;
use crate::host::kernel::history;
use crate::host::kernel::override_store::STATE;
use crate::model::kernel::history::{HistoryEntry, parse};
use crate::model::text::cause::{in_words, on_one_line};
use crate::model::text::cut::short_id;
use serde::Serialize;
use std::fmt::Write as _;

#[derive(Serialize)]
struct HistoryDocument<'a> {
    schema: u32,
    command: &'static str,
    entries: &'a [HistoryEntry],
}

pub(in crate::manager) fn history(
    session: &Session,
    request: &HistoryArguments,
) -> Result<ManagerExit, Failure> {
    let host = &session.host;
    let path = history::path(host);
    let bytes = history::read(host);
    let bytes = bytes.map_err(|error| KernelError::History {
        why: format!("cannot read {path:?}: {}", in_words(&error)),
    })?;
    if bytes.is_empty() && host.lacks_mount(STATE) {
        let why = format!("the state partition is not mounted at {:?}", host.display_path(STATE));
        return Err(KernelError::History { why }.into());
    }
    let (entries, others) = parse(&bytes);
    if others > 0 {
        session.log.warn(&format!("{others} lines of {path:?} cannot be read; they are left out"));
    }
    match request.format {
        OutputFormat::Json => {
            print_json(&HistoryDocument { schema: 1, command: "history", entries: &entries })?;
        }
        OutputFormat::Table => print(&table(&entries))?,
    }
    Ok(ManagerExit::Done)
}

fn table(entries: &[HistoryEntry]) -> String {
    if entries.is_empty() {
        return "nothing is recorded about kernel overrides\n".to_owned();
    }
    let mut text =
        "TIME                  BY              EVENT                  KERNEL        SLOT  DETAIL\n"
            .to_owned();
    for HistoryEntry { time, by, event, abi, slot, detail } in entries {
        let [time, by, event, detail] =
            [time, by, event, detail].map(String::as_str).map(on_one_line);
        let abi = abi.as_deref().map_or_else(|| "-".to_owned(), |abi| on_one_line(short_id(abi)));
        let slot = slot.as_deref().map_or_else(|| "-".to_owned(), on_one_line);
        // A formatter into a String cannot fail.
        let _ = writeln!(text, "{time:<21} {by:<15} {event:<22} {abi:<13} {slot:<5} {detail}");
    }
    text
}
