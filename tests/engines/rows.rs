//! The rows of the matrix: one for every generation of engines, each with a root filesystem in which its
//! engines are installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroups::Version;
use crate::engines_document;
use crate::interrupts::Interrupts;
use crate::sandbox::{self, Outcome};

/// The packages that a row needs besides a minimal Debian.
const PACKAGES: &str =
    "ca-certificates,conmon,containerd,docker.io,docker-cli,iproute2,iptables,netavark,podman,runc";

/// More packages, which only apt-get can configure: debootstrap does not determine the order.
const MORE_PACKAGES: &str = "python3-grpcio";

/// Makes the root filesystem $3 of the suite $2 with the packages $1 and $4.
const MAKE_ROOT: &str = r#"
    debootstrap --variant=minbase --include="$1" "$2" "$3"
    mount -t proc proc "$3/proc"
    export DEBIAN_FRONTEND=noninteractive
    chroot "$3" apt-get update
    chroot "$3" apt-get install --yes --no-install-recommends "$4"
    chroot "$3" apt-get clean
    echo "$1,$4" > "$3/etc/engines-packages""#;

/// All rows, in the order in which they run.
pub(crate) const NAMES: [&str; 3] = ["installed", "unified", "trixie"];

pub(crate) struct Row {
    /// The first part of its tests' names.
    pub(crate) name: &'static str,
    /// The root filesystem, which is only read.
    pub(crate) root: PathBuf,
    pub(crate) cgroups: Version,
}

/// Runs the tests of the rows that `ENGINE_ROWS` names, or of all.
pub(crate) fn run_all() -> ExitCode {
    let interrupts = Interrupts::watch();
    let this = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(this)).expect("PR_SET_CHILD_SUBREAPER");
    let wanted = std::env::var("ENGINE_ROWS").unwrap_or_else(|_| NAMES.join(","));
    let mut result = ExitCode::SUCCESS;
    let mut results = Vec::new();
    for name in wanted.split(',') {
        match row(name, &interrupts)
            .and_then(|row| sandbox::run(&row, &interrupts))
            .unwrap_or_else(Outcome::Failed)
        {
            Outcome::Passed(of_row) => results.extend(of_row),
            Outcome::Failed(_) if interrupts.came() => return interrupted(),
            Outcome::Failed(reason) => {
                // In the format of libtest, so that silence is not taken for success.
                println!("test {name}::the_tests_of_this_row_pass ... FAILED\n\n{reason}\n");
                result = ExitCode::from(101);
            }
            Outcome::Interrupted => return interrupted(),
        }
    }
    if result != ExitCode::SUCCESS || std::env::args_os().len() > 1 {
        // With a filter, or after a failure, many tests have no result.
        println!("docs/engines.md was not compared with this run, which is not a whole one");
        return result;
    }
    match engines_document::check(&results) {
        Ok(()) => println!("test the_table_in_docs_engines_md_is_what_was_seen ... ok"),
        Err(reason) => {
            println!("test the_table_in_docs_engines_md_is_what_was_seen ... FAILED\n\n{reason}\n");
            result = ExitCode::from(101);
        }
    }
    result
}

fn interrupted() -> ExitCode {
    println!("interrupted; everything was stopped and removed");
    ExitCode::from(130)
}

fn row(name: &str, interrupts: &Interrupts) -> Result<Row, String> {
    match name {
        "installed" => {
            Ok(Row { name: "installed", root: PathBuf::from("/"), cgroups: Version::AsMounted })
        }
        "unified" => {
            Ok(Row { name: "unified", root: PathBuf::from("/"), cgroups: Version::OnlyTwo })
        }
        "trixie" => Ok(Row {
            name: "trixie",
            root: debian("trixie", interrupts)?,
            cgroups: Version::AsMounted,
        }),
        other => Err(format!("ENGINE_ROWS names {other}; there is: installed, unified, trixie")),
    }
}

/// A Debian of that name in the build directory. It is made if it does not exist.
fn debian(suite: &str, interrupts: &Interrupts) -> Result<PathBuf, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = cache.join(format!("engines-{suite}"));
    // A root filesystem that was made with other packages is made again.
    let packages = fs::read_to_string(root.join("etc/engines-packages"));
    if packages.is_ok_and(|known| known == format!("{PACKAGES},{MORE_PACKAGES}\n")) {
        return Ok(root);
    }
    remove_dir(&root)?;
    // It is made under another name, so that an interrupted one does not look complete.
    let unfinished = cache.join(format!("engines-{suite}.unfinished"));
    remove_dir(&unfinished)?;
    println!("making {} with debootstrap (once; a few minutes)", root.display());
    let log = cache.join(format!("engines-{suite}.log"));
    let output = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    // In its own namespaces, so that its mounts and processes end with it, also if it is killed.
    let mut debootstrap = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--"])
        .args(["sh", "-ec", MAKE_ROOT, "make-root", PACKAGES, suite])
        .arg(&unfinished)
        .arg(MORE_PACKAGES)
        .stdout(output.try_clone().map_err(|error| error.to_string())?)
        .stderr(output)
        .spawn()
        .map_err(|error| format!("unshare: {error}"))?;
    let pid = i32::try_from(debootstrap.id()).map_err(|error| error.to_string())?;
    interrupts.on_interrupt(move || {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    });
    let made = debootstrap.wait().map_err(|error| format!("debootstrap: {error}"))?;
    interrupts.on_interrupt(|| ());
    // If unshare was killed, this process becomes the parent of its child. Wait until it does not write any
    // more.
    while nix::sys::wait::wait().is_ok() {}
    if !made.success() {
        remove_dir(&unfinished)?;
        return Err(format!(
            "debootstrap of {suite}: {made}; its output is in {} (apt-get install debootstrap, if that is what is missing)",
            log.display()
        ));
    }
    fs::rename(&unfinished, &root).map_err(|error| format!("{}: {error}", root.display()))?;
    Ok(root)
}

fn remove_dir(dir: &Path) -> Result<(), String> {
    if !dir.exists() {
        return Ok(());
    }
    fs::remove_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))
}
