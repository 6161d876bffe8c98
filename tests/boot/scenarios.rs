//! The scenarios, and what each boot reports. `X` is the kernel that the extension brings.

use crate::device::{Device, Scenario};
use crate::kernel::{HALTED, Override};
use crate::machine::Boot;
use crate::power_cuts;

pub(crate) const ALL: [(&str, Scenario); 6] = [
    ("a_healthy_kernel_is_committed", (Override::Good, healthy)),
    ("a_kernel_that_is_never_healthy_is_rejected", (Override::Good, unhealthy)),
    ("a_kernel_that_never_boots_is_given_up_after_three_boots", (Override::Broken, broken)),
    ("an_os_update_that_rolls_back_takes_its_kernel_along", (Override::Good, rolled_back)),
    ("an_os_update_that_never_comes_up_takes_its_kernel_along", (Override::Good, never_up)),
    ("a_power_cut_at_any_moment_of_arming_is_survived", (Override::Good, power_cuts::scenario)),
];

/// The extension is deployed on the stock kernel.
pub(crate) const ARMED: &str = "
    initramfs: slot A, the stock kernel
    os: the stock kernel runs in slot A
    os: the extension was started
    block: resin_root_part=A
    block: kernel_override_abi=X
    status: running the stock kernel in slot A
    status: armed X, on trial: booted 0 of 3 times
    status: committed A the stock kernel
    status: committed B the stock kernel
    status: published X
    status: ../docker/volumes/ext_c0c0c0c0c0c0_1a1a1a1a1a1a_boot/_data/vmlinuz; claimed by a deployed extension
    history: activate armed X - armed the kernel X; the next boot tries it
    os: power off
";

fn healthy(device: &Device) -> Result<(), String> {
    device.boots("deploy", ARMED)?;
    device.boots(
        "healthy,validate",
        "
        initramfs: slot A, the kernel X, boot 1 on trial
        os: the kernel X runs in slot A
        os: balena-extension-manager validate: exit status 0
        block: resin_root_part=A
        block: kernel_override_abi=X
        block: kernel_override_abi_committed_A=X
        status: running X in slot A
        status: armed X
        status: committed A X
        status: committed B the stock kernel
        status: published X
        status: ../docker/volumes/ext_c0c0c0c0c0c0_1a1a1a1a1a1a_boot/_data/vmlinuz; claimed by a deployed extension
        history: validate trial X A the kernel X is on trial
        history: validate health-passed X A health check 1 passed
        history: validate committed X A committed the kernel X in slot A
        os: power off
        ",
    )?;
    // It is neither counted nor judged again.
    device.boots(
        "validate",
        "
        initramfs: slot A, the kernel X
        os: the kernel X runs in slot A
        os: balena-extension-manager validate: exit status 0
        block: resin_root_part=A
        block: kernel_override_abi=X
        block: kernel_override_abi_committed_A=X
        status: running X in slot A
        status: armed X
        status: committed A X
        status: committed B the stock kernel
        status: published X
        status: ../docker/volumes/ext_c0c0c0c0c0c0_1a1a1a1a1a1a_boot/_data/vmlinuz; claimed by a deployed extension
        os: power off
        ",
    )
}

fn unhealthy(device: &Device) -> Result<(), String> {
    device.boots("deploy", ARMED)?;
    device.boots(
        "validate",
        "
        initramfs: slot A, the kernel X, boot 1 on trial
        os: the kernel X runs in slot A
        systemctl reboot
        os: balena-extension-manager validate: exit status 0
        block: resin_root_part=A
        status: running X in slot A
        status: armed the stock kernel
        status: committed A the stock kernel
        status: committed B the stock kernel
        status: rejected X
        status: rejected the kernel X: its health check failed; the next boot has the stock kernel
        history: validate trial X A the kernel X is on trial
        history: validate health-failed X A health check 1 failed: rollback-tests exited with status 1: the modem is missing
        history: validate health-failed X A health check 2 failed: rollback-tests exited with status 1: the modem is missing
        history: validate rejected-by-health X - rejected the kernel X: its health check failed; the next boot has the stock kernel
        os: power off
        ",
    )?;
    // The device is back, and the same extension does not arm the kernel again.
    device.boots(
        "validate,deploy",
        "
        initramfs: slot A, the stock kernel
        os: the stock kernel runs in slot A
        os: balena-extension-manager validate: exit status 0
        os: started with a warning: refused: the kernel of the image cannot be used: the kernel X was tried and rejected, so it is not armed again (to allow it: balena-extension-manager override retry X)
        block: resin_root_part=A
        status: running the stock kernel in slot A
        status: armed the stock kernel
        status: committed A the stock kernel
        status: committed B the stock kernel
        status: rejected X
        status: rejected the kernel X: its health check failed; the next boot has the stock kernel
        os: power off
        ",
    )
}

fn broken(device: &Device) -> Result<(), String> {
    device.boots("deploy", ARMED)?;
    for trial in 1..=3 {
        // It hangs, and somebody switches the device off and on.
        device.boots_as(
            "nothing",
            Boot::SwitchedOffAt(HALTED),
            &format!("initramfs: slot A, the kernel X, boot {trial} on trial"),
        )?;
    }
    device.boots(
        "validate",
        "
        initramfs: the kernel X is not booted: it was booted 3 times on trial
        initramfs: slot A, the stock kernel
        os: the stock kernel runs in slot A
        os: balena-extension-manager validate: exit status 0
        block: resin_root_part=A
        status: running the stock kernel in slot A
        status: armed the stock kernel
        status: committed A the stock kernel
        status: committed B the stock kernel
        status: rejected X
        status: rejected the kernel X: it was booted 3 times and does not run; the next boot has the stock kernel
        history: validate rejected-by-boots X - rejected the kernel X: it was booted 3 times and does not run; the next boot has the stock kernel
        os: power off
        ",
    )
}

/// An OS update is installed into slot B.
const UPDATE_BEGUN: &str = "
    initramfs: slot A, the stock kernel
    os: the stock kernel runs in slot A
    block: resin_root_part=B
    block: upgrade_available=1
    block: bootcount=0
    status: running the stock kernel in slot A
    status: armed the stock kernel
    status: committed A the stock kernel
    status: committed B the stock kernel
    status: update an OS update can still roll back; it judges the kernel
    history: nothing is recorded about kernel overrides
    os: power off
";

/// It runs for the first time, and the extension is deployed.
const ARMED_IN_SLOT_B: &str = "
    initramfs: slot B, the stock kernel
    os: the stock kernel runs in slot B
    os: the extension was started
    block: resin_root_part=B
    block: upgrade_available=1
    block: bootcount=1
    block: kernel_override_abi=X
    status: running the stock kernel in slot B
    status: armed X, on trial: booted 0 of 3 times
    status: committed A the stock kernel
    status: committed B the stock kernel
    status: update an OS update can still roll back; it judges the kernel
    status: published X
    status: ../docker/volumes/ext_c0c0c0c0c0c0_1a1a1a1a1a1a_boot/_data/vmlinuz; claimed by a deployed extension
    history: activate armed X - armed the kernel X; the next boot tries it
    os: power off
";

fn rolled_back(device: &Device) -> Result<(), String> {
    device.boots("update", UPDATE_BEGUN)?;
    device.boots("deploy", ARMED_IN_SLOT_B)?;
    // The health check would fail, but in an update window nothing is judged.
    device.boots(
        "validate,roll-back",
        "
        initramfs: slot B, the kernel X, boot 1 on trial
        os: the kernel X runs in slot B
        os: balena-extension-manager validate: exit status 0
        os: balena-extension-manager hup: exit status 0
        block: resin_root_part=A
        block: upgrade_available=0
        block: bootcount=0
        block: kernel_override_trial=1
        block: kernel_override_abi_rejected=X
        status: running X in slot B
        status: armed the stock kernel
        status: committed A the stock kernel
        status: committed B the stock kernel
        status: to forget X, at the next validate
        status: published X
        status: ../docker/volumes/ext_c0c0c0c0c0c0_1a1a1a1a1a1a_boot/_data/vmlinuz; claimed by a deployed extension
        history: hup reject rolled-back X - the OS update rolls back: the next boot has the stock kernel in place of X
        os: power off
        ",
    )?;
    // The kernel is forgotten and not rejected.
    device.boots(
        "validate",
        "
        initramfs: slot A, the stock kernel
        os: the stock kernel runs in slot A
        os: balena-extension-manager validate: exit status 0
        block: resin_root_part=A
        block: upgrade_available=0
        block: bootcount=0
        status: running the stock kernel in slot A
        status: armed the stock kernel
        status: committed A the stock kernel
        status: committed B the stock kernel
        history: validate rolled-back-forgotten X - forgot the kernel X, because the OS update rolled back
        os: power off
        ",
    )
}

fn never_up(device: &Device) -> Result<(), String> {
    device.boots("update", UPDATE_BEGUN)?;
    device.boots("deploy", ARMED_IN_SLOT_B)?;
    let counted = |boots: u32, trials: u32| {
        format!(
            "
            initramfs: slot B, the kernel X, boot {trials} on trial
            os: the kernel X runs in slot B
            block: resin_root_part=B
            block: upgrade_available=1
            block: bootcount={boots}
            block: kernel_override_abi=X
            block: kernel_override_trial={trials}
            status: running X in slot B
            status: armed X, on trial: booted {trials} of 3 times
            status: committed A the stock kernel
            status: committed B the stock kernel
            status: update an OS update can still roll back; it judges the kernel
            status: published X
            status: ../docker/volumes/ext_c0c0c0c0c0c0_1a1a1a1a1a1a_boot/_data/vmlinuz; claimed by a deployed extension
            os: power off
            "
        )
    };
    device.boots("nothing", &counted(2, 1))?;
    device.boots("nothing", &counted(3, 2))?;
    // The other slot may try the same kernel, and counts from the beginning.
    device.boots(
        "validate,deploy",
        "
        initramfs: the update is rolled back to slot A
        initramfs: slot A, the stock kernel
        os: the stock kernel runs in slot A
        os: balena-extension-manager validate: exit status 0
        os: the extension was started
        block: resin_root_part=A
        block: upgrade_available=0
        block: bootcount=0
        block: kernel_override_abi=X
        status: running the stock kernel in slot A
        status: armed X, on trial: booted 0 of 3 times
        status: committed A the stock kernel
        status: committed B the stock kernel
        status: published X
        status: ../docker/volumes/ext_c0c0c0c0c0c0_1a1a1a1a1a1a_boot/_data/vmlinuz; claimed by a deployed extension
        history: activate armed X - armed the kernel X; the next boot tries it
        os: power off
        ",
    )
}

/// After a power cut between the link and the block: the stock kernel runs, and the deploy is repeated.
pub(crate) const CUT_AFTER_THE_LINK: &str = "
    initramfs: slot A, the stock kernel
    os: the stock kernel runs in slot A
    os: balena-extension-manager validate: exit status 0
    os: the extension was started
    block: resin_root_part=A
    block: kernel_override_abi=X
    status: running the stock kernel in slot A
    status: armed X, on trial: booted 0 of 3 times
    status: committed A the stock kernel
    status: committed B the stock kernel
    status: published X
    status: ../docker/volumes/ext_c0c0c0c0c0c0_1a1a1a1a1a1a_boot/_data/vmlinuz; claimed by a deployed extension
    history: activate armed X - armed the kernel X; the next boot tries it
    os: power off
";

/// After a power cut between the block and the history: the kernel is tried.
pub(crate) const CUT_AFTER_THE_BLOCK: &str = "
    initramfs: slot A, the kernel X, boot 1 on trial
    os: the kernel X runs in slot A
    os: balena-extension-manager validate: exit status 0
    block: resin_root_part=A
    block: kernel_override_abi=X
    block: kernel_override_abi_committed_A=X
    status: running X in slot A
    status: armed X
    status: committed A X
    status: committed B the stock kernel
    status: published X
    status: ../docker/volumes/ext_c0c0c0c0c0c0_1a1a1a1a1a1a_boot/_data/vmlinuz; claimed by a deployed extension
    history: validate trial X A the kernel X is on trial
    history: validate health-passed X A health check 1 passed
    history: validate committed X A committed the kernel X in slot A
    os: power off
";
