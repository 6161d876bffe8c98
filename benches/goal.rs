//! The goals: what was promised, beside what was measured.

/// One promise, and whether the measurement keeps it.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// Other programs kept the machine busy, so a time proves nothing either way.
    Unsure,
}

impl Goal {
    pub(crate) fn new(what: String, measured: String, met: bool) -> Self {
        let verdict = if met { Verdict::Met } else { Verdict::Missed };
        Self { what, measured, verdict }
    }
}

/// Prints the goals in the order of their names.
pub(crate) fn print(mut goals: Vec<Goal>) {
    println!("\nGoals");
    goals.sort_by(|one, other| one.what.cmp(&other.what));
    for Goal { what, measured, verdict } in &goals {
        let verdict = match verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Unsure => "unsure (busy machine)",
        };
        println!("  {verdict:<7} {what}: {measured}");
    }
}
