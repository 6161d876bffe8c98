//! Tests of the sizes: what is unknown is not 0.

use super::*;
use crate::model::engine::cleanup::{Object, Reason, Removal};
use crate::model::engine::inventory::{Detail, EngineState, Labels, Mounted};
use crate::model::extension::labels::{ABI, CLASS, SERVICE_NAME};

const IMAGE: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const FABRICATED: &str = "ext_s_aaaaaaaaaaaa_boot";

fn container(image_id: &str, volumes: &[&str], abi: &str) -> EngineContainer {
    let labels = format!(r#"{{"{CLASS}":"overlay","{ABI}":"{abi}","{SERVICE_NAME}":"s"}}"#);
    let labels: Labels = serde_json::from_str(&labels).unwrap();
    let mounted = |name: &&str| Mounted {
        volume: Some((*name).to_owned()),
        source: String::new(),
        destination: String::new(),
    };
    EngineContainer {
        id: "0123456789abcdef".to_owned(),
        name: "a".to_owned(),
        image: String::new(),
        image_id: image_id.to_owned(),
        state: EngineState::Exited,
        labels,
        mounts: volumes.iter().map(mounted).collect(),
        detail: Detail::NotAsked,
    }
}

#[test]
fn an_extension_takes_its_image_and_its_volumes_each_once() {
    let sizes = ObjectSizes {
        images: Some([(IMAGE.to_owned(), 100)].into()),
        volumes: Some(
            [("v", Some(7)), ("w", Some(20)), ("unmeasured", None), (FABRICATED, Some(3000))]
                .map(|(name, bytes)| (name.to_owned(), bytes))
                .into(),
        ),
    };
    let no_volumes = ObjectSizes { volumes: None, ..sizes.clone() };
    for (sizes, image, volumes, abi, image_bytes, volume_bytes) in [
        (&sizes, IMAGE, &[][..], "", Some(100), Some(0)),
        (&sizes, IMAGE, &["v", "w", "v"], "", Some(100), Some(27)),
        (&sizes, "sha256:other", &["v"], "", None, Some(7)),
        (&sizes, IMAGE, &["v", "missing"], "", Some(100), None),
        (&sizes, IMAGE, &["v", "unmeasured"], "", Some(100), None),
        (&sizes, IMAGE, &["v"], "ab", Some(100), Some(3007)),
        // Its image may be unknown, and with it the name of its volume.
        (&sizes, "", &["v"], "ab", None, None),
        (&no_volumes, IMAGE, &[], "", Some(100), Some(0)),
        (&no_volumes, IMAGE, &["v"], "", Some(100), None),
        (&no_volumes, IMAGE, &[], "ab", Some(100), None),
        (&ObjectSizes::default(), IMAGE, &[], "", None, None),
    ] {
        let space = sizes.space(&container(image, volumes, abi));
        assert_eq!(
            space,
            ExtensionSpace { image_bytes, volume_bytes },
            "{image} {volumes:?} {abi}"
        );
        assert_eq!(space.all().is_some(), image_bytes.is_some() && volume_bytes.is_some());
    }
}

fn decision(kind: ObjectKind, bytes: Option<u64>, fate: Fate) -> Decision {
    Decision { object: Object { kind, id: String::new(), name: String::new(), bytes }, fate }
}

#[test]
fn what_a_plan_frees_is_counted_by_what_it_removes() {
    let remove =
        || Fate::Remove { reason: Reason::Dead, how: Removal::Image { names: Vec::new() } };
    let plan = |image: Option<u64>| {
        Plan(vec![
            decision(ObjectKind::Container, None, remove()),
            decision(ObjectKind::Image, image, remove()),
            decision(ObjectKind::Image, Some(5), Fate::Keep(Kept::InUse)),
            decision(ObjectKind::Image, Some(u64::MAX), remove()),
            decision(ObjectKind::Volume, Some(10), remove()),
        ])
    };
    let counted = Reclaimable { remove: 4, undecided: 0, bytes: u64::MAX, unmeasured: 0 };
    assert_eq!(Reclaimable::of(&plan(Some(1)), &[]), counted);
    assert_eq!(stale_images(&plan(Some(1)), &[]), Some(u64::MAX));
    let unread = ["an item".to_owned()];
    let counted = Reclaimable { undecided: 1, unmeasured: 1, ..counted };
    assert_eq!(Reclaimable::of(&plan(None), &unread), counted);
    assert_eq!(stale_images(&plan(None), &[]), None);
    assert_eq!(stale_images(&plan(Some(1)), &unread), None);
    let undecided = Fate::Keep(Kept::Undecided("no".to_owned()));
    let plan = Plan(vec![decision(ObjectKind::Image, Some(5), undecided)]);
    assert_eq!(stale_images(&plan, &[]), None);
    assert_eq!(Reclaimable::of(&plan, &[]), Reclaimable { undecided: 1, ..Reclaimable::default() });
    assert_eq!(stale_images(&Plan::default(), &[]), Some(0));
}
