//! `ps ID`: the proxy's pid, or none. The engines' `top`.

use super::{Context, Outcome, observe, print, print_json, state};
use crate::cli::runtime::PsFormat;
use crate::model::container::id::ContainerId;

pub(super) fn ps(context: &Context<'_>, id: &ContainerId, format: PsFormat) -> Outcome {
    let state = state::load(context, id)?;
    let (proxy, _) = observe(&state)?;
    let pids: Vec<i32> = proxy.iter().map(|proxy| proxy.pid()).collect();
    match format {
        PsFormat::Json => Ok(print_json(&pids)?),
        PsFormat::Table => {
            let rows = pids
                .iter()
                .map(|pid| format!("{pid:<8} balena-extension-runtime proxy --id {id}\n"));
            let text: String =
                std::iter::once("PID      COMMAND\n".to_owned()).chain(rows).collect();
            Ok(print(&text)?)
        }
    }
}
