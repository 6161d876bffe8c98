//! `ps ID`: the proxy's pid, or none. The engines' `top`.

use super::container::Container;
use super::error::Error;
use super::journal::Outcome;
use super::{print, print_json};
use crate::cli::runtime::AnswerFormat;
use crate::host::container::state_dir::StateRoot;
use crate::model::container::id::ContainerId;

pub(super) fn ps(
    root: &StateRoot,
    id: &ContainerId,
    format: AnswerFormat,
) -> Result<Outcome, Error> {
    let proxy = Container::open(root, id)?.proxy;
    let pids: Vec<i32> = proxy.iter().map(|proxy| proxy.pid()).collect();
    match format {
        AnswerFormat::Json => print_json(&pids),
        AnswerFormat::Table => {
            let rows = pids
                .iter()
                .map(|pid| format!("{pid:<8} balena-extension-runtime proxy --id {id}\n"));
            let text: String =
                std::iter::once("PID      COMMAND\n".to_owned()).chain(rows).collect();
            print(&text)
        }
    }
}
