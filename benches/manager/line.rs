//! One line of a table: the cost of a run, beside the engine's.

use std::time::Duration;

use super::cost::Cost;
use crate::goal::Goal;

/// The manager uses less than this share of the processor time that the engine uses for its requests.
const OWN_TIME_AT_MOST: f64 = 0.05;

pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) cost: Cost,
    /// The engine's processor time, unless it is the recorded engine.
    pub(crate) engine: Option<Duration>,
    pub(crate) requests: usize,
}

impl Line<'_> {
    pub(crate) fn title() {
        println!(
            "{:<32}{:>10}{:>12}{:>14}{:>10}{:>12}{:>10}{:>12}",
            "",
            "requests",
            "wall, ms",
            "engine, ms",
            "own, ms",
            "(in kernel)",
            "share",
            "peak, KiB"
        );
    }

    pub(crate) fn print(&self) {
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        let engine = self.engine.map_or_else(|| "-".to_owned(), ms);
        let share = self.share().map_or_else(|| "-".to_owned(), percent);
        let Cost { wall, cpu, system, peak_kib } = self.cost;
        println!(
            "{:<32}{:>10}{:>12}{engine:>14}{:>10}{:>12}{share:>10}{peak_kib:>12}",
            self.name,
            self.requests,
            ms(wall),
            ms(cpu),
            ms(system)
        );
    }

    pub(crate) fn own_time_goal(&self) -> Option<Goal> {
        let share = self.share()?;
        let limit = OWN_TIME_AT_MOST * 100.0;
        Some(Goal::new(
            format!("{}: own time below {limit:.0} % of the engine's", self.name),
            percent(share),
            share < OWN_TIME_AT_MOST,
        ))
    }

    fn share(&self) -> Option<f64> {
        Some(self.cost.cpu.as_secs_f64() / self.engine?.as_secs_f64())
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
