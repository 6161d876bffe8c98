//! Which fabricated volumes the containers claim. Such a volume is in no container's mounts, so nothing but its name
//! shows that it is needed.

use crate::model::engine::inventory::EngineContainer;
use crate::model::kernel::volume::{BootVolume, Unnameable};
use std::collections::BTreeMap;

/// The claims of all containers about which a cleanup has decided.
#[derive(Debug, Default)]
pub(crate) struct VolumeClaims {
    claimants: BTreeMap<String, Claimants>,
    /// The ids of the containers that are to be removed and may claim any volume.
    uncertain: Vec<String>,
    /// Why the claim of a container that is kept cannot be determined.
    unknown: Option<String>,
}

/// The containers that claim a volume.
#[derive(Debug, Default)]
struct Claimants {
    any_kept: bool,
    /// The ids of those that are to be removed.
    removed: Vec<String>,
}

/// Whether a fabricated volume is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VolumeClaim {
    ByKept,
    /// Why it cannot be determined.
    Unknown(String),
    /// No longer, once the containers with these ids are removed.
    ByRemoved(Vec<String>),
}

/// What becomes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerFate {
    Kept,
    Removed,
}

impl VolumeClaims {
    pub(crate) fn add(&mut self, container: &EngineContainer, fate: ContainerFate) {
        let volume = match claimed_volume(container) {
            Ok(None) => return,
            Ok(Some(volume)) => volume.as_str().to_owned(),
            Err(_) if fate == ContainerFate::Removed => {
                self.uncertain.push(container.id.clone());
                return;
            }
            Err(error) => {
                let name = &container.name;
                let why = format!("cannot determine the volume of container {name}: {error}");
                self.unknown.get_or_insert(why);
                return;
            }
        };
        let claimants = self.claimants.entry(volume).or_default();
        match fate {
            ContainerFate::Kept => claimants.any_kept = true,
            ContainerFate::Removed => claimants.removed.push(container.id.clone()),
        }
    }

    /// Whether the fabricated volume of this name is claimed.
    pub(crate) fn claim(&self, volume: &str) -> VolumeClaim {
        let claimants = self.claimants.get(volume);
        match (claimants.is_some_and(|claimants| claimants.any_kept), &self.unknown) {
            (true, _) => VolumeClaim::ByKept,
            (false, Some(why)) => VolumeClaim::Unknown(why.clone()),
            (false, None) => {
                let certain = claimants.iter().flat_map(|claimants| &claimants.removed);
                VolumeClaim::ByRemoved(certain.chain(&self.uncertain).cloned().collect())
            }
        }
    }
}

/// The volume that `create` would fabricate for the container, if it claims a kernel. Whether its image has one is not
/// asked: keeping a volume too many costs disk space only.
pub(crate) fn claimed_volume(
    container: &EngineContainer,
) -> Result<Option<BootVolume>, Unnameable> {
    if container.labels.claims().abi.is_none() {
        return Ok(None);
    }
    let label = |name: &str| container.labels.value(name);
    match BootVolume::of(label, &container.id, Some(&container.image_id)) {
        Ok(volume) => Ok(Some(volume)),
        // Its create was refused, so it has none.
        Err(error) if error.is_certain() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::engine::inventory::{Detail, EngineState, Labels};
    use crate::model::extension::labels::{ABI, CLASS, SERVICE_NAME};

    const VOLUME: &str = "ext_s_aaaaaaaaaaaa_boot";

    fn container(id: &str, image: &str, abi: &str, service: &str) -> EngineContainer {
        let labels =
            format!(r#"{{"{CLASS}":"overlay","{ABI}":"{abi}","{SERVICE_NAME}":"{service}"}}"#);
        EngineContainer {
            id: id.to_owned(),
            name: format!("name-of-{id}"),
            image: String::new(),
            image_id: image.to_owned(),
            state: EngineState::Exited,
            labels: serde_json::from_str::<Labels>(&labels).unwrap(),
            mounts: Vec::new(),
            detail: Detail::NotAsked,
        }
    }

    fn claim_of(volume: &str, containers: &[(EngineContainer, ContainerFate)]) -> VolumeClaim {
        let mut claims = VolumeClaims::default();
        containers.iter().for_each(|(container, fate)| claims.add(container, *fate));
        claims.claim(volume)
    }

    #[test]
    fn a_volume_is_claimed_by_the_containers_that_would_fabricate_it() {
        use ContainerFate::{Kept, Removed};
        let image = format!("sha256:{}", "a".repeat(64));
        let claiming = |id: &str| container(id, &image, "abi", "s");
        let removed =
            |ids: &[&str]| VolumeClaim::ByRemoved(ids.iter().map(|id| (*id).to_owned()).collect());
        let other = format!("sha256:{}", "b".repeat(64));
        for (containers, expected) in [
            (vec![], removed(&[])),
            (vec![(claiming("1"), Kept)], VolumeClaim::ByKept),
            (vec![(claiming("1"), Removed)], removed(&["1"])),
            (vec![(claiming("1"), Removed), (claiming("2"), Removed)], removed(&["1", "2"])),
            (vec![(claiming("1"), Removed), (claiming("2"), Kept)], VolumeClaim::ByKept),
            // Another image, another service, no claim, and a service for which create refuses.
            (vec![(container("1", &other, "abi", "s"), Kept)], removed(&[])),
            (vec![(container("1", &image, "abi", "t"), Kept)], removed(&[])),
            (vec![(container("1", &image, "abi", ""), Kept)], removed(&[])),
            (vec![(container("1", &image, " ", "s"), Kept)], removed(&[])),
            (vec![(container("1", &image, "abi", "s/"), Kept)], removed(&[])),
        ] {
            assert_eq!(claim_of(VOLUME, &containers), expected, "{containers:?}");
        }
        let by_id = claim_of(
            "ext_0123456789ab_aaaaaaaaaaaa_boot",
            &[(container("0123456789abcdef", &image, "abi", ""), Kept)],
        );
        assert_eq!(by_id, VolumeClaim::ByKept);
    }

    #[test]
    fn a_container_without_an_image_id_may_claim_any_volume() {
        use ContainerFate::{Kept, Removed};
        for image in ["", "alpine", "sha256:aaaaaaaaaaaa"] {
            let unknown = container("1", image, "abi", "s");
            let VolumeClaim::Unknown(why) = claim_of(VOLUME, &[(unknown.clone(), Kept)]) else {
                panic!("{image}")
            };
            assert!(why.contains("name-of-1"), "{why}");
            let removed = claim_of(VOLUME, &[(unknown, Removed)]);
            assert_eq!(removed, VolumeClaim::ByRemoved(vec!["1".to_owned()]));
            let without_claim = claim_of(VOLUME, &[(container("1", image, "", "s"), Kept)]);
            assert_eq!(without_claim, VolumeClaim::ByRemoved(Vec::new()));
        }
        let image = format!("sha256:{}", "a".repeat(64));
        let (unknown, known) = (container("1", "", "abi", "s"), container("2", &image, "abi", "s"));
        assert_eq!(claim_of(VOLUME, &[(unknown, Kept), (known, Kept)]), VolumeClaim::ByKept);
    }
}
