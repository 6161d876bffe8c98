//! Tests of the inventory: answers of engines, and odd ones.

use super::*;

fn labels(text: &str) -> Labels {
    serde_json::from_str(text).unwrap()
}

/// An inventory of the items of a list, each added by `take`.
fn collected(text: &str, take: fn(&mut Inventory, &RawValue)) -> Inventory {
    let mut inventory = Inventory::default();
    let list: Vec<Box<RawValue>> = serde_json::from_str(text).unwrap();
    list.iter().for_each(|item| take(&mut inventory, item));
    inventory.without_intermediates()
}

fn listed(text: &str) -> Inventory {
    collected(text, Inventory::add_container)
}

#[test]
fn labels_of_any_type_are_read_and_odd_ones_are_none() {
    for text in ["null", "[]", "[1]", "\"x\"", "1", "-1", "1.5", "true", "{}"] {
        assert_eq!(labels(text), Labels::default(), "{text}");
    }
    let labels = labels(
        r#"{"io.balena.image.class":"overlay","io.balena.a":null,"io.balena.b":7,
            "io.balena.c":{"x":[1]},"maintainer":"m"}"#,
    );
    assert!(labels.is_extension());
    assert_eq!(labels.to_map().len(), 1);
}

#[test]
fn the_last_of_two_labels_with_one_name_counts() {
    for (first, last, is_extension) in
        [("overlay", "\"volume\"", false), ("volume", "\"overlay\"", true), ("overlay", "7", false)]
    {
        let name = "io.balena.image.class";
        let read = labels(&format!(r#"{{"{name}":"{first}","{name}":{last}}}"#));
        assert_eq!(read.is_extension(), is_extension, "{first} {last}");
    }
}

#[test]
fn all_of_an_extension_is_kept_and_what_other_containers_use() {
    let inventory = listed(
        r#"[{"Id":"1","Names":["/web"],"Image":"nginx","ImageID":"sha256:n","State":"running",
             "Labels":{"io.balena.image.class":"volume"},
             "Mounts":[{"Type":"volume","Name":"v","Source":"/s","Destination":"/d"},
                       {"Type":"bind","Name":"","Source":"/b","Destination":"/e"}]},
            {"Id":"2","Names":["/ext"],"Image":"ext","ImageID":"sha256:e","State":"exited",
             "Labels":{"io.balena.image.class":"overlay"},
             "Mounts":[{"Type":"volume","Name":"w","Source":"/s","Destination":"/boot"}]},
            {"Id":"3","Labels":{"io.balena.image.class":"overlay"}}]"#,
    );
    assert_eq!(inventory.foreign.volumes.iter().collect::<Vec<_>>(), ["v"]);
    assert_eq!(inventory.foreign.images.len(), 1);
    let [extension, bare] = inventory.containers.as_slice() else { panic!("{inventory:?}") };
    assert_eq!((extension.name.as_str(), extension.state), ("ext", EngineState::Exited));
    assert_eq!(extension.volumes().collect::<Vec<_>>(), ["w"]);
    assert_eq!((bare.name.as_str(), bare.state), ("", EngineState::Other));
}

#[test]
fn images_and_volumes_of_extensions_are_kept() {
    let images = collected(
        r#"[{"Id":"sha256:a","RepoTags":["<none>:<none>"],"RepoDigests":["r@sha256:1"],"Size":5,
             "Labels":{"io.balena.image.class":"overlay"}},
            {"Id":"sha256:b","RepoTags":null,"Labels":null,"Size":-1}]"#,
        Inventory::add_image,
    )
    .images;
    assert_eq!(images.len(), 1);
    assert_eq!((images[0].names.len(), images[0].bytes), (1, Some(5)));
    let volumes = |text: &str| {
        let mut inventory = Inventory::default();
        inventory.add_volumes(&serde_json::from_str(text).unwrap());
        inventory.without_intermediates().volumes
    };
    let some = volumes(
        r#"{"Volumes":[{"Name":"a","Labels":{"io.balena.image.class":"overlay"},
             "UsageData":{"Size":-1,"RefCount":0}},{"Name":"b","Labels":null}],"Warnings":null}"#,
    );
    assert_eq!(some.len(), 1);
    assert_eq!(some[0].bytes, None);
    assert!(volumes(r#"{"Volumes":null}"#).is_empty());
}

#[test]
fn an_item_that_cannot_be_parsed_is_reported_and_hides_no_other() {
    let inventory = listed(
        r#"[{"Id":null},{"Id":"1","Names":[null]},7,{"Id":"2","Mounts":{"\u001b":1}},
            {"Id":"3","Labels":{"io.balena.image.class":"overlay"}}]"#,
    );
    let ids: Vec<&str> = inventory.containers.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["3"]);
    assert_eq!(inventory.unreadable.len(), 4, "{:?}", inventory.unreadable);
    assert!(
        inventory.unreadable[1].contains("container") && inventory.unreadable[1].contains("\"1\"")
    );
    assert!(!inventory.unreadable.iter().any(|why| why.contains(char::is_control)));
}

#[test]
fn intermediate_images_of_builds_are_not_listed_but_show_the_parents() {
    let inventory = collected(
        r#"[{"Id":"old","ParentId":"","RepoTags":["ext:1"],"Labels":{"io.balena.image.class":"overlay"}},
            {"Id":"layer","ParentId":"old","RepoTags":null,"Labels":{"io.balena.image.class":"overlay"}},
            {"Id":"new","ParentId":"layer","RepoTags":["ext:2"],"Labels":{"io.balena.image.class":"overlay"}},
            {"Id":"other","ParentId":"old","RepoTags":["x:1"],"Labels":null},
            {"Id":"loose","ParentId":null,"RepoTags":null,"Labels":{"io.balena.image.class":"overlay"}}]"#,
        Inventory::add_image,
    );
    let ids: Vec<&str> = inventory.images.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["old", "new", "loose"]);
    assert_eq!(inventory.parents["new"], "layer");
    assert_eq!(inventory.foreign_children, ["other"]);
}
