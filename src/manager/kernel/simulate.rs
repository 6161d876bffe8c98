//! `simulate`: plays boots, health checks and updates on a host root. The commands that it plays are the manager's own;
//! `simulated_boot.rs` plays the initramfs.

use super::super::{Failure, ManagerExit, Session, print};
use super::health::Schedule;
use super::play::{Play, PlayedCheck};
use super::{Device, KernelError, Reboot, activate, hup, validate};
use crate::cli::activation::OfContainer;
use crate::cli::kernel::HupCommand;
use crate::cli::simulate::{SimulateArguments, SimulatedEvent};
use crate::host::kernel::block::BlockFile;
use crate::host::kernel::simulated_device::{self, BOOT_COUNT, Found, ROOT_PART, SimulatedDevice};
use crate::host::kernel::slot;
use crate::host::os::clock;
use crate::host::os::log::Log;
use crate::host::os::privilege;
use crate::model::extension::labels::{ABI, CLASS, OVERLAY, SERVICE_NAME};
use crate::model::kernel::abi::Abi;
use crate::model::kernel::block::UPGRADE_AVAILABLE;
use crate::model::kernel::records::Slot;
use crate::model::kernel::volume::{BootVolume, Unnameable};
use crate::model::text::cause::chain;
use crate::version::VERSION;
use serde_json::{Value, json};
use std::time::Duration;

/// Why a word cannot be played.
#[derive(Debug, thiserror::Error)]
pub(in crate::manager) enum SimulateError {
    #[error(transparent)]
    Device(#[from] simulated_device::Error),
    #[error(transparent)]
    Volume(#[from] Unnameable),
    #[error("cannot play {word}: the device is off, and only boot turns it on")]
    Off { word: String },
    #[error(
        "cannot play {word}: an OS update has begun before (update-commits or update-rolls-back ends it)"
    )]
    UpdateOpen { word: String },
    #[error("cannot play {word}: no OS update has begun (update-begins begins one)")]
    NoUpdate { word: String },
    #[error(
        "cannot play {word}: the update is not in slot {running}, which runs (boot takes the slot of the update)"
    )]
    OtherSlot { word: String, running: Slot },
    #[error("cannot play {word}: there is no such extension (deploy=NAME makes one)")]
    NoExtension { word: String },
}

pub(in crate::manager) fn simulate(
    session: Session,
    request: &SimulateArguments,
) -> Result<ManagerExit, Failure> {
    let host = session.host.clone();
    let (device, found) = SimulatedDevice::open(&host).map_err(SimulateError::from)?;
    privilege::check()?;
    if found == Found::Empty {
        device.make().map_err(SimulateError::from)?;
        print("a new device\n")?;
    }
    let log = Log::to_stdout(session.globals.log_level);
    let mut script = Script { session: Session { log, ..session }, device, cut: None };
    script.print_state()?;
    for event in &request.events {
        script.session.limit.check()?;
        print(&format!("{event}\n"))?;
        script.play(event)?;
    }
    if script.cut.is_some() {
        script.turn_off("power is cut")?;
    }
    Ok(ManagerExit::Done)
}

/// A device, and what the last word has said about the next one.
pub(super) struct Script<'a> {
    pub(super) session: Session,
    pub(super) device: SimulatedDevice<'a>,
    /// After how many steps power is cut.
    cut: Option<u32>,
}

impl Script<'_> {
    fn play(&mut self, event: &SimulatedEvent) -> Result<(), Failure> {
        if let SimulatedEvent::Cut(steps) = event {
            self.cut = Some(*steps);
            return Ok(());
        }
        let cut = self.cut.take();
        self.session.play = Some(Play::new(check_of(event), cut));
        self.happen(event)?;
        if let Some(play) = self.session.play.take() {
            if play.has_rebooted() {
                self.turn_off("the device reboots")?;
            }
            if cut.is_some() {
                self.turn_off(&format!("power is cut after {} of this", play.progress()))?;
            }
        }
        self.print_state()
    }

    fn happen(&self, event: &SimulatedEvent) -> Result<(), Failure> {
        let boots = matches!(event, SimulatedEvent::Boot | SimulatedEvent::BootFails);
        if !boots && !self.device.is_on().map_err(SimulateError::from)? {
            return Err(SimulateError::Off { word: event.to_string() }.into());
        }
        match event {
            SimulatedEvent::Boot => self.boot(),
            SimulatedEvent::BootFails => self.boot_fails(),
            SimulatedEvent::Deploy(name) => self.deploy(name.as_str()),
            SimulatedEvent::Remove(name) => {
                let name = name.as_str();
                if !self.device.has_container(name).map_err(SimulateError::from)? {
                    return Err(SimulateError::NoExtension { word: event.to_string() }.into());
                }
                Ok(self.device.remove_container(name).map_err(SimulateError::from)?)
            }
            SimulatedEvent::Healthy | SimulatedEvent::Unhealthy | SimulatedEvent::NoCheck => {
                self.validate()
            }
            SimulatedEvent::UpdateBegins => self.begin_update(event),
            SimulatedEvent::UpdateCommits => self.end_update(event, HupCommand::Commit),
            SimulatedEvent::UpdateRollsBack => self.end_update(event, HupCommand::Reject),
            SimulatedEvent::Cut(_) => Ok(()),
        }
    }

    /// What the engine and the runtime do, up to the call of the manager.
    fn deploy(&self, name: &str) -> Result<(), Failure> {
        let image = self.device.image(name).map_err(SimulateError::from)?;
        let labels = [(CLASS, OVERLAY), (ABI, image.abi.as_str()), (SERVICE_NAME, name)];
        let label = |wanted: &str| Some(labels.iter().find(|(label, _)| *label == wanted)?.1);
        let volume = BootVolume::of(label, name, Some(image.abi.as_str()));
        let volume = volume.map_err(SimulateError::from)?;
        self.device.fill_volume(volume.as_str(), name).map_err(SimulateError::from)?;
        let write = |state: &Value| {
            let record = record(name, &image.abi, &labels, state);
            self.device.write_container(name, &record).map_err(SimulateError::from)
        };
        write(&json!({ "StartedAt": "0001-01-01T00:00:00Z" }))?;
        print(&format!("  its kernel is {}\n", image.abi))?;
        let call = OfContainer {
            caller: VERSION.to_owned(),
            container: name.to_owned(),
            rootfs: image.rootfs.clone(),
            docker_root_is: None,
            volume: Some(volume.as_str().to_owned()),
            labels: labels.map(|(label, text)| (label.to_owned(), text.to_owned())).into(),
        };
        let started = |code: u8| json!({ "StartedAt": clock::now_in_seconds(), "ExitCode": code });
        match self.report(activate::activate(&self.session, &call)) {
            CommandEnd::Done => Ok(write(&started(0))?),
            CommandEnd::Failed(Failure::Activate(refusal)) if refusal.is_refusal() => {
                print("  the start is refused: the container is Exited (1)\n")?;
                Ok(write(&started(1))?)
            }
            CommandEnd::Failed(_) | CommandEnd::PowerCut => Ok(()),
        }
    }

    /// Prints the error of a command. On the device it would be in a log.
    fn report<T>(&self, result: Result<T, Failure>) -> CommandEnd {
        match result {
            Ok(_) => CommandEnd::Done,
            Err(Failure::Kernel(KernelError::PowerCut)) => CommandEnd::PowerCut,
            Err(failure) => {
                self.session.log.error(&chain(&failure));
                CommandEnd::Failed(failure)
            }
        }
    }

    fn validate(&self) -> Result<(), Failure> {
        let schedule = Schedule { settle: Duration::ZERO, retry: Duration::ZERO, attempts: 1 };
        let judged = match Device::open(&self.session, "validate", Reboot::Allowed) {
            Ok(Some(device)) => validate::judge(&device, schedule),
            Ok(None) => Ok(ManagerExit::Done),
            Err(error) => Err(error.into()),
        };
        self.report(judged);
        Ok(())
    }

    fn begin_update(&self, event: &SimulatedEvent) -> Result<(), Failure> {
        let block = self.block()?;
        if block.read().map_err(KernelError::from)?.can_roll_back() {
            return Err(SimulateError::UpdateOpen { word: event.to_string() }.into());
        }
        let slot = slot::running(&self.session.host).map_err(KernelError::from)?.other();
        self.device.set_update_slot(slot).map_err(SimulateError::from)?;
        let values = [
            (ROOT_PART, slot.to_string()),
            (BOOT_COUNT, 0.to_string()),
            (UPGRADE_AVAILABLE, 1.to_string()),
        ];
        Ok(block.play(&values).map_err(KernelError::from)?)
    }

    /// `rollback-health` calls `hup` while the window is open, and closes the window then.
    fn end_update(&self, event: &SimulatedEvent, command: HupCommand) -> Result<(), Failure> {
        let block = self.block()?;
        if !block.read().map_err(KernelError::from)?.can_roll_back() {
            return Err(SimulateError::NoUpdate { word: event.to_string() }.into());
        }
        let running = slot::running(&self.session.host).map_err(KernelError::from)?;
        if self.device.update_slot().map_err(SimulateError::from)? != Some(running) {
            let word = event.to_string();
            return Err(SimulateError::OtherSlot { word, running }.into());
        }
        // Closing the window is a durable step, too.
        let ended = hup::hup(&self.session, &command).and_then(|exit| {
            self.session.play.iter().try_for_each(Play::spend_step)?;
            Ok(exit)
        });
        match (self.report(ended), command) {
            (CommandEnd::Failed(_) | CommandEnd::PowerCut, _) => Ok(()),
            (CommandEnd::Done, HupCommand::Commit) => self.close_window(running),
            (CommandEnd::Done, HupCommand::Reject) => {
                self.close_window(running.other())?;
                self.turn_off("the device reboots")
            }
        }
    }

    /// The next boots take this slot.
    pub(super) fn close_window(&self, slot: Slot) -> Result<(), Failure> {
        let values = [
            (ROOT_PART, slot.to_string()),
            (BOOT_COUNT, 0.to_string()),
            (UPGRADE_AVAILABLE, 0.to_string()),
        ];
        Ok(self.block()?.play(&values).map_err(KernelError::from)?)
    }

    pub(super) fn block(&self) -> Result<BlockFile<'_>, KernelError> {
        BlockFile::find(&self.session.host)?.ok_or(KernelError::NoOverrides)
    }

    pub(super) fn turn_off(&self, why: &str) -> Result<(), Failure> {
        print(&format!("  {why}\n"))?;
        Ok(self.device.turn_off().map_err(SimulateError::from)?)
    }
}

/// How a command has ended that was played.
enum CommandEnd {
    Done,
    /// Its error was printed.
    Failed(Failure),
    PowerCut,
}

fn check_of(event: &SimulatedEvent) -> PlayedCheck {
    match event {
        SimulatedEvent::Unhealthy => PlayedCheck::Fails,
        SimulatedEvent::NoCheck => PlayedCheck::Missing,
        SimulatedEvent::Deploy(_)
        | SimulatedEvent::Remove(_)
        | SimulatedEvent::Boot
        | SimulatedEvent::BootFails
        | SimulatedEvent::Healthy
        | SimulatedEvent::UpdateBegins
        | SimulatedEvent::UpdateCommits
        | SimulatedEvent::UpdateRollsBack
        | SimulatedEvent::Cut(_) => PlayedCheck::Passes,
    }
}

/// The engine's record of a container.
fn record(name: &str, abi: &Abi, labels: &[(&str, &str)], state: &Value) -> String {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(label, text)| ((*label).to_owned(), (*text).into())).collect();
    let config = json!({ "Image": name, "Labels": labels });
    let image = format!("sha256:{abi}");
    json!({ "ID": name, "Name": format!("/{name}"), "State": state, "Image": image, "Config": config })
        .to_string()
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum SimulateError {
        Device(..), Volume(..), Off { word }, UpdateOpen { word }, NoUpdate { word },
        OtherSlot { word, running = Slot::A }, NoExtension { word },
    }
}
