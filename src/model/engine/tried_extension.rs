//! An extension that is tried before it is deployed: where the next boot would put it among those that are deployed.
//! `boot_plan.rs` predicts.

use crate::model::engine::boot_overlay::OverlayPlace;
use crate::model::engine::boot_plan::{BootPlan, PlanOutcome, PlannedExtension, Prediction};
use crate::model::engine::inventory::{Detail, EngineContainer, EngineState};
use crate::model::extension::labels::{ABI, CLASS, Labels, OVERLAY};
use crate::model::text::cut::short_id;

/// The layer that the engine would make for the container, which is empty.
pub(crate) const OWN_LAYER: &str = "its own layer";
/// The only layer of a directory.
pub(crate) const DIRECTORY_LAYER: &str = "the directory";

/// What an extension is tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BroughtKernel {
    Refused,
    /// The extension is treated as if it did not bring its kernel.
    Ignored,
}

/// A layer of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TriedLayer<'a> {
    /// All layers of the OS.
    Os,
    /// A layer of a deployed extension, or of the image that is tried, in the layer store.
    Stored(&'a str),
    /// The directory that is tried.
    Directory,
}

/// Why an extension is not tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTried {
    #[error(
        "{name:?} is no extension: its label io.balena.image.class is not \"overlay\" (--label adds or replaces a label)"
    )]
    NoExtension { name: String },
    #[error(
        "{name:?} brings a kernel ({what}), which cannot be tried without a boot (--without-kernel tries the rest)"
    )]
    BringsKernel { name: String, what: String },
    #[error(
        "{name:?} was built for another system than the one that will boot: {why}; next: {next}"
    )]
    OtherSystem { name: String, why: String, next: String },
    #[error("cannot determine whether the next boot would layer {name:?}: {why}; next: {next}")]
    Unpredictable { name: String, why: String, next: String },
    #[error("the next boot would not layer {name:?}: {why}; next: {next}")]
    NotLayered { name: String, why: String, next: String },
}

/// The labels of an extension that is tried: those of its image and those that the user adds. A directory without labels is
/// an extension.
pub(crate) fn labels_of(
    image: Option<Labels>,
    added: &[(String, String)],
    kernel: BroughtKernel,
) -> Labels {
    let mut labels = match image {
        Some(labels) => labels.to_map(),
        None => [(CLASS.to_owned(), OVERLAY.to_owned())].into(),
    };
    labels.extend(added.iter().cloned());
    if kernel == BroughtKernel::Ignored {
        labels.remove(ABI);
    }
    Labels::from_map(labels)
}

/// The container that a deploy would make.
pub(crate) fn container_of(name: &str, labels: Labels) -> EngineContainer {
    EngineContainer {
        id: name.to_owned(),
        name: name.to_owned(),
        image: name.to_owned(),
        image_id: String::new(),
        state: EngineState::Created,
        labels,
        mounts: Vec::new(),
        detail: Detail::NotAsked,
    }
}

/// The layers of the view, the topmost first.
///
/// # Errors
/// One of the extensions `demanded`, by their numbers in `planned`, would not be layered.
pub(crate) fn layers_of<'a>(
    plan: &'a BootPlan,
    planned: &[PlannedExtension<'_>],
    demanded: &[usize],
) -> Result<Vec<TriedLayer<'a>>, NotTried> {
    for prediction in &plan.predictions {
        if demanded.contains(&prediction.number) {
            let container = planned.get(prediction.number).map(|one| one.container);
            let name = container.map(name_of).unwrap_or_default();
            let (why, next) = (prediction.sentence.clone(), prediction.next.clone());
            match prediction.reason.outcome() {
                PlanOutcome::Layered => {}
                PlanOutcome::Skipped | PlanOutcome::Pruned => {
                    return Err(NotTried::NotLayered { name, why, next });
                }
                PlanOutcome::Stale => return Err(NotTried::OtherSystem { name, why, next }),
                PlanOutcome::Unknown => return Err(NotTried::Unpredictable { name, why, next }),
            }
        }
    }
    let mut layers = Vec::new();
    for layer in &plan.overlay.layers {
        match (layer.member, layer.name.as_str()) {
            (None, _) if layers.contains(&TriedLayer::Os) => {}
            (None, _) => layers.push(TriedLayer::Os),
            (Some(_), OWN_LAYER) => {}
            (Some(_), DIRECTORY_LAYER) => layers.push(TriedLayer::Directory),
            (Some(_), name) => layers.push(TriedLayer::Stored(name)),
        }
    }
    Ok(layers)
}

/// The deployed extensions that are not in the view, each with the reason.
pub(crate) fn left_out(plan: &BootPlan, planned: &[PlannedExtension<'_>]) -> Vec<String> {
    let is_there = |prediction: &Prediction| {
        let place = plan.overlay.order.iter().find(|(number, _)| *number == prediction.number);
        matches!(place, Some((_, OverlayPlace::AboveOs | OverlayPlace::BelowOs)))
    };
    let out = plan.predictions.iter().filter(|prediction| !is_there(prediction));
    out.filter_map(|prediction| {
        let name = name_of(planned.get(prediction.number)?.container);
        Some(format!("the extension {name:?} is not in the view: {}", prediction.sentence))
    })
    .collect()
}

/// A container without a name has its id.
fn name_of(container: &EngineContainer) -> String {
    match container.name.as_str() {
        "" => short_id(&container.id).to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::engine::boot_plan::{BootTarget, predict};
    use crate::model::engine::boot_selection::{BroughtModules, StoredLayers};
    use crate::model::engine::verdict::Verdict;
    use crate::model::extension::claim::Running;
    use crate::model::extension::labels::{KERNEL_VERSION, OVERRIDE};

    fn storage(layers: &[&str]) -> StoredLayers {
        StoredLayers {
            is_ending: false,
            driver: Some("overlay2".to_owned()),
            layers: Ok(layers.iter().map(|layer| (*layer).to_owned()).collect()),
        }
    }

    fn target() -> BootTarget {
        let system = Running {
            kernel_release: Ok("6.1.0-1".to_owned()),
            abi: Ok(None),
            os_version: Ok("5.0.0".to_owned()),
        };
        BootTarget { system, nothing_layered: Ok(None), os_layers: 2, page: 4096 }
    }

    fn added(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    const NO_MODULES: Result<BroughtModules, String> = Ok(BroughtModules::Unrelated);

    fn planned<'a>(all: &'a [(EngineContainer, StoredLayers)]) -> Vec<PlannedExtension<'a>> {
        let planned = |(container, storage): &'a (EngineContainer, StoredLayers)| {
            PlannedExtension { container, storage, modules: &NO_MODULES, now: Verdict::Unknown }
        };
        all.iter().map(planned).collect()
    }

    #[test]
    fn the_extension_is_at_its_place_among_the_deployed_ones() {
        let with = |labels: &[(String, String)]| labels_of(None, labels, BroughtKernel::Refused);
        let all = [
            (container_of("deployed", with(&[])), storage(&["own", "shared"])),
            (container_of("top", with(&added(OVERRIDE, "1"))), storage(&["t", "u"])),
            (
                container_of("tried", with(&added(OVERRIDE, "2"))),
                storage(&[OWN_LAYER, "image", "shared"]),
            ),
            (container_of("directory", with(&[])), storage(&[OWN_LAYER, DIRECTORY_LAYER])),
        ];
        let planned = planned(&all);
        let plan = predict(&planned, &target());
        use TriedLayer::{Directory, Os, Stored};
        let expected = [
            Stored("t"),
            Stored("u"),
            Stored("image"),
            Os,
            Stored("own"),
            Stored("shared"),
            Directory,
        ];
        assert_eq!(layers_of(&plan, &planned, &[2, 3]).unwrap(), expected);
        assert_eq!(left_out(&plan, &planned), [""; 0]);
    }

    #[test]
    fn what_would_not_be_layered_is_refused_or_left_out_with_the_reason_of_the_plan() {
        let wrong = labels_of(None, &added(KERNEL_VERSION, "5.4.0"), BroughtKernel::Refused);
        let good = labels_of(None, &[], BroughtKernel::Refused);
        let all = [
            (container_of("good", good), storage(&["o", "g"])),
            (container_of("wrong", wrong), storage(&["v", "w"])),
        ];
        let planned = planned(&all);
        let plan = predict(&planned, &target());
        let Err(NotTried::OtherSystem { name, why, .. }) = layers_of(&plan, &planned, &[0, 1])
        else {
            panic!("it claims another kernel");
        };
        assert!(name == "wrong" && why.contains("5.4.0"), "{why}");
        use TriedLayer::{Os, Stored};
        assert_eq!(layers_of(&plan, &planned, &[0]).unwrap(), [Os, Stored("o"), Stored("g")]);
        let unknown = Running { kernel_release: Err("unread".to_owned()), ..target().system };
        let plan_of_unknown = predict(&planned, &BootTarget { system: unknown, ..target() });
        let unpredictable = layers_of(&plan_of_unknown, &planned, &[1]);
        assert!(matches!(unpredictable, Err(NotTried::Unpredictable { .. })), "{unpredictable:?}");
        let purged = BootTarget { nothing_layered: Ok(Some("a purge".to_owned())), ..target() };
        let plan_of_none = predict(&planned, &purged);
        let none = layers_of(&plan_of_none, &planned, &[0]);
        assert!(matches!(none, Err(NotTried::NotLayered { .. })), "{none:?}");
        let [out] = &left_out(&plan, &planned)[..] else { panic!() };
        assert!(out.contains("\"wrong\"") && out.contains("5.4.0"), "{out}");
    }

    #[test]
    fn labels_are_added_and_that_of_a_kernel_is_ignored_with_it() {
        let labels = labels_of(None, &added(ABI, "x"), BroughtKernel::Ignored);
        assert!(labels.is_extension() && labels.value(ABI).is_none());
        let image = labels_of(None, &added(ABI, "x"), BroughtKernel::Refused);
        assert_eq!(image.value(ABI), Some("x"));
        let replaced = labels_of(Some(image), &added(CLASS, "volume"), BroughtKernel::Refused);
        assert!(!replaced.is_extension());
        assert!(!labels_of(Some(Labels::default()), &[], BroughtKernel::Refused).is_extension());
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum NotTried {
        NoExtension { name }, BringsKernel { name, what }, NotLayered { name, why, next },
        OtherSystem { name, why, next }, Unpredictable { name, why, next },
    }
}
