//! The Debian packages of an architecture: downloaded once, with package lists of their own, and unpacked. The
//! machine's own lists and packages remain as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel and other packages of one architecture.
#[derive(Debug)]
pub(crate) struct Packages<'a> {
    /// Debian's name of the architecture.
    pub(crate) architecture: &'a str,
    /// The package that depends on the newest kernel.
    pub(crate) kernel: &'a str,
    pub(crate) others: &'a [&'a str],
}

const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Downloads and unpacks the packages below `cache`, unless that is done. Returns the directories of the kernel's
/// files and of the others.
pub(crate) fn unpacked(
    packages: &Packages<'_>,
    cache: &Path,
) -> Result<(PathBuf, PathBuf), String> {
    let &Packages { architecture, kernel, others } = packages;
    let directory = cache.join(format!("packages-{architecture}"));
    let places = (directory.join("kernel"), directory.join("root"));
    let complete = directory.join("complete");
    // Another list of packages makes them anew.
    let wanted = others.join(" ");
    if fs::read_to_string(&complete).is_ok_and(|known| known == wanted) {
        return Ok(places);
    }
    println!("{architecture}: downloading Debian's packages of {SUITE} (some 90 MB)");
    remove(&directory)?;
    let make = |path: &Path| {
        fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    for name in ["lists/partial", "archives/partial", "debs", "kernel", "root"] {
        make(&directory.join(name))?;
    }
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    let sources = format!("deb [signed-by={KEYRING}] {MIRROR} {SUITE} main\n");
    write(&directory.join("sources"), &sources)?;
    write(&directory.join("status"), "")?;

    run(apt(architecture, &directory, "apt-get").arg("update"))?;
    let depends = run(apt(architecture, &directory, "apt-cache").args(["depends", kernel]))?;
    let newest = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let newest = newest.ok_or_else(|| format!("{kernel} depends on no kernel"))?;
    let mut download = apt(architecture, &directory, "apt-get");
    run(download.current_dir(directory.join("debs")).arg("download").arg(newest).args(others))?;
    for item in fs::read_dir(directory.join("debs")).map_err(|error| error.to_string())? {
        let package = item.map_err(|error| error.to_string())?.path();
        let is_kernel = package.to_string_lossy().contains("/linux-image-");
        let place = if is_kernel { &places.0 } else { &places.1 };
        run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(place))?;
    }
    remove(&directory.join("debs"))?;
    write(&complete, &wanted)?;
    Ok(places)
}

/// apt-get or apt-cache with everything of its own in `directory`.
fn apt(name: &str, directory: &Path, program: &str) -> Command {
    let mut apt = Command::new(program);
    for option in [
        format!("APT::Architecture={name}"),
        format!("APT::Architectures={name}"),
        format!("APT::Architectures::={name}"),
        format!("Dir::State::Lists={}", directory.join("lists").display()),
        format!("Dir::State::Status={}", directory.join("status").display()),
        format!("Dir::Cache={}", directory.display()),
        format!("Dir::Etc::SourceList={}", directory.join("sources").display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        // The user _apt may not enter a checkout in somebody's home.
        "APT::Sandbox::User=root".to_owned(),
    ] {
        apt.args(["-o", &option]);
    }
    apt.arg("--quiet");
    apt
}

/// Runs a command, and returns its output.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{command:?}: {}\n{}", output.status, text(&output.stderr)))
}

pub(crate) fn remove(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}
