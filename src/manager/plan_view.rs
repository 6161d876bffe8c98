//! The answer of `plan`, as JSON and as a table. docs/plan.md describes the fields.

use super::inspected::InventorySource;
use super::next_boot::{NextBoot, OS};
use super::readable::Read;
use super::space::StaleOs;
use super::status::stale_os_line;
use crate::host::engine::hidden_files::HiddenPath;
use crate::host::engine::stored_containers::DataRoot;
use crate::model::engine::boot_overlay::OverlayPlace;
use crate::model::engine::boot_plan::{BootPlan, PlanOutcome, PlannedExtension, Prediction};
use crate::model::engine::space::{ExtensionSpace, ObjectSizes};
use crate::model::engine::verdict::Verdict;
use crate::model::text::cause::on_one_line;
use crate::model::text::cut::{self, short_id};
use serde::Serialize;
use std::fmt::Write as _;

/// Everything that the answer shows.
pub(super) struct Prospect<'a> {
    pub(super) planned: &'a [PlannedExtension<'a>],
    pub(super) plan: &'a BootPlan,
    pub(super) next: &'a NextBoot,
    pub(super) root: &'a DataRoot,
    pub(super) sizes: &'a ObjectSizes,
    pub(super) hidden: &'a [HiddenPath],
    pub(super) unknown_files: Vec<String>,
    pub(super) unreadable: &'a [String],
    pub(super) source: InventorySource,
    pub(super) stale_os: Result<StaleOs, String>,
    /// How many paths are listed of each extension.
    pub(super) most_paths: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlanView<'a> {
    schema: u32,
    command: &'static str,
    source: InventorySource,
    system: SystemView,
    /// Why nothing is layered at all.
    nothing_layered: Read<Option<String>>,
    page_size: usize,
    os_layers: usize,
    /// Whether the number of the OS's layers is not known, but assumed.
    os_layers_assumed: bool,
    lowerdir: &'a str,
    /// The length that is compared with the page size.
    length: usize,
    /// The longest that fits.
    length_max: usize,
    layers: Vec<LayerView<'a>>,
    extensions: Vec<PlannedView<'a>>,
    /// Why some files that are hidden may be missing here.
    unknown_files: Vec<String>,
    unreadable: &'a [String],
    /// The ids of the extensions that are applied now, or may be, and will not be layered, or may not be.
    lost: Vec<&'a str>,
    stale_os: Read<StaleOs>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SystemView {
    os_version: Read<String>,
    kernel_release: Read<String>,
    /// `None` for the OS's stock kernel.
    kernel_abi: Read<Option<String>>,
}

/// A layer of the overlay, the topmost first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LayerView<'a> {
    link: &'a str,
    /// `None` for the OS.
    extension: Option<&'a str>,
    /// `None` for the OS.
    directory: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlannedView<'a> {
    /// From 1, the topmost; `None` if it is not in the overlay, or if that is unknown.
    order: Option<usize>,
    id: &'a str,
    name: &'a str,
    image: &'a str,
    /// `None` if it is not in the overlay, or if that is unknown.
    place: Option<OverlayPlace>,
    plan: PlanOutcome,
    reason: &'static str,
    detail: &'a str,
    next: &'a str,
    /// The verdict on the running system.
    now: Verdict,
    lost: bool,
    layers: Option<usize>,
    hides: Paths<'a>,
    hidden: Paths<'a>,
    #[serde(flatten)]
    space: ExtensionSpace,
}

/// Paths that are hidden.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Paths<'a> {
    count: usize,
    /// The first ones, or all.
    paths: Vec<PathView<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PathView<'a> {
    path: &'a str,
    /// The id of the other extension; `None` for the OS.
    extension: Option<&'a str>,
    #[serde(skip)]
    name: &'a str,
}

impl<'a> PlanView<'a> {
    pub(super) fn new(prospect: Prospect<'a>) -> Self {
        let Prospect { planned, plan, next, root, .. } = prospect;
        let id = |number: usize| planned.get(number).map(|one| one.container.id.as_str());
        let store = root.host.display_path(&root.path).join("overlay2");
        let layers = plan.overlay.layers.iter().map(|layer| LayerView {
            link: &layer.link,
            extension: layer.member.and_then(id),
            directory: layer
                .member
                .map(|_| store.join(&layer.name).join("diff").display().to_string()),
        });
        let mut order = 0;
        let extensions: Vec<PlannedView<'a>> = plan
            .predictions
            .iter()
            .filter_map(|prediction| {
                let is_there =
                    matches!(prediction.place, Some(OverlayPlace::AboveOs | OverlayPlace::BelowOs));
                order += usize::from(is_there);
                PlannedView::new(&prospect, prediction, is_there.then_some(order))
            })
            .collect();
        let target = &next.target;
        let system = target.system.clone();
        Self {
            schema: 1,
            command: "plan",
            source: prospect.source,
            system: SystemView {
                os_version: system.os_version.into(),
                kernel_release: system.kernel_release.into(),
                kernel_abi: system.abi.into(),
            },
            nothing_layered: target.nothing_layered.clone().into(),
            page_size: target.page,
            os_layers: target.os_layers,
            os_layers_assumed: next.assumes_os_layers,
            lowerdir: &plan.overlay.option,
            length: plan.overlay.measured,
            // Shorter than the page without the byte that ends the string.
            length_max: target.page.saturating_sub(2),
            layers: layers.collect(),
            lost: extensions.iter().filter(|one| one.lost).map(|one| one.id).collect(),
            extensions,
            unknown_files: prospect.unknown_files,
            unreadable: prospect.unreadable,
            stale_os: prospect.stale_os.into(),
        }
    }

    /// Whether everything that is applied will be layered, as far as can be seen.
    pub(super) fn is_safe(&self) -> bool {
        self.lost.is_empty() && self.unreadable.is_empty()
    }

    pub(super) fn text(&self) -> String {
        // A formatter into a String cannot fail.
        let mut text = format!("the next boot: {}\n", self.system_line());
        match &self.nothing_layered {
            Read::Value(None) => {}
            Read::Value(Some(why)) => {
                let _ = writeln!(text, "no extension will be layered: {}", on_one_line(why));
            }
            Read::Unreadable { unreadable } => {
                let why = on_one_line(unreadable);
                let _ = writeln!(text, "unknown whether any extension will be layered: {why}");
            }
        }
        if self.extensions.is_empty() && self.unreadable.is_empty() {
            return text + "\nthere are no extensions\n";
        }
        text += "\nORDER  ID            NAME                      PLAN      PLACE         SIZE  REASON\n";
        for one in &self.extensions {
            let order = one.order.map_or_else(|| "-".to_owned(), |order| order.to_string());
            let (id, name) = (short_id(one.id), on_one_line(one.name));
            let place = one.place.map_or("-", OverlayPlace::in_words);
            let size = one.space.all().map_or_else(|| "unknown".to_owned(), cut::size);
            let _ = writeln!(
                text,
                "{order:<6} {id:<13} {name:<25} {:<9} {place:<9} {size:>8}  {}",
                one.plan, one.reason
            );
        }
        for one in &self.extensions {
            text += &one.details();
        }
        for why in &self.unknown_files {
            let _ = writeln!(text, "\nsome hidden files are unknown: {}", on_one_line(why));
        }
        for why in self.unreadable {
            let _ = writeln!(text, "\nunknown: {}", on_one_line(why));
        }
        text += &self.option_lines();
        text += &self.stale_os_line();
        if !self.lost.is_empty() {
            let lost = self.extensions.iter().filter(|one| one.lost).map(PlannedView::subject);
            let lost: Vec<String> = lost.collect();
            let _ = writeln!(
                text,
                "\napplied now, but will not be layered or may not be: {}",
                lost.join(", ")
            );
        }
        text
    }

    fn system_line(&self) -> String {
        let shown = |fact: &Read<String>| match fact {
            Read::Value(fact) => on_one_line(fact.as_str()),
            Read::Unreadable { unreadable } => format!("unknown ({})", on_one_line(unreadable)),
        };
        let SystemView { os_version, kernel_release, kernel_abi } = &self.system;
        let kernel = match kernel_abi {
            Read::Value(None) => "the OS's stock kernel".to_owned(),
            Read::Value(Some(abi)) => format!("the override {}", short_id(abi)),
            Read::Unreadable { unreadable } => {
                format!("unknown whether that is an override ({})", on_one_line(unreadable))
            }
        };
        format!("OS {}, kernel {}, {kernel}", shown(os_version), shown(kernel_release))
    }

    fn option_lines(&self) -> String {
        let Self { lowerdir, length, length_max, os_layers, .. } = self;
        let mut text = format!("\n{lowerdir}\n{length} of at most {length_max} bytes; ");
        text += &match (os_layers, self.os_layers_assumed) {
            (count, true) => {
                format!("unknown how many layers the OS has, assumed {count} (--os-layers)\n")
            }
            (1, false) => "the OS has 1 layer\n".to_owned(),
            (count, false) => format!("the OS has {count} layers\n"),
        };
        text
    }

    fn stale_os_line(&self) -> String {
        let line = match &self.stale_os {
            Read::Value(stale_os) => stale_os_line(Ok(stale_os)),
            Read::Unreadable { unreadable } => stale_os_line(Err(unreadable)),
        };
        line.unwrap_or_default()
    }
}

impl<'a> PlannedView<'a> {
    fn new(
        prospect: &Prospect<'a>,
        prediction: &'a Prediction,
        order: Option<usize>,
    ) -> Option<Self> {
        let planned = prospect.planned.get(prediction.number)?;
        let container = planned.container;
        let paths = |is_own: &dyn Fn(&HiddenPath) -> bool, other: &dyn Fn(&HiddenPath) -> usize| {
            let all: Vec<&HiddenPath> =
                prospect.hidden.iter().filter(|hidden| is_own(hidden)).collect();
            let shown = all.iter().take(prospect.most_paths).map(|hidden| {
                let other = other(hidden);
                let other = prospect.planned.get(other).filter(|_| other != OS);
                PathView {
                    path: &hidden.path,
                    extension: other.map(|one| one.container.id.as_str()),
                    name: other.map_or("the OS", |one| one.container.name.as_str()),
                }
            });
            Paths { count: all.len(), paths: shown.collect() }
        };
        let number = prediction.number;
        Some(Self {
            order,
            id: &container.id,
            name: &container.name,
            image: &container.image,
            place: prediction.place.filter(|place| *place != OverlayPlace::Pruned),
            plan: prediction.reason.outcome(),
            reason: prediction.reason.code(),
            detail: &prediction.sentence,
            next: &prediction.next,
            now: planned.now,
            lost: prediction.is_lost,
            layers: planned.storage.layers.as_ref().ok().map(Vec::len),
            hides: paths(&|hidden| hidden.by == number, &|hidden| hidden.of),
            hidden: paths(&|hidden| hidden.of == number, &|hidden| hidden.by),
            space: prospect.sizes.space(container),
        })
    }

    fn subject(&self) -> String {
        if self.name.is_empty() { short_id(self.id).to_owned() } else { on_one_line(self.name) }
    }

    /// Why it is not layered, and which files are hidden.
    fn details(&self) -> String {
        let mut text = String::new();
        if self.plan != PlanOutcome::Layered {
            let _ = writeln!(text, "\n{}: {}\n  next: {}", self.subject(), self.detail, self.next);
        }
        for (paths, verb, preposition) in
            [(&self.hides, "hides", "of"), (&self.hidden, "loses", "to")]
        {
            if paths.count == 0 {
                continue;
            }
            let files =
                if paths.count == 1 { "file or directory" } else { "files and directories" };
            let _ = writeln!(text, "\n{} {verb} {} {files}:", self.subject(), paths.count);
            for path in &paths.paths {
                let shown = on_one_line(path.path);
                let _ = writeln!(text, "  {shown} {preposition} {}", on_one_line(path.name));
            }
            let left = paths.count - paths.paths.len();
            if left > 0 {
                let _ = writeln!(text, "  and {left} more (--files prints all)");
            }
        }
        text
    }
}
