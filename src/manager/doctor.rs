//! `doctor`: looks whether this host is set up for extensions. What is judged how is in
//! `model/engine/doctor.rs`.

use super::surroundings::data_root;
use super::{Context, Exit, Failure, print_by, print_json};
use crate::cli::manager::{Doctor, Format};
use crate::host::container::mount_namespace;
use crate::host::engine::process;
use crate::host::engine::stored_containers::DataRoot;
use crate::host::kernel::boot_mounts;
use crate::host::kernel::release;
use crate::host::os::disk;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::host::os::systemd;
use crate::model::container::mount_namespace::Relation;
use crate::model::container::proxy::PROGRAM;
use crate::model::engine::doctor::{
    EngineInfo, EngineProcess, Facts, Level, Line, RegisteredBinary, judge,
};
use crate::model::kernel::rollback::Rollback;
use crate::model::text::cause::{chain, in_words, on_one_line};
use crate::version;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// The version of the JSON.
const SCHEMA: u32 = 1;
/// The units that dist/systemd has for every host.
const UNITS: [&str; 1] = ["balena-extension-cleanup.service"];
/// The namespaces that the runtime uses or that containers have.
const NAMESPACES: [&str; 5] = ["mnt", "net", "pid", "ipc", "uts"];

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    command: &'static str,
    checks: &'a [Line],
}

pub(super) fn doctor(context: &Context, request: &Doctor) -> Result<Exit, Failure> {
    let lines = judge(&facts(context)?);
    match request.format {
        Format::Json => {
            print_json(&Document { schema: SCHEMA, command: "doctor", checks: &lines })?;
        }
        Format::Table => print_by(|stdout| table(stdout, &lines))?,
    }
    let problem = lines.iter().any(|line| line.level == Level::Problem);
    Ok(if problem { Exit::Failed } else { Exit::Done })
}

fn table(out: &mut dyn Write, lines: &[Line]) -> io::Result<()> {
    for line in lines {
        let text = on_one_line(line.text.as_str());
        writeln!(out, "{:<8} {:<17} {text}", line.level.word(), line.check)?;
        if let Some(mend) = line.mend {
            writeln!(out, "{:26} mend: {mend}", "")?;
        }
    }
    Ok(())
}

fn facts(context: &Context) -> Result<Facts, Failure> {
    let host = &context.host;
    let asked = context.connect().and_then(|client| {
        let info: EngineInfo = client.ask("/info", "ask the engine about itself")?;
        Ok((client.api().to_string(), info))
    });
    let (api, engine) = match asked {
        Ok((api, info)) => (Some(api), Ok(info)),
        Err(Failure::Engine(error)) if error.is_stop() => return Err(Failure::Stopped),
        Err(failure) => (None, Err(chain(&failure))),
    };
    let runtimes = engine.as_ref().map(|info| runtimes(context, info)).unwrap_or_default();
    let root = engine.as_ref().ok().and_then(|info| info.docker_root_dir.clone());
    let root = match root {
        Some(root) => DataRoot { host: host.clone(), path: root.into() },
        None => data_root(context),
    };
    let path = root.host.shown(&root.path).display().to_string();
    let space = root.host.find(&root.path).and_then(|root| disk::space(&root));
    Ok(Facts {
        engine,
        api,
        runtimes,
        mounts: mounts(context),
        state_root: state_root(context),
        boot_environment: boot_environment(host),
        units: UNITS.map(|name| (name, systemd::is_enabled(host, name))).into(),
        disk: space
            .map(|(free, all)| (free, all, path.clone()))
            .map_err(|error| format!("look at the filesystem of {path}: {}", in_words(&error))),
        overlay: overlay(context),
        missing_namespaces: missing_namespaces(host),
        kernel_release: release::release(host),
    })
}

/// The engine's process, and whether its mounts are those of process 1.
fn mounts(context: &Context) -> Result<(EngineProcess, Relation), String> {
    if context.host.shown("/") != Path::new("/") {
        return Err("the processes of another root are not looked at".to_owned());
    }
    let socket = context.socket.as_ref().map_err(|error| chain(error))?;
    let process = process::find(&context.host, socket)?;
    let relation = mount_namespace::relation(process.pid);
    Ok((process, relation))
}

/// The free bytes of the block in which kernels are armed, if there is one; and whether the boot loader's
/// files tell what `cleanup --stale-os` must know.
fn boot_environment(host: &HostRoot) -> Result<Option<usize>, String> {
    let block = boot_mounts::block(host).map_err(|error| chain(&error))?;
    match boot_mounts::rollback(host) {
        Rollback::Unknown { why } => Err(why),
        Rollback::Possible { .. } | Rollback::Impossible => Ok(block.map(|block| block.free)),
    }
}

fn missing_namespaces(host: &HostRoot) -> Result<Vec<&'static str>, String> {
    let folder = "/proc/self/ns";
    let there = host
        .names(folder)
        .map_err(|error| format!("look into {:?}: {}", host.shown(folder), in_words(&error)))?;
    let is_missing = |name: &&str| !there.iter().any(|found| found.to_str() == Some(*name));
    Ok(NAMESPACES.into_iter().filter(is_missing).collect())
}

/// The registered runtimes that may be meant: this runtime under any name, or a file that is called like it.
fn runtimes(context: &Context, info: &EngineInfo) -> Vec<(String, String, RegisteredBinary)> {
    let mut found = Vec::new();
    for (name, runtime) in info.runtimes.iter().flatten() {
        let Some(path) = runtime.path.as_deref().filter(|path| path.starts_with('/')) else {
            continue;
        };
        let file = context.host.find(path).unwrap_or_else(|_| context.host.shown(path));
        let called_so = file.file_name().is_some_and(|name| name == PROGRAM);
        let binary = match context.host.search(path, version::runtime_in) {
            Ok(Some((version, commit))) => {
                if (version.as_str(), commit.as_str()) == (version::VERSION, version::COMMIT) {
                    RegisteredBinary::SameVersion
                } else {
                    RegisteredBinary::OtherVersion { version, commit }
                }
            }
            Ok(None) | Err(_) if !called_so => continue,
            Ok(None) => RegisteredBinary::NoVersion,
            Err(error) if is_absence(&error) => RegisteredBinary::Missing,
            Err(error) => RegisteredBinary::Unreadable { why: in_words(&error).to_string() },
        };
        found.push((name.clone(), path.to_owned(), binary));
    }
    found
}

/// Where the runtime keeps states unless told otherwise; engines tell it a folder beside.
fn state_root(context: &Context) -> Result<String, String> {
    let root = format!("/run/{PROGRAM}");
    let root = if context.host.has_folder(&root).unwrap_or(true) { &root } else { "/run" };
    let shown = context.host.shown(root).display().to_string();
    match context.host.find(root).and_then(|folder| disk::can_write(&folder)) {
        Ok(()) => Ok(shown),
        Err(error) => Err(format!("{shown} cannot be written: {}", in_words(&error))),
    }
}

/// Whether the kernel has overlayfs, built in, loaded, or as a module that it can load.
fn overlay(context: &Context) -> Result<bool, String> {
    let known = context.host.read("/proc/filesystems")?;
    if known.lines().any(|line| line.split_ascii_whitespace().last() == Some("overlay")) {
        return Ok(true);
    }
    let release = release::release(&context.host)?;
    let modules = format!("/lib/modules/{release}/kernel/fs/overlayfs");
    context.host.has_folder(&modules).map_err(|error| {
        format!("look for {:?}: {}", context.host.shown(&modules), in_words(&error))
    })
}
