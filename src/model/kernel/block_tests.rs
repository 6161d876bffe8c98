//! Tests of the block: what is read of one, and what a change leaves as it was.

use super::*;
use crate::model::kernel::abi::Abi;
use proptest::prelude::*;

const OPENING: &str = "# GRUB Environment Block\n";

fn block(lines: &str) -> Vec<u8> {
    let mut bytes = format!("{OPENING}{lines}").into_bytes();
    bytes.resize(1024, b'#');
    bytes
}

fn parsed(lines: &str) -> Block {
    Block::parse(&block(lines)).unwrap()
}

#[test]
fn values_and_free_bytes_are_read() {
    let lines = "a=1\nupgrade_available=1\nb=x=y\nempty=\n=nameless\n";
    let read = parsed(lines);
    assert_eq!(read.value("a").as_deref(), Some("1"));
    assert_eq!(read.value("b").as_deref(), Some("x=y"));
    assert_eq!(read.value("empty"), None);
    assert_eq!(read.value("missing"), None);
    assert_eq!(read.free, 1024 - OPENING.len() - lines.len());
    assert!(read.can_roll_back());
}

#[test]
fn a_value_continues_after_a_quoted_line_end() {
    let read = parsed("a=1\\\nupgrade_available=1\nb=x\\\\\nc=2\n");
    assert_eq!(read.value("a").as_deref(), Some("1\nupgrade_available=1"));
    assert!(!read.can_roll_back());
    assert_eq!(read.value("b").as_deref(), Some("x\\"));
    assert_eq!(read.value("c").as_deref(), Some("2"));
    assert_eq!(Block::parse(&block("a\\\nb=1\n")), Err(InvalidBlock::Line { line: 2 }));
    // The quoted line end consumes the padding.
    assert_eq!(Block::parse(&block("a=1\\\n")), Err(InvalidBlock::Cut));
}

#[test]
fn only_the_value_one_means_that_an_update_can_roll_back() {
    for (lines, expected) in [
        ("", false),
        ("upgrade_available=0\n", false),
        ("upgrade_available=\n", false),
        ("upgrade_available=11\n", false),
        ("x_upgrade_available=1\n", false),
        ("# upgrade_available=1\n", false),
        ("# \\\nupgrade_available=1\n", false),
        ("# \\\\\nupgrade_available=1\n", true),
        ("\nupgrade_available=1\n\n", true),
        ("upgrade_available=1\n", true),
        ("upgrade_available=1\nupgrade_available=0\n", true),
        ("upgrade_available=0\nupgrade_available=1\n", true),
    ] {
        assert_eq!(parsed(lines).can_roll_back(), expected, "{lines}");
    }
}

/// Each bad input, and one byte less or more, where the size is what is bad.
#[test]
fn bytes_that_are_not_a_block_are_refused_and_no_others() {
    let of_len = |len: usize| {
        let mut bytes = format!("{OPENING}a=1\n").into_bytes();
        bytes.resize(len, b'#');
        bytes
    };
    let mut zeroed = block("a=1\n");
    zeroed[OPENING.len()..].fill(0);
    let text = |text: &str| text.as_bytes().to_vec();
    for (bytes, expected) in [
        (vec![], Err(InvalidBlock::NoSignature)),
        (OPENING.as_bytes()[..24].to_vec(), Err(InvalidBlock::NoSignature)),
        (text(OPENING), Ok(0)),
        (text(&format!("{OPENING}#")), Ok(1)),
        (of_len(1024), Ok(995)),
        (of_len(1025), Ok(996)),
        (of_len(65_536), Ok(65_507)),
        (of_len(65_537), Err(InvalidBlock::TooLong { len: 65_537 })),
        (vec![0; 1024], Err(InvalidBlock::NoSignature)),
        (block("a=1\n")[1..].to_vec(), Err(InvalidBlock::NoSignature)),
        (text("# GRUB Environment Block\r\na=1\r\n##"), Err(InvalidBlock::NoSignature)),
        (zeroed, Err(InvalidBlock::Cut)),
        (block("a=1\r\nb=2\r\n"), Ok(989)),
        (block("\r\n"), Err(InvalidBlock::Line { line: 2 })),
        (text(&format!("{OPENING}a=1\n")), Ok(0)),
        (text(&format!("{OPENING}a=1")), Err(InvalidBlock::Cut)),
        (text(&format!("{OPENING}a=1\n###x")), Err(InvalidBlock::Cut)),
        (text(&format!("{OPENING}a=1\n###\n")), Ok(0)),
        (text(&format!("{OPENING}# \\\n##")), Err(InvalidBlock::Cut)),
        (block("a=1\ngarbage\n"), Err(InvalidBlock::Line { line: 3 })),
        (block("a=1\\\n\\\n2\ngarbage\nb=2\n"), Err(InvalidBlock::Line { line: 5 })),
    ] {
        let read = Block::parse(&bytes).map(|block| block.free);
        assert_eq!(read, expected, "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]));
    }
}

fn abi(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn named(digit: char) -> Field {
    Field::Abi(Abi::parse(&abi(digit)).unwrap())
}

/// The block with a change of its values, without the padding.
fn changed(lines: &str, change: impl FnOnce(&mut BlockValues)) -> String {
    let read = parsed(lines);
    let mut values = read.values();
    change(&mut values);
    let bytes = read.with(&values).unwrap();
    assert_eq!(bytes.len(), 1024);
    let again = Block::parse(&bytes).unwrap();
    assert_eq!(again.values(), values);
    assert_eq!(again.to_bytes(), bytes);
    let text = String::from_utf8(bytes).unwrap();
    text.strip_prefix(OPENING).unwrap().trim_end_matches('#').to_owned()
}

#[test]
fn the_values_of_overrides_are_read_by_the_exact_name_of_their_keys() {
    let lines = format!(
        "kernel_override_abi={}\nkernel_override_abi_committed_A={}\nkernel_override_abi_committed_B={}\n\
         kernel_override_trial=2\nkernel_override_abi_rejected={}\nupgrade_available=1\n",
        abi('a'),
        abi('b'),
        abi('c'),
        abi('d'),
    );
    let expected = BlockValues {
        arm: named('a'),
        committed: Committed { a: named('b'), b: named('c') },
        trial: Some(2),
        relay: named('d'),
        update_window: true,
    };
    assert_eq!(parsed(&lines).values(), expected);
    let others = lines.replace("kernel_", " kernel_").replace("upgrade", "Upgrade");
    assert_eq!(parsed(&others).values(), BlockValues::default());
    assert_eq!(parsed(&lines.replace('=', " =")).values(), BlockValues::default());
}

#[test]
fn every_malformed_abi_and_two_different_ones_are_malformed() {
    let good = abi('a');
    let (short, long, upper) = (good.get(1..).unwrap(), format!("{good}a"), good.to_uppercase());
    for (lines, expected) in [
        (String::new(), Field::Empty),
        ("K=\n".to_owned(), Field::Empty),
        ("K=\nK=\n".to_owned(), Field::Empty),
        (format!("K={good}\n"), named('a')),
        (format!("K={good}\nx=1\nK={good}\n"), named('a')),
        (format!("K={good}\nK={}\n", abi('b')), Field::Malformed),
        (format!("K={good}\nK=\n"), Field::Malformed),
        (format!("K={good}\r\n"), Field::Malformed),
        (format!("K= {good}\n"), Field::Malformed),
        (format!("K={good} \n"), Field::Malformed),
        (format!("K=\"{good}\"\n"), Field::Malformed),
        (format!("K=sha256:{good}\n"), Field::Malformed),
        (format!("K={short}\n"), Field::Malformed),
        (format!("K={short}g\n"), Field::Malformed),
        (format!("K={long}\n"), Field::Malformed),
        (format!("K={upper}\n"), Field::Malformed),
        (format!("K={short}\\\na\n"), Field::Malformed),
        (format!("K=\\{good}\n"), Field::Malformed),
        (format!("K={short}\0\n"), Field::Malformed),
        ("K=stock\n".to_owned(), Field::Malformed),
    ] {
        type FieldOf = fn(BlockValues) -> Field;
        let fields: [(&str, FieldOf); 4] = [
            (ARM, |values| values.arm),
            (COMMITTED_A, |values| values.committed.a),
            (COMMITTED_B, |values| values.committed.b),
            (RELAY, |values| values.relay),
        ];
        for (key, field) in fields {
            let lines = lines.replace('K', key);
            assert_eq!(field(parsed(&lines).values()), expected, "{lines:?}");
        }
    }
    let mut bytes = block(&format!("{ARM}={good}\n"));
    bytes[OPENING.len() + ARM.len() + 1] = 0xff;
    assert_eq!(Block::parse(&bytes).unwrap().values().arm, Field::Malformed);
}

#[test]
fn the_trial_count_is_a_number_or_0() {
    for (lines, expected) in [
        ("", None),
        ("K=\n", Some(0)),
        ("K=0\n", Some(0)),
        ("K=2\n", Some(2)),
        ("K= 2\t\r\n", Some(2)),
        ("K=+2\n", Some(2)),
        ("K=02\n", Some(2)),
        ("K=2\nK=2\n", Some(2)),
        ("K=2\nK=1\n", Some(0)),
        ("K=-1\n", Some(0)),
        ("K=++1\n", Some(0)),
        ("K=1.5\n", Some(0)),
        ("K=two\n", Some(0)),
        ("K=4294967296\n", Some(u32::MAX)),
        ("K=99999999999999999999999999\n", Some(u32::MAX)),
        ("K=-99999999999999999999999999\n", Some(0)),
    ] {
        assert_eq!(parsed(&lines.replace('K', TRIAL)).values().trial, expected, "{lines:?}");
    }
}

#[test]
fn only_the_lines_of_values_that_change_are_touched() {
    let (a, b) = (abi('a'), abi('b'));
    let set = |values: &mut BlockValues| values.arm = named('b');
    for (lines, expected) in [
        (String::new(), format!("{ARM}={b}\n")),
        ("x=1\n".to_owned(), format!("x=1\n{ARM}={b}\n")),
        (format!("x=1\n{ARM}={a}\ny=2\n"), format!("x=1\n{ARM}={b}\ny=2\n")),
        (format!("{ARM}=\nx=1\n"), format!("{ARM}={b}\nx=1\n")),
        (format!("{ARM}=z\\\nz\nx=1\n"), format!("{ARM}={b}\nx=1\n")),
        (format!("{ARM}={a}\nx=1\n{ARM}={a}\n"), format!("{ARM}={b}\nx=1\n")),
        (format!("{ARM}={a}\nx=1\n{ARM}={b}\n"), format!("{ARM}={b}\nx=1\n")),
        // Foreign lines, also such as grub-editenv and sed write.
        (
            "# WARNING: Do not edit\nbootcount=0 \n\nx=a\\\\b\\\nc\nx=2\r\n".to_owned(),
            format!("# WARNING: Do not edit\nbootcount=0 \n\nx=a\\\\b\\\nc\nx=2\r\n{ARM}={b}\n"),
        ),
        // Values of ours that do not change.
        (
            format!("{TRIAL}= 2\n{COMMITTED_A}=\n{COMMITTED_B}=bad\n{RELAY}={a}\n{ARM}={a}\n"),
            format!("{TRIAL}= 2\n{COMMITTED_A}=\n{COMMITTED_B}=bad\n{RELAY}={a}\n{ARM}={b}\n"),
        ),
        // Equal lines become one with the next change, whatever that changes.
        (
            format!("{TRIAL}=1\n{TRIAL}=1\n{COMMITTED_A}={a}\n{COMMITTED_A}={a}\n"),
            format!("{TRIAL}=1\n{COMMITTED_A}={a}\n{ARM}={b}\n"),
        ),
    ] {
        assert_eq!(changed(&lines, set), expected, "{lines:?}");
    }
}

#[test]
fn a_value_that_is_dropped_takes_all_its_lines_with_it() {
    let a = abi('a');
    let lines =
        format!("x=1\n{ARM}={a}\n{TRIAL}=2\ny=2\n{COMMITTED_A}={a}\n{RELAY}={a}\n{ARM}=z\n");
    let clear = |values: &mut BlockValues| *values = BlockValues::default();
    assert_eq!(changed(&lines, clear), "x=1\ny=2\n");
    let count = |values: &mut BlockValues| values.trial = Some(3);
    assert_eq!(changed("x=1\n", count), format!("x=1\n{TRIAL}=3\n"));
}

#[test]
fn values_that_do_not_change_leave_every_byte() {
    let lines = format!("{ARM}={0}\n{ARM}={0}\n{TRIAL}=x\n{TRIAL}=1\n", abi('a'));
    for lines in ["", "x=1\n", &lines] {
        let read = parsed(lines);
        assert_eq!(read.with(&read.values()).unwrap(), block(lines));
    }
    let full = format!("{OPENING}{lines}").into_bytes();
    let read = Block::parse(&full).unwrap();
    assert_eq!(read.with(&read.values()).unwrap(), full);
}

#[test]
fn one_byte_of_padding_must_remain() {
    let line = format!("{ARM}={}\n", abi('a'));
    let block = |padding: usize| format!("{OPENING}x=1\n{}", "#".repeat(padding)).into_bytes();
    let armed = BlockValues { arm: named('a'), ..BlockValues::default() };
    let with = |padding: usize| Block::parse(&block(padding)).unwrap().with(&armed);
    let most = OPENING.len() + "x=1\n".len();
    assert_eq!(with(line.len() - 1), Err(NoRoom { len: most + line.len() - 1, missing: 2 }));
    assert_eq!(with(line.len()), Err(NoRoom { len: most + line.len(), missing: 1 }));
    assert_eq!(with(0), Err(NoRoom { len: most, missing: line.len() + 1 }));
    let fits = with(line.len() + 1).unwrap();
    assert_eq!(fits, format!("{OPENING}x=1\n{line}#").into_bytes());
    // A full block can still be written by a change that makes room.
    let full = Block::parse(format!("{OPENING}{line}{TRIAL}=1\n").as_bytes()).unwrap();
    assert!(full.with(&BlockValues { trial: Some(2), ..full.values() }).is_err());
    let room = full.with(&BlockValues { trial: None, ..full.values() }).unwrap();
    let padding = "#".repeat(TRIAL.len() + "=1\n".len());
    assert_eq!(room, format!("{OPENING}{line}{padding}").into_bytes());
}

fn fields() -> impl Strategy<Value = Field> {
    prop_oneof![Just(Field::Empty), Just(named('a')), Just(named('b'))]
}

/// Lines of others, and of ours in every form.
fn any_lines() -> impl Strategy<Value = Vec<String>> {
    let key = prop_oneof![
        Just(ARM),
        Just(COMMITTED_A),
        Just(COMMITTED_B),
        Just(TRIAL),
        Just(RELAY),
        Just(UPGRADE_AVAILABLE),
    ];
    let value = prop_oneof![Just(abi('a')), Just(abi('b')), "[a-f0-9\\\\ ]{0,4}"];
    let foreign = "#?[a-z_ ]{0,6}=[a-z0-9\\\\#=\r]{0,9}";
    let ours = (key, value).prop_map(|(key, value)| format!("{key}={value}"));
    proptest::collection::vec(prop_oneof![ours, foreign], 0..9)
}

proptest! {
    #[test]
    fn foreign_lines_survive_every_change_byte_for_byte(
        lines in any_lines(), arm in fields(), a in fields(), b in fields(), relay in fields(),
        trial in proptest::option::of(0..5_u32),
    ) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let Ok(read) = Block::parse(&block(&text)) else { return Ok(()) };
        prop_assert_eq!(read.to_bytes(), block(&text));
        let wanted = BlockValues {
            arm, committed: Committed { a, b }, trial, relay, update_window: read.can_roll_back(),
        };
        let bytes = read.with(&wanted).unwrap();
        prop_assert_eq!(bytes.len(), 1024);
        prop_assert!(bytes.ends_with(b"#"));
        let written = Block::parse(&bytes).unwrap();
        prop_assert_eq!(written.values(), wanted);
        let foreign = |block: &Block| {
            let is_ours = |line: &&BlockLine| [ARM, COMMITTED_A, COMMITTED_B, TRIAL, RELAY].iter().any(|key| line.is_of(key));
            block.lines.iter().filter(|line| !is_ours(line)).cloned().collect::<Vec<_>>()
        };
        prop_assert_eq!(foreign(&written), foreign(&read));
    }

    #[test]
    fn what_is_written_in_the_format_is_read_back(values in proptest::collection::btree_map("[a-z_]{1,8}", "[a-z0-9=#.]{1,8}", 0..8)) {
        let lines: String = values.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let read = parsed(&lines);
        for (key, value) in values {
            prop_assert_eq!(read.value(&key), Some(value));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut block = OPENING.as_bytes().to_vec();
        block.extend(bytes);
        let _ = Block::parse(&block);
    }
}

#[test]
fn a_value_of_another_program_is_set_in_the_same_size_and_all_else_stays() {
    let bytes = b"# GRUB Environment Block\n# note\nbootcount=0\nother=a\\\\b\n##########";
    let block = Block::parse(bytes).unwrap();
    let changed = block.with_value("bootcount", "12").unwrap().with_value("x", "1").unwrap();
    assert_eq!(
        changed.to_bytes(),
        b"# GRUB Environment Block\n# note\nbootcount=12\nother=a\\\\b\nx=1\n#####"
    );
    assert_eq!(changed.value("bootcount").as_deref(), Some("12"));
    assert!(changed.with_value("y", "1").is_ok() && changed.with_value("y", "12").is_err());
    assert_eq!(Block::parse(&Block::empty(64).to_bytes()).unwrap().free, 64 - 25);
}
