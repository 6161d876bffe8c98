//! The list of trials, and the extent of a run.

use crate::kind::Kind;
use crate::report::Report;
use crate::swept_verbs::Verb;
use crate::{
    actual_state, crash, cut_commands, cut_faults, cut_sweep, deploy_records, fault, identity,
    many_containers, paused_verb, races, view_killed,
};

/// Runs a trial in its namespaces.
type Run = Box<dyn FnOnce(&mut Report)>;

/// A trial and its name.
pub(crate) type Trial = (String, Run);

/// The extent of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// A representative part, for every change.
    Short,
    /// All of it.
    Full,
}

impl Extent {
    /// The extent that the environment sets.
    pub(crate) fn of_this_run() -> Self {
        match std::env::var("STRESS").as_deref() {
            Err(_) | Ok("" | "short") => Self::Short,
            Ok("full") => Self::Full,
            Ok(other) => panic!("STRESS={other}: it is short or full"),
        }
    }
}

impl Extent {
    /// Whether `verb` is swept with containers of `kind`. A short run has one kind for each verb: the full one
    /// for the verbs that run hooks or undo their work, the bare one for the others.
    fn sweeps(self, verb: Verb, kind: Kind) -> bool {
        let one = match verb {
            Verb::Create | Verb::Start | Verb::Delete | Verb::ForceDelete => Kind::Full,
            Verb::Kill | Verb::Run | Verb::State => Kind::Bare,
        };
        self == Self::Full || kind == one
    }

    /// Whether the processes that `verb` starts are swept as well. Queries start none.
    pub(crate) fn sweeps_children_of(self, verb: Verb) -> bool {
        match self {
            Self::Short => verb == Verb::Create,
            Self::Full => !matches!(verb, Verb::Kill | Verb::State | Verb::Run),
        }
    }

    /// How many of these processes. A short run has the guard of the image's hook and the proxy.
    pub(crate) fn children(self) -> usize {
        match self {
            Self::Short => 2,
            Self::Full => usize::MAX,
        }
    }
}

pub(crate) fn all(extent: Extent) -> Vec<Trial> {
    let mut trials = Vec::new();
    for kind in Kind::ALL {
        for verb in Verb::ALL.into_iter().filter(|&verb| extent.sweeps(verb, kind)) {
            let name = format!("crash::{}::{}", verb.name(), kind.name());
            let run = move |report: &mut Report| crash::sweep_verb(verb, kind, extent, report);
            trials.push((name, Box::new(run) as Run));
            // `run` waits for a sandbox until it is killed, so a run that succeeds never returns. A failure
            // before that is the same with every kind.
            if (verb, kind) == (Verb::Run, Kind::Sandbox) {
                continue;
            }
            let name = format!("fault::{}::{}", verb.name(), kind.name());
            let run = move |report: &mut Report| fault::sweep(verb, kind, extent, report);
            trials.push((name, Box::new(run)));
        }
    }
    type Sweep = fn(Extent, &mut Report);
    let others: [(&str, Sweep); 15] = [
        ("power_cut::planted_faults", cut_faults::are_found),
        ("race::paused_verb", paused_verb::sweep_pairings),
        ("race::creates", races::creates),
        ("race::pairs", races::pairs),
        ("race::chaos", races::chaos),
        ("race::dying_creates", races::dying_creates),
        ("race::hanging_hooks", races::hanging_hooks),
        ("actual_state::starts", actual_state::starts),
        ("deploy_records::obstacles", deploy_records::obstacles),
        ("many_containers::lifecycles", many_containers::lifecycles),
        ("identity::recycled", identity::recycled),
        ("identity::recycled_meanwhile", identity::recycled_meanwhile),
        ("identity::forged", identity::forged),
        ("identity::lock_holders", identity::lock_holders),
        ("view::killed", view_killed::sweep),
    ];
    let slow = (extent == Extent::Full).then_some(cut_commands::SLOW);
    for cut in cut_commands::ALL.into_iter().chain(slow) {
        let run = move |report: &mut Report| cut_sweep::sweep(cut, extent, report);
        trials.push((format!("power_cut::{}", cut.0), Box::new(run)));
    }
    for (name, run) in others {
        trials.push((name.to_owned(), Box::new(move |report: &mut Report| run(extent, report))));
    }
    trials
}
