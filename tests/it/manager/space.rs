//! The space of extensions in `status` and `inspect`, and what `cleanup --stale-os` would free.

use serde_json::{Value, json};

use super::host::{BLOCK, BOOT, Host};
use super::recorded_engine::Answer;
use super::recorded_store::{ABI, Container, Contents, KERNEL, SERVICE, Store, labels};

const IMAGE: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// The request that is answered, but without sizes.
const UNMEASURED: &str = "/system/df?type=volume";
const KERNEL_VOLUME: &str = "ext_s_aaaaaaaaaaaa_boot";

/// A host that runs the kernel of [`store`].
fn host() -> Host {
    let host = Host::new();
    host.write("proc/cmdline", &format!("balena_kernel_abi={}\n", "ab".repeat(32)));
    ["a", "kernel"].iter().for_each(|id| host.deployed(id, &["hooks/start"]));
    host
}

/// An extension with a volume, one with a kernel, and a stale one with image and volume.
fn store() -> Store {
    let old = labels(&[(KERNEL, "5.10.0")]);
    let volume = |name: &str| vec![(name.to_owned(), "/nowhere".to_owned())];
    let kernel = labels(&[(ABI, &"ab".repeat(32)), (SERVICE, "s")]);
    Store::new(Contents {
        containers: vec![
            // The volume has no labels of an extension.
            Container { volumes: volume("data"), image: IMAGE.to_owned(), ..Container::new("a") },
            Container { labels: kernel, image: IMAGE.to_owned(), ..Container::new("kernel") },
            Container {
                labels: old.clone(),
                image: "old".to_owned(),
                volumes: volume("stale"),
                ..Container::new("stale")
            },
        ],
        images: vec![(IMAGE.to_owned(), labels(&[])), ("old".to_owned(), old.clone())],
        volumes: vec![
            ("data".to_owned(), json!({})),
            (KERNEL_VOLUME.to_owned(), labels(&[])),
            ("stale".to_owned(), old),
        ],
    })
}

fn spaces(document: &Value) -> Vec<(Value, Value)> {
    let all = document["extensions"].as_array().unwrap().iter();
    all.map(|one| (one["imageBytes"].clone(), one["volumeBytes"].clone())).collect()
}

#[test]
fn status_says_what_each_extension_takes_and_what_a_cleanup_would_free() {
    let (store, host) = (store(), host());
    let engine = host.engine(&store);
    let document = host.manager(&["status", "--format", "json"]).ok().json();
    let both = || (json!(1000), json!(10));
    assert_eq!(spaces(&document), [both(), both(), both()]);
    assert_eq!(
        document["staleOs"],
        json!({ "remove": 3, "undecided": 0, "bytes": 1010, "unmeasured": 0, "updateCanRollBack": false })
    );
    let inspections = || {
        let requests = engine.requests().into_iter();
        requests.filter(|one| one.ends_with("/json") && one.contains("/containers/")).count()
    };
    assert_eq!(inspections(), 3, "the plan inspects no container again");
    // It is the plan of the command itself.
    let words = ["cleanup", "--stale-os", "--dry-run", "--format", "json"];
    let planned = host.manager(&words).json();
    for field in ["remove", "undecided", "bytes"] {
        assert_eq!(document["staleOs"][field], planned["summary"][field], "{planned:#}");
    }
    let table = host.manager(&["status"]).ok().out;
    let rows: Vec<&str> = table.lines().take(4).collect();
    let size = rows[0].find("SIZE").unwrap() + 4;
    assert!(rows[1..].iter().all(|row| row[..size].ends_with("  1.0 kB")), "{table}");
    let line = "\ncleanup --stale-os would remove 3 objects and free 1.0 kB\n";
    assert!(table.ends_with(line), "{table}");
    // About one extension, nothing is said of the device.
    let one = host.manager(&["status", "kernel", "--format", "json"]).ok().json();
    assert_eq!((spaces(&one), &one["staleOs"]), (vec![both()], &Value::Null));
    let inspected = host.manager(&["inspect", "kernel"]).ok().json();
    assert_eq!(inspected["extension"]["volumeBytes"], 10);

    host.mounts(BOOT);
    host.write("mnt/boot/bootenv", &format!("{BLOCK}upgrade_available=1\n####"));
    let document = host.manager(&["status", "--format", "json"]).ok().json();
    assert_eq!(document["staleOs"]["updateCanRollBack"], true);
    let table = host.manager(&["status"]).ok().out;
    assert!(table.ends_with("; it is refused until the OS update has committed\n"), "{table}");
    host.write("mnt/boot/bootenv", "torn");
    let document = host.manager(&["status", "--format", "json"]).ok().json();
    assert_eq!(document["staleOs"]["updateCanRollBack"], Value::Null);

    host.mounts("");
    std::fs::remove_dir_all(host.path("mnt/boot")).unwrap();
    let kept = |id: &str| id != "stale" && id != "old";
    let mut contents = store.contents();
    contents.containers.retain(|one| kept(&one.id));
    contents.images.retain(|(id, _)| kept(id));
    contents.volumes.retain(|(name, _)| kept(name));
    drop(contents);
    let table = host.manager(&["status"]).ok().out;
    assert!(!table.contains("would"), "nothing is to be removed: {table}");
}

#[test]
fn a_size_that_the_engine_does_not_report_is_unknown_and_not_0() {
    let failing = |path: &'static str| {
        let host = host();
        let engine = host.engine_but(&store(), move |_, asked| {
            let unmeasured = |name| json!({ "Name": name, "UsageData": { "Size": -1 } });
            let all = ["data", KERNEL_VOLUME, "stale"].map(unmeasured);
            let answer = match path {
                UNMEASURED => Answer::Json(200, json!({ "Volumes": all })),
                _ => Answer::Json(500, json!({ "message": "disk on fire" })),
            };
            asked.starts_with(path).then_some(answer)
        });
        let finished = host.manager(&["status", "--format", "json"]).ok();
        let is_said = finished.err.contains("disk on fire; sizes are unknown");
        assert_eq!(is_said, ["/system/df", "/images/json"].contains(&path), "{finished}");
        let document = finished.json();
        let verdicts = document["extensions"].as_array().unwrap().iter();
        assert!(verdicts.map(|one| &one["reason"]).all(|reason| reason != "not-inspected"));
        let table = host.manager(&["status"]).ok().out;
        drop(engine);
        (spaces(&document), document["staleOs"].clone(), table)
    };
    let (bytes, unknown) = ((json!(1000), json!(10)), Value::Null);
    let no_volumes = (bytes.0.clone(), unknown.clone());
    let no_volumes = [no_volumes.clone(), no_volumes.clone(), no_volumes];
    assert_eq!(failing("/system/df").0, no_volumes);
    let (seen, stale_os, table) = failing(UNMEASURED);
    assert_eq!(seen, no_volumes);
    assert_eq!((&stale_os["bytes"], &stale_os["unmeasured"]), (&json!(1000), &json!(1)));
    assert!(table.contains("1.0 kB, and the space of 1 objects of unknown size"), "{table}");
    assert_eq!(table.matches(" unknown  ").count(), 3, "{table}");

    let (seen, stale_os, table) = failing("/images/json");
    let no_image = (unknown, bytes.1.clone());
    assert_eq!(seen, [no_image.clone(), no_image.clone(), no_image]);
    assert!(stale_os["unreadable"].as_str().unwrap().contains("disk on fire"), "{stale_os}");
    assert!(table.contains("\nunknown what cleanup --stale-os would free: cannot list"), "{table}");

    let (seen, stale_os, _) = failing("/volumes");
    assert_eq!(seen, [bytes.clone(), bytes.clone(), bytes]);
    assert!(stale_os["unreadable"].as_str().unwrap().contains("volumes"), "{stale_os}");
}

#[test]
fn without_an_engine_all_sizes_are_unknown() {
    let host = Host::new();
    let record = json!({
        "ID": "a", "Name": "/a", "State": { "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0 },
        "Image": "sha256:i", "Config": { "Image": "img", "Labels": labels(&[]) },
    });
    host.write("var/lib/docker/containers/a/config.v2.json", &record.to_string());
    let document = host.manager(&["status", "--format", "json"]).ok().json();
    assert_eq!(spaces(&document), [(Value::Null, Value::Null)]);
    assert_eq!(document["staleOs"], json!({ "unreadable": "the engine does not answer" }));
    let table = host.manager(&["status"]).ok().out;
    let line = "\nunknown what cleanup --stale-os would free: the engine does not answer\n";
    assert!(table.contains(" unknown  ") && table.ends_with(line), "{table}");
}
