//! The Yocto recipe and its appends, read by bitbake's own parser, which is installed from PyPI once.

use crate::finished::Finished;
use crate::{dist, read, run, top};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Pinned, so that a new release of the parser cannot make an old commit fail.
const BITBAKE: &str = "bitbake-setup==2.19.0";
const SOURCE: &str = "git://git.example.com/runtime.git;protocol=https;branch=main";
const COMMIT: &str = "SRCREV:pn-balena-extension-runtime=0123456789abcdef0123456789abcdef01234567";

/// Where bitbake's modules are. They remain in the target directory, which `make clean` removes.
fn bitbake() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(BITBAKE);
        if !folder.join("bb/parse/__init__.py").exists() {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&folder);
            run(pip.arg(BITBAKE)).ok();
        }
        folder
    })
}

fn parse(recipe: &Path, words: &[&str]) -> Finished {
    let mut python = Command::new("python3");
    python.arg(top().join("tests/packaging/recipe.py")).arg(recipe).args(words);
    run(python.env("PYTHONPATH", bitbake()).env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// The variables of a recipe that could be parsed.
fn variables(recipe: &Path, words: &[&str]) -> serde_json::Value {
    serde_json::from_str(&parse(recipe, words).ok().out).unwrap()
}

fn version() -> String {
    let cargo = read(&top().join("Cargo.toml"));
    let version = cargo.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    version.trim_matches('"').to_owned()
}

/// The recipe of this version.
fn recipe() -> PathBuf {
    dist(&format!("yocto/balena-extension-runtime_{}.bb", version()))
}

#[test]
fn the_recipe_is_that_of_this_version_and_licence() {
    let recipe = read(&recipe());
    let sum = run(Command::new("md5sum").arg(top().join("LICENSE"))).ok().out;
    let sum = sum.split(' ').next().unwrap();
    assert!(recipe.contains(&format!("file://LICENSE;md5={sum}")), "LICENSE has md5 {sum}");
    assert!(recipe.contains("inherit cargo "));
    // All files that it and its append install from the sources exist.
    let append = read(&dist("yocto/balena-os/balena-extension-runtime_%.bbappend"));
    for text in [recipe, append] {
        for word in text.split_whitespace().filter_map(|word| word.strip_prefix("${S}/")) {
            let pattern = word.replace("*.8", "");
            assert!(
                top().join(&pattern).exists(),
                "the recipe installs {word}, which is not there"
            );
        }
    }
}

#[test]
fn the_recipe_builds_what_the_layer_names() {
    let source = format!("BALENA_EXTENSION_RUNTIME_SRC={SOURCE}");
    let parsed = variables(&recipe(), &[&source, COMMIT]);
    let uris: Vec<&str> = parsed["SRC_URI"].as_str().unwrap().split_whitespace().collect();
    let (first, others) = uris.split_first().unwrap();
    assert_eq!(*first, format!("{SOURCE};destsuffix=git"));
    assert!(others.len() > 20);
    assert!(others.iter().all(|uri| uri.starts_with("crate://crates.io/")), "{others:?}");
    assert_eq!(parsed["S"], "/work/git");
    assert_eq!(parsed["PV"], version());
    assert_eq!(parsed["BALENA_VERSION"], version());
    // What Cargo.toml has cannot be linked with the standard library of every OpenEmbedded.
    assert_eq!(parsed["CARGO_PROFILE_RELEASE_PANIC"], "unwind");
    // A layer says where the boot environment block is.
    assert_eq!(parsed["BALENA_BOOT_MOUNT"], "/mnt/boot");
    let exported = ["BALENA_VERSION", "BALENA_BOOT_MOUNT", "CARGO_PROFILE_RELEASE_PANIC"];
    assert_eq!(parsed["exported"], serde_json::json!(exported));
    let parsed = variables(&recipe(), &[&source, COMMIT, "BALENA_BOOT_MOUNT=/mnt/efi"]);
    assert_eq!(parsed["BALENA_BOOT_MOUNT"], "/mnt/efi");
    // A newer OpenEmbedded has a directory of its own for what is unpacked.
    let parsed = variables(&recipe(), &[&source, COMMIT, "UNPACKDIR=/work/sources"]);
    assert_eq!(parsed["S"], "/work/sources/git");
    // With externalsrc, that class chooses the directory.
    let parsed = variables(&recipe(), &["EXTERNALSRC=/checkout"]);
    assert!(!parsed["SRC_URI"].as_str().unwrap().contains("git://"), "{parsed}");
}

#[test]
fn without_a_source_or_its_commit_the_recipe_fails_with_one_sentence() {
    let source = format!("BALENA_EXTENSION_RUNTIME_SRC={SOURCE}");
    for (words, missing) in [
        (&[][..], "BALENA_EXTENSION_RUNTIME_SRC is not set"),
        (&[COMMIT], "BALENA_EXTENSION_RUNTIME_SRC is not set"),
        (&["BALENA_EXTENSION_RUNTIME_SRC= ", COMMIT], "BALENA_EXTENSION_RUNTIME_SRC is not set"),
        (&[&source], "SRCREV:pn-balena-extension-runtime is not set"),
    ] {
        let failed = parse(&recipe(), words);
        assert!(!failed.succeeded() && failed.out.is_empty(), "{words:?}: {failed}");
        assert_eq!(failed.err.lines().count(), 1, "{words:?}: {failed}");
        assert!(failed.err.contains(missing), "{words:?}: {failed}");
    }
}

#[test]
fn the_append_for_balena_os_takes_the_place_of_the_os_own_files() {
    let source = format!("BALENA_EXTENSION_RUNTIME_SRC={SOURCE}");
    let append = dist("yocto/balena-os/balena-extension-runtime_%.bbappend");
    let parsed = variables(&recipe(), &[append.to_str().unwrap(), &source, COMMIT]);
    let install = parsed["do_install"].as_str().unwrap();
    for file in ["/after-os-update", "/hostapp-extensions-cleanup.service"] {
        assert!(install.contains(file), "no {file} in:\n{install}");
    }
    // The OS has this unit itself, in another package, so it must not be in the main package.
    let rollback = "balena-extension-runtime-rollback";
    let own = parsed[format!("FILES:{rollback}")].as_str();
    assert_eq!(own, Some("${systemd_system_unitdir}/extension-rollback.service"));
    let packages = parsed["PACKAGES"].as_str().unwrap();
    let metrics = "balena-extension-runtime-metrics";
    assert!(packages.split_whitespace().any(|name| name == metrics), "{packages}");
    let own = parsed[format!("FILES:{metrics}")].as_str();
    assert_eq!(own, Some("${systemd_system_unitdir}/balena-extension-metrics.*"));
    assert!(packages.split_whitespace().any(|name| name == rollback), "{packages}");
    // An engine that is given the runtime twice does not start, so this is asked for.
    assert!(install.contains("if [ \"0\" = 1 ]"), "{install}");
}

#[test]
fn the_hook_that_this_manager_cannot_serve_is_left_out_of_the_os() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("hostapp-update-hooks.bb");
    let append = dist("yocto/balena-os/hostapp-update-hooks.bbappend");
    let kept = "85-os-blocks-extensions/85-fwd_commit_os-blocks-extensions";
    for hooks in [
        format!("80-rollback 85-os-blocks-extensions/85-after_os-blocks-extensions {kept}"),
        format!("80-rollback {kept}"),
    ] {
        std::fs::write(&recipe, format!("SRC_URI = \"\"\nHOSTAPP_HOOKS = \"{hooks}\"\n")).unwrap();
        let parsed = variables(&recipe, &[append.to_str().unwrap()]);
        let words: Vec<&str> = parsed["HOSTAPP_HOOKS"].as_str().unwrap().split(' ').collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        assert_eq!(words, ["80-rollback", kept]);
    }
}

/// All text files at and below a path of the checkout.
fn texts(path: &Path, found: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        for item in std::fs::read_dir(path).unwrap() {
            texts(&item.unwrap().path(), found);
        }
    } else if let Ok(text) = std::fs::read_to_string(path) {
        found.push((path.to_owned(), text));
    }
}

/// Another project has the same name: what it is fetched from must not be taken for this one.
#[test]
fn no_file_names_the_address_of_another_project() {
    let mut found = Vec::new();
    for path in ["Cargo.toml", "README.md", "Makefile", "dist", "docs", "examples", "tools", "src"]
    {
        texts(&top().join(path), &mut found);
    }
    assert!(found.len() > 100);
    for (path, text) in found {
        assert!(!text.contains(".com/balena-os/balena-extension-"), "{}", path.display());
    }
}
