//! The boots of a simulated device: what the initramfs decides and writes, and what can be seen of the device afterwards.

use super::super::{Failure, print};
use super::KernelError;
use super::simulate::{Script, SimulateError};
use crate::host::engine::claims;
use crate::host::kernel::override_store::OverrideStore;
use crate::host::kernel::simulated_device::{BOOT_COUNT, ROOT_PART};
use crate::host::kernel::slot;
use crate::model::extension::claim::abi_of;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::block::Block;
use crate::model::kernel::initramfs::{self, BOOT_LIMIT, Boot, BootView};
use crate::model::kernel::records::{Field, Slot, TRIAL_LIMIT};
use crate::model::text::cause::chain;
use crate::model::text::cut::short_id;
use std::collections::{BTreeMap, BTreeSet};

/// The names of the extensions, by the kernels that they bring.
struct KernelNames(BTreeMap<Abi, String>);

impl KernelNames {
    fn of<'a>(&'a self, abi: &'a Abi) -> &'a str {
        self.0.get(abi).map_or(short_id(abi.as_str()), String::as_str)
    }

    fn of_field<'a>(&'a self, field: &'a Field) -> &'a str {
        match field {
            Field::Empty => "stock",
            Field::Abi(abi) => self.of(abi),
            Field::Malformed => "malformed",
        }
    }
}

impl Script<'_> {
    pub(super) fn boot(&self) -> Result<(), Failure> {
        let Boot { kernel, slot, values, .. } = self.start_boot()?;
        let mut layered = BTreeSet::new();
        for (abi, name) in self.names()?.0 {
            if kernel.as_ref() == Ok(&abi)
                && self.device.has_container(&name).map_err(SimulateError::from)?
            {
                layered.insert(name);
            }
        }
        self.device.run(slot, kernel.as_ref().ok(), &layered).map_err(SimulateError::from)?;
        let update = self.device.update_slot().map_err(SimulateError::from)?;
        if values.update_window && update == Some(slot.other()) {
            print("  the OS finds that the update has failed, and closes the update window\n")?;
            self.close_window(slot)?;
        }
        Ok(())
    }

    pub(super) fn boot_fails(&self) -> Result<(), Failure> {
        self.start_boot()?;
        self.turn_off("it never comes up")
    }

    /// What the initramfs does before it loads a kernel.
    fn start_boot(&self) -> Result<Boot, Failure> {
        let block = self.block()?;
        let content = block.read().map_err(KernelError::from)?;
        let (host, values) = (&self.session.host, content.values());
        let store = OverrideStore::new(host);
        let mut bootable = store.published().map_err(KernelError::from)?.abis;
        bootable.retain(|abi| store.is_bootable(abi).unwrap_or(false));
        let claims = claims::load_claims(host).unwrap_or_else(|error| {
            self.session.log.warn(&chain(&error));
            BTreeSet::new()
        });
        let next = next_slot(&content);
        let boot = initramfs::boot(&BootView {
            values: &values,
            slot: next,
            boots: boots(&content),
            bootable: &bootable,
            claims: &claims,
        });
        block.change(|_| Some(boot.values.clone())).map_err(KernelError::from)?;
        if values.update_window {
            let counted =
                [(ROOT_PART, boot.slot.to_string()), (BOOT_COUNT, boot.boots.to_string())];
            block.play(&counted).map_err(KernelError::from)?;
        }
        if boot.slot != next {
            print(&format!(
                "  slot {next} was booted {BOOT_LIMIT} times: the other slot is taken\n"
            ))?;
        }
        let kernel = match &boot.kernel {
            Ok(abi) => format!("the kernel of {}", self.names()?.of(abi)),
            Err(why) => format!("the stock kernel, because {why}"),
        };
        print(&format!("  slot {} boots {kernel}\n", boot.slot))?;
        Ok(boot)
    }

    fn names(&self) -> Result<KernelNames, SimulateError> {
        Ok(KernelNames(self.device.kernels()?))
    }

    /// One line with everything that decides what happens next.
    pub(super) fn print_state(&self) -> Result<(), Failure> {
        let host = &self.session.host;
        let content = self.block()?.read().map_err(KernelError::from)?;
        let (values, names) = (content.values(), self.names()?);
        let next = next_slot(&content);
        let running = match self.device.is_on().map_err(SimulateError::from)? {
            false => "off".to_owned(),
            true => {
                let cmdline = host.read("/proc/cmdline");
                let cmdline = cmdline.map_err(|why| KernelError::Running { why })?;
                let kernel = Field::from(abi_of(&cmdline).and_then(|abi| Abi::parse(&abi)));
                let slot = slot::running(host).map_err(KernelError::from)?;
                format!("{} in slot {slot}", names.of_field(&kernel))
            }
        };
        let trial = match values.is_on_trial(next) {
            true => format!(" (trial, {} of {TRIAL_LIMIT} boots)", values.boots()),
            false => String::new(),
        };
        let rejected = OverrideStore::new(host).rejected().map_err(KernelError::from)?;
        let rejected: Vec<&str> = rejected.iter().map(|abi| names.of(abi)).collect();
        let rejected = if rejected.is_empty() { "none".to_owned() } else { rejected.join(", ") };
        let window = match values.update_window {
            true => format!("; update window: {} of {BOOT_LIMIT} boots", boots(&content)),
            false => String::new(),
        };
        let armed = names.of_field(&values.arm);
        let [a, b] = [&values.committed.a, &values.committed.b].map(|field| names.of_field(field));
        print(&format!(
            "  => running: {running}; next: {armed}{trial} in slot {next}; committed: A {a}, B {b}; rejected: \
             {rejected}{window}\n"
        ))
    }
}

/// The slot that the boot loader takes.
fn next_slot(block: &Block) -> Slot {
    block.value(ROOT_PART).and_then(|text| Slot::parse(&text)).unwrap_or(Slot::A)
}

fn boots(block: &Block) -> u32 {
    let count = block.value(BOOT_COUNT).unwrap_or_default();
    count.trim().parse().unwrap_or_default()
}
