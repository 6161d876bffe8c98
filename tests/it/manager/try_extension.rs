//! `try`: what a command sees in the view, what it leaves behind, and what is refused. `tests/stress` kills it at every
//! system call, and `tests/engines` tries images of a real dockerd.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::Pid;

use super::host::bare;
use super::overlay_store::OverlayStore;
use super::recorded_store::{ABI, KERNEL, labels};
use crate::capture::{run, start};
use crate::finished::{End, Finished};
use crate::process::wait_for_within;

const OVERRIDE: &str = "io.balena.image.override";

/// A call on the host of these tests. No engine runs there.
fn call(store: &OverlayStore, words: &[&str]) -> Command {
    let mut command = bare(&["try", "--host", "unix:///nonexistent/engine.sock"]);
    command.arg("--docker-root").arg(store.path()).args(words).env_remove("SHELL");
    command
}

/// The same with the default effect of a terminal's keys, which a program that a script starts in the background does not
/// have: it inherits that they are ignored.
fn call_from_a_terminal(store: &OverlayStore, words: &[&str]) -> Command {
    let called = call(store, words);
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,QUIT", "--unset=SHELL"]).arg(called.get_program());
    command.args(called.get_args());
    command
}

fn view(store: &OverlayStore, words: &[&str]) -> Finished {
    run(&mut call(store, words))
}

/// A store with an image `ext` of two layers.
fn store() -> OverlayStore {
    let store = OverlayStore::new();
    store.file("base", "opt/ext/a", "a of base\n");
    store.file("base", "opt/ext/b", "b of base\n");
    store.file("base", "opt/ext/deep/c", "c\n");
    let top = store.file("top", "opt/ext/a", "a of top\n");
    mknod(&top.join("opt/ext/b"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    std::fs::create_dir_all(top.join("opt/ext/deep")).unwrap();
    let deep = std::fs::File::open(top.join("opt/ext/deep")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(deep, "trusted.overlay.opaque", b"y", flags).unwrap();
    // In the place of a file of the host, which it only replaces above the OS.
    store.file("top", "etc/passwd", "passwd of ext\n");
    store.image("ext", &labels(&[]), &["base", "top"]);
    store
}

/// The processes whose command line has the word `mark`.
fn marked(mark: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let line = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    let has_mark =
        |line: &Vec<u8>| line.split(|&byte| byte == 0).any(|word| word == mark.as_bytes());
    all.filter_map(line).filter(has_mark).count()
}

#[test]
fn an_image_is_seen_as_after_the_next_boot() {
    let store = store();
    let id = store.image("other", &labels(&[]), &["base"]);
    let listed = view(&store, &["ext", "--", "find", "/opt/ext", "-type", "f"]).ok();
    assert_eq!(listed.out, "/opt/ext/a\n", "{listed}");
    assert_eq!(view(&store, &["ext:latest", "--", "cat", "/opt/ext/a"]).ok().out, "a of top\n");
    assert_eq!(view(&store, &[&id[..12], "--", "cat", "/opt/ext/a"]).ok().out, "a of base\n");
    // Below the OS it only adds files; a label puts it above.
    let passwd = ["--", "cat", "/etc/passwd"];
    let host = std::fs::read_to_string("/etc/passwd").unwrap();
    assert_eq!(view(&store, &[&["ext"], &passwd[..]].concat()).ok().out, host);
    let above = format!("{OVERRIDE}=1");
    let words = [&["ext", "--label", above.as_str()], &passwd[..]].concat();
    assert_eq!(view(&store, &words).ok().out, "passwd of ext\n");
    assert!(!Path::new("/opt/ext/a").exists());
}

#[test]
fn deployed_extensions_are_there_too_or_those_that_are_named() {
    const ALL: &str = "a\naaaa1\nbbbb1\ndeep\na of bbbb1\n";
    let store = store();
    for (id, priority) in [("aaaa1", "2"), ("bbbb1", "1")] {
        store.file(id, "opt/ext/a", &format!("a of {id}\n"));
        store.file(id, &format!("opt/ext/{id}"), id);
        store.container(id, &labels(&[(OVERRIDE, priority)]), &[id, "base"]);
    }
    store.container("cccc1", &labels(&[(KERNEL, "1.2.3")]), &["base"]);
    let list = ["--", "sh", "-c", "ls /opt/ext; cat /opt/ext/a"];
    // The layer that they share is named once, at its last place, which is below the whiteout of "b".
    let all = view(&store, &[&["ext"], &list[..]].concat()).ok();
    assert_eq!(all.out, ALL, "{all}");
    all.says("name-of-cccc1").says("is not in the view").says("1.2.3");
    for name in ["aaaa1", "name-of-aaaa1", "aa"] {
        let one = view(&store, &[&["ext", "--with", name], &list[..]].concat()).ok();
        assert_eq!(one.out, "a\naaaa1\ndeep\na of aaaa1\n", "{one}");
        assert_eq!(one.err, "");
    }
    let both = ["ext", "--with", "aaaa1", "--with", "bbbb1"];
    let both = view(&store, &[&both[..], &list[..]].concat()).ok();
    assert_eq!((both.out.as_str(), both.err.as_str()), (ALL, ""));
    let refused = view(&store, &[&["ext", "--with", "cccc1"], &list[..]].concat());
    refused
        .fails_with(125)
        .says("\"name-of-cccc1\" was built for another system")
        .says("1.2.3")
        .says("next: ");
    let none = view(&store, &[&["ext", "--with", "dddd"], &list[..]].concat());
    none.fails_with(125).says("no extension \"dddd\"");
}

#[test]
fn a_directory_is_an_extension_with_the_labels_that_are_added() {
    let store = OverlayStore::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("opt/directory")).unwrap();
    std::fs::write(folder.path().join("opt/directory/a"), "of the directory\n").unwrap();
    let path = folder.path().to_str().unwrap();
    let read = ["--", "cat", "/opt/directory/a"];
    let seen = view(&store, &[&[path], &read[..]].concat()).ok();
    assert_eq!((seen.out.as_str(), seen.err.as_str()), ("of the directory\n", ""));
    let link = folder.path().join("link");
    symlink(folder.path(), &link).unwrap();
    view(&store, &[&[link.to_str().unwrap()], &read[..]].concat()).ok();
    let here =
        run(call(&store, &[&["./opt/.."], &read[..]].concat()).current_dir(folder.path())).ok();
    assert_eq!(here.out, "of the directory\n");
    // Without a path it is the name of an image.
    let image = run(call(&store, &[&["opt"], &read[..]].concat()).current_dir(folder.path()));
    image.fails_with(125).says("no image \"opt\"").says("its path is \"./opt\"");
    let file = folder.path().join("opt/directory/a");
    let file = view(&store, &[file.to_str().unwrap()]).fails_with(125);
    file.says("cannot open the directory");
    let missing = view(&store, &["./missing"]).fails_with(125);
    missing.says("cannot open the directory \"./missing\": missing");
    for label in ["io.balena.image.class=volume", "io.balena.image.class="] {
        let words = [&[path, "--label", label], &read[..]].concat();
        view(&store, &words).fails_with(125).says("is no extension");
    }
    let old = format!("{KERNEL}=1.2.3");
    let words = [&[path, "--label", old.as_str()], &read[..]].concat();
    view(&store, &words).fails_with(125).says("was built for another system").says("1.2.3");
}

/// Runs a call where a filesystem with a file is mounted on `/mnt`.
fn with_a_mount(called: &Command) -> Finished {
    let script = "mount -t tmpfs tmpfs /mnt; echo x >/mnt/x; exec \"$@\"";
    let mut sandbox = Command::new("unshare");
    sandbox.args(["--mount", "sh", "-ec", script, "sh"]).arg(called.get_program());
    run(sandbox.args(called.get_args()))
}

#[test]
fn the_view_is_read_only_with_its_own_places_in_memory() {
    let store = store();
    let script = "
        for place in /etc /opt/ext /sys /mnt; do
            if touch $place/try-was-here 2>/dev/null; then echo \"$place\"; fi
        done
        test -z \"$(ls -A /tmp)\" && touch /tmp/a /dev/shm/a && echo a >/dev/null && pwd
        test \"$(ls -d /proc/[0-9]* | wc -l)\" -le 5 && echo $$";
    let seen = with_a_mount(&call(&store, &["ext", "--", "sh", "-c", script])).ok();
    assert_eq!(seen.out, "/\n2\n", "{seen}");
    let script = "touch /etc/try-was-here && rm /opt/ext/a && ls /etc/try-was-here /opt/ext";
    let seen = view(&store, &["ext", "--writable", "--", "sh", "-c", script]).ok();
    assert_eq!(seen.out, "/etc/try-was-here\n\n/opt/ext:\ndeep\n", "{seen}");
    for left in ["/etc/try-was-here", "/tmp/a"] {
        assert!(!Path::new(left).exists(), "{left}");
    }
    assert!(store.layer("top").join("opt/ext/a").exists());
}

#[test]
fn the_exit_status_is_that_of_the_command() {
    let store = store();
    for (words, status) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
        (&["try-no-such-command"], 127),
        (&["/etc/passwd"], 126),
        // What it leaves running ends with it.
        (&["sh", "-c", "sleep 100 & exit 3"], 3),
    ] {
        let finished = view(&store, &[&["ext", "--"], words].concat());
        assert_eq!(finished.code(), status, "{finished}");
    }
    view(&store, &["none", "--", "true"]).fails_with(125).says("no image \"none\"");
    view(&store, &["--", "true"]).fails_with(2);
    view(&store, &["ext", "true"]).fails_with(2);
    let shell = |shell: Option<&str>| {
        let mut call = call(&store, &["ext"]);
        shell.map(|shell| call.env("SHELL", shell));
        run(&mut call)
    };
    // Its input is empty, so a shell ends at once.
    shell(None).silent();
    assert!(shell(Some("/usr/bin/env")).ok().out.contains("SHELL=/usr/bin/env\n"));
}

#[test]
fn every_process_ends_with_the_manager() {
    let store = store();
    let script = "sleep 7711 & setsid sh -c 'trap \"\" TERM HUP INT; sleep 7711 & wait' & wait";
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGHUP] {
        let called = start(&mut call(&store, &["ext", "--", "sh", "-c", script]));
        wait_for_within(Duration::from_secs(20), "the command", || {
            (marked("7711") == 2).then_some(())
        });
        kill(Pid::from_raw(called.pid()), signal).unwrap();
        let killed = Instant::now();
        wait_for_within(Duration::from_secs(1), "the end of all", || {
            (marked("7711") == 0).then_some(())
        });
        assert!(killed.elapsed() < Duration::from_secs(1));
        let end = called.finish_within(Duration::from_secs(1)).end;
        assert_eq!(end, End::Killed(signal));
    }
}

/// On a terminal, the keys send a signal to the manager as well.
#[test]
fn the_keys_of_a_terminal_are_for_the_command() {
    let store = store();
    let blocked = ["grep", "SigBlk", "/proc/self/status"];
    let in_view = view(&store, &[&["ext", "--"], &blocked[..]].concat()).ok();
    assert_eq!(in_view.out, run(Command::new("grep").args(&blocked[1..])).ok().out);
    for (signal, number) in [(Signal::SIGINT, "2"), (Signal::SIGQUIT, "3")] {
        let script = format!("trap 'exit 42' {number}; kill -{number} $$; sleep 20");
        let words = ["ext", "--", "sh", "-c", &script];
        run(&mut call_from_a_terminal(&store, &words)).fails_with(42);
        let words = ["ext", "--", "sh", "-c", "sleep 7712; exit 43"];
        let called = start(&mut call_from_a_terminal(&store, &words));
        wait_for_within(Duration::from_secs(20), "the command", || {
            (marked("7712") == 1).then_some(())
        });
        kill(Pid::from_raw(called.pid()), signal).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let sleeping = run(Command::new("pgrep").args(["-x", "-f", "sleep 7712"])).ok().out;
        kill(Pid::from_raw(sleeping.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
        called.finish_within(Duration::from_secs(20)).fails_with(43);
    }
}

/// The mounts of a namespace that propagates to its peers: a mount that the view made there would be seen.
#[test]
fn the_hosts_mount_table_is_the_same_before_during_and_after() {
    let store = store();
    let script = "
        cd \"$1\"; shift
        unshare --mount --propagation unchanged sleep 100 & peer=$!
        while [ \"$(cat /proc/$peer/comm)\" != sleep ]; do sleep 0.01; done
        cat /proc/self/mountinfo >own; cat /proc/$peer/mountinfo >peers
        \"$@\" -- sh -c 'echo started; read line; cat /opt/ext/a; exit 5' <end >out & called=$!
        exec 3>end
        while [ \"$(cat out 2>/dev/null)\" != started ]; do sleep 0.01; done
        same() { cat /proc/self/mountinfo | cmp - own && cat /proc/$peer/mountinfo | cmp - peers; }
        same || echo during
        echo end >&3
        wait $called; echo status $?
        same || echo after
        cat out; kill $peer";
    let folder = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&folder.path().join("end"), Mode::S_IRWXU).unwrap();
    let called = call(&store, &["ext", "--writable"]);
    let mut sandbox = Command::new("unshare");
    sandbox.args(["--mount", "--propagation", "shared", "sh", "-c", script, "sh"]);
    sandbox.arg(folder.path()).arg(called.get_program()).args(called.get_args());
    let seen = run(&mut sandbox).ok();
    assert_eq!((seen.out.as_str(), seen.err.as_str()), ("status 5\nstarted\na of top\n", ""));
}

#[test]
fn an_extension_that_brings_a_kernel_is_refused_unless_only_its_files_are_wanted() {
    let store = store();
    let abi = "a".repeat(64);
    store.image("labelled", &labels(&[(ABI, &abi)]), &["base"]);
    store.file("boot", "boot/vmlinuz", "kernel");
    store.image("boot", &labels(&[]), &["base", "boot"]);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    store.file("modules", &format!("lib/modules/{release}/modules.dep"), "dep\n");
    store.image("modules", &labels(&[]), &["base", "modules"]);
    for (image, what) in [
        ("labelled", "the label io.balena.image.kernel-abi-id"),
        ("boot", "/boot/vmlinuz"),
        ("modules", "/lib/modules/"),
    ] {
        let refused = view(&store, &[image, "--", "true"]).fails_with(125);
        refused.says("brings a kernel").says(what).says("--without-kernel");
        let seen = view(&store, &[image, "--without-kernel", "--", "cat", "/opt/ext/a"]).ok();
        assert_eq!((seen.out.as_str(), seen.err.as_str()), ("a of base\n", ""));
    }
}

/// The options of the real mount have one page for the paths of all layers; those of the view are shorter.
#[test]
fn the_page_of_the_boot_decides_and_not_that_of_the_view() {
    let store = OverlayStore::new();
    let layers: Vec<String> = (0..200).map(|number| format!("layer-{number}")).collect();
    for layer in &layers {
        store.file(layer, &format!("opt/many/{layer}"), "");
    }
    let image = |count: usize| {
        let layers: Vec<&str> = layers[..count].iter().map(String::as_str).collect();
        store.image(&format!("of-{count}"), &labels(&[]), &layers);
        view(&store, &[&format!("of-{count}"), "--", "sh", "-c", "ls /opt/many | wc -l"])
    };
    // The initramfs mounts each extension alone first, by longer paths.
    assert_eq!(image(63).ok().out, "63\n");
    image(64).fails_with(125).says("its 65 layers exceed the options of one mount").says("next: ");
    for (id, own) in [("a", &layers[70..130]), ("b", &layers[130..190])] {
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        store.container(id, &labels(&[]), &own);
    }
    image(63).fails_with(125).says("would exceed the page").says("next: ");
}

#[test]
fn stores_of_other_drivers_and_other_hosts_are_refused() {
    let store = OverlayStore::new();
    std::fs::rename(store.path().join("image/overlay2"), store.path().join("image/vfs")).unwrap();
    view(&store, &["ext"]).fails_with(125).says("with the storage driver \"vfs\"");
    std::fs::remove_dir_all(store.path().join("image")).unwrap();
    view(&store, &["ext"]).fails_with(125).says("there are no images");
    std::fs::create_dir(store.path().join("overlay-images")).unwrap();
    view(&store, &["ext"]).fails_with(125).says("a store of Podman");
    let other = tempfile::tempdir().unwrap();
    let words = ["--host-root", other.path().to_str().unwrap(), "ext"];
    view(&store, &words).fails_with(125).says("cannot be used with --host-root");
    let mut user = Command::new("unshare");
    let called = call(&store, &["ext"]);
    user.args(["--user", "--map-root-user"]).arg(called.get_program()).args(called.get_args());
    run(&mut user).fails_with(125).says("not of a user namespace");
}

/// In a sandbox whose root is an overlay, as on a device: two layers of the OS, and a deployed extension above them.
fn on_an_overlay(store: &OverlayStore, prepare: &str, words: &[&str]) -> Finished {
    let script = "
        top=$1; shift
        mkdir \"$top/os\" \"$top/os-base\" \"$top/root\"; cd \"$top/os\"
        mkdir -p usr proc dev etc tmp opt/os \"./$top\" ./$CHECKOUT
        for name in bin sbin lib lib64 lib32; do test -L /$name && cp -a /$name .; done
        echo ID=os >etc/os-release; echo VERSION_ID=5.0.0 >>etc/os-release; echo top >opt/os/a
        mkdir -p \"$top/os-base/opt/os\"; echo base | tee \"$top/os-base/opt/os/a\" >\"$top/os-base/opt/os/b\"
        lower=$top/os:$top/os-base
        PREPARE
        mount -t overlay overlay -o \"lowerdir=$top/overlay2/deployed/diff:$lower\" \"$top/root\"
        cd \"$top/root\"
        for name in usr proc dev \"./$top\" ./$CHECKOUT; do mount --rbind /${name#./} $name; done
        AFTER
        exec chroot . \"$@\"";
    let (prepare, after) = prepare.split_once("AFTER").unwrap_or((prepare, ""));
    let script = script.replace("PREPARE", prepare).replace("AFTER", after);
    let called = call(store, words);
    let mut sandbox = Command::new("unshare");
    sandbox.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec", &script, "sh"]);
    sandbox.env("CHECKOUT", env!("CARGO_MANIFEST_DIR"));
    sandbox.arg(store.path()).arg(called.get_program()).args(called.get_args());
    run(&mut sandbox)
}

#[test]
fn on_a_host_whose_root_is_an_overlay_the_layers_of_the_os_are_used() {
    let see = ["--", "sh", "-c", "cat /opt/os/a /opt/os/b; ls /opt"];
    let store = store();
    store.file("deployed", "opt/os/a", "deployed\n");
    store.file("deployed", "opt/deployed", "");
    store.container("dddd1", &labels(&[(OVERRIDE, "1")]), &["deployed"]);
    let all = on_an_overlay(&store, "", &[&["ext"], &see[..]].concat()).ok();
    assert_eq!(all.out, "deployed\nbase\ndeployed\next\nos\n", "{all}");

    // The extension that was layered at boot is removed now.
    let store = store_without_container();
    let removed = on_an_overlay(&store, "", &[&["ext"], &see[..]].concat()).ok();
    assert_eq!(removed.out, "top\nbase\next\nos\n", "{removed}");
}

fn store_without_container() -> OverlayStore {
    let store = store();
    store.file("deployed", "opt/os/a", "deployed\n");
    store.file("deployed", "opt/deployed", "");
    store
}

#[test]
fn layers_of_the_os_that_are_not_known_any_more_are_named() {
    let store = store_without_container();
    let links = "mkdir $top/lower7; ln -s $top/os $top/lower7/0; lower=$top/lower7/0:$top/os-base \
                 AFTER rm -r $top/lower7";
    let refused = on_an_overlay(&store, links, &["ext", "--", "true"]).fails_with(125);
    refused.says("/lower7/0").says("cannot be followed any more");
}

#[test]
fn a_directory_on_two_overlays_is_one_too_many() {
    let store = store();
    let script = "
        top=$1; shift
        mkdir \"$top/one\" \"$top/two\" \"$top/empty\"
        mount -t overlay overlay -o \"lowerdir=$top/overlay2/base/diff:$top/empty\" \"$top/one\"
        mount -t overlay overlay -o \"lowerdir=$top/one:$top/empty\" \"$top/two\"
        \"$@\" \"$top/one\" -- cat /opt/ext/a
        exec \"$@\" \"$top/two\" -- cat /opt/ext/a";
    let called = call(&store, &[]);
    let mut sandbox = Command::new("unshare");
    sandbox.args(["--mount", "sh", "-ec", script, "sh"]).arg(store.path());
    let seen = run(sandbox.arg(called.get_program()).args(called.get_args())).fails_with(125);
    assert_eq!(seen.out, "a of base\n", "{seen}");
    seen.says("/two\" is on another overlay").says("stacks at most two");
}

#[test]
fn a_mount_without_a_place_in_the_view_is_named() {
    let store = store();
    let whiteout = store.layer("whiteout").join("mnt");
    mknod(&whiteout, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    store.image("whiteout", &labels(&[(OVERRIDE, "1")]), &["base", "whiteout"]);
    let sandboxed = |words: &[&str]| with_a_mount(&call(&store, words));
    let seen = sandboxed(&["ext", "--", "cat", "/mnt/x"]).ok();
    assert_eq!((seen.out.as_str(), seen.err.as_str()), ("x\n", ""));
    let hidden = sandboxed(&["whiteout", "--", "sh", "-c", "test ! -e /mnt"]).ok();
    hidden.says("/mnt").says("is not in the view: the view has no such mount point");
    let quiet = sandboxed(&["whiteout", "--log-level", "error", "--", "true"]).ok();
    assert_eq!(quiet.err, "");
}

#[test]
fn records_that_are_not_json_are_errors_or_warnings() {
    let store = store();
    std::fs::create_dir(store.path().join("containers/bad")).unwrap();
    std::fs::write(store.path().join("containers/bad/config.v2.json"), "{").unwrap();
    view(&store, &["ext", "--", "true"]).ok().says("is left out").says("containers/bad");
    std::fs::write(store.path().join("image/overlay2/repositories.json"), "{").unwrap();
    view(&store, &["ext", "--", "true"]).fails_with(125).says("repositories.json");
}
