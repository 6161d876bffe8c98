//! Where the page of mount options ends: in the plan, and in the kernel of this machine.

use std::fs;
use std::path::Path;

use super::device::Device;
use super::kernel::{Overlay, in_own_mounts};

/// Links of one digit, and of two.
const SHORT: usize = "/tmp/mobynit-lowerNNNNNNNNNN/0:".len();
const LONG: usize = SHORT + 1;

#[test]
fn one_byte_decides_whether_the_last_extension_fits() {
    let device = Device::new();
    device.deploy('a', &[], &[&[("opt/a", "a")]]);
    device.deploy('b', &[("override", "1")], &[&[("opt/b", "b")]]);
    device.deploy('c', &[], &[&[("opt/c", "c")], &[("opt/d", "d")]]);
    // Two layers of each image or container, three of the last one, and the OS's; and no separator behind the last.
    let all = "lowerdir=".len() + 10 * SHORT + (30 + 7 - 10) * LONG - 1;
    let planned = |page: usize| {
        let page_size = format!("--page-size={page}");
        let (code, document, reasons) = device.reasons(&[&page_size, "--os-layers=30"]);
        assert_eq!(
            (&document["pageSize"], &document["lengthMax"]),
            (&page.into(), &(page - 2).into())
        );
        let length = usize::try_from(document["length"].as_u64().unwrap()).unwrap();
        assert_eq!(document["lowerdir"].as_str().unwrap().len(), length, "no layer is shared");
        (code, length, reasons)
    };
    assert_eq!(planned(all + 3), (0, all, "below-os above-os below-os".to_owned()));
    assert_eq!(planned(all + 2), (0, all, "below-os above-os below-os".to_owned()));
    assert_eq!(planned(all + 1), (1, all - 3 * LONG, "below-os above-os no-room".to_owned()));
    let without_c = all - 3 * LONG;
    assert_eq!(planned(without_c + 2), (1, without_c, "below-os above-os no-room".to_owned()));
    // The one above the OS is added first, whatever its id is.
    assert_eq!(
        planned(without_c + 1),
        (1, without_c - 2 * LONG, "no-room above-os no-room".to_owned())
    );
}

#[test]
fn the_kernel_takes_a_page_less_one_byte_and_cuts_what_is_longer() {
    in_own_mounts(|top| {
        let page = rustix::param::page_size();
        for layer in ["top", "x", "xx"] {
            fs::create_dir_all(top.join(layer)).unwrap();
            fs::write(top.join(layer).join(format!("of-{layer}")), "").unwrap();
        }
        // Slashes between the parts of a path do not change where it leads.
        let shown = |length: usize| {
            let head = format!("lowerdir={0}/top:{0}/", top.to_str().unwrap());
            let slashes = "/".repeat(length - head.len() - "xx".len());
            let options = format!("{head}{slashes}xx");
            assert_eq!(options.len(), length);
            let point = top.join("point");
            let _overlay = Overlay::mount(&point, &options).unwrap();
            names(&point)
        };
        // The initramfs stops one byte earlier than it would have to.
        assert_eq!(shown(page - 2), ["of-top", "of-xx"]);
        assert_eq!(shown(page - 1), ["of-top", "of-xx"]);
        assert_eq!(shown(page), ["of-top", "of-x"], "without a word, another layer is mounted");
    });
}

#[test]
fn the_kernel_does_not_mount_a_single_layer() {
    in_own_mounts(|top| {
        fs::create_dir(top.join("own")).unwrap();
        let options = format!("lowerdir={}/own", top.to_str().unwrap());
        let refused = Overlay::mount(&top.join("point"), &options).err().unwrap();
        assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::INVAL.raw_os_error()));
    });
    let device = Device::new();
    device.deploy('a', &[], &[]);
    let (code, document, reasons) = device.reasons(&[]);
    assert_eq!((code, reasons.as_str()), (1, "cannot-mount"), "{document:#}");
}

#[test]
fn an_extension_whose_own_mount_exceeds_the_page_is_left_out() {
    let device = Device::new();
    let file = [("opt/x", "x")];
    for (letter, count) in [('a', 63), ('b', 64)] {
        device.deploy(letter, &[], &vec![file.as_slice(); count]);
    }
    // The container's own layer comes with them, and each takes 63 bytes.
    let (code, document, reasons) = device.reasons(&["--page-size=4096"]);
    assert_eq!((code, reasons.as_str()), (1, "below-os cannot-mount"), "{document:#}");
    let (_, document, reasons) = device.reasons(&["--page-size=65536"]);
    assert_eq!(reasons, "below-os below-os", "{document:#}");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
