//! Tests of `tar_header.rs`.

use super::*;

fn block(change: impl FnOnce(&mut [u8; BLOCK])) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    header.set_path("a/b").unwrap();
    header.set_mode(0o104_755);
    header.set_uid(7);
    header.set_size(10);
    header.set_cksum();
    let mut block = *header.as_bytes();
    change(&mut block);
    block
}

fn summed(change: impl FnOnce(&mut [u8; BLOCK])) -> [u8; BLOCK] {
    let mut block = block(change);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[test]
fn a_header_is_read_as_it_was_written() {
    let header = Header::parse(&block(|_| {})).unwrap();
    assert_eq!((header.name.as_slice(), header.mode, header.uid), (&b"a/b"[..], 0o4755, 7));
    assert_eq!((header.size, header.len_of_data()), (10, 10));
    let directory = Header::parse(&summed(|block| block[156] = b'5')).unwrap();
    assert_eq!((directory.size, directory.len_of_data()), (10, 0));
    let far = Header::parse(&summed(|block| block[345..348].copy_from_slice(b"x/y"))).unwrap();
    assert_eq!(far.name, b"x/y/a/b");
    // Older archives have no mark at all.
    let old = Header::parse(&summed(|block| block[257..].fill(0))).unwrap();
    assert_eq!(old.name, b"a/b");
}

#[test]
fn a_header_that_engines_refuse_is_not_valid() {
    assert_eq!(Header::parse(&block(|block| block[0] = b'z')), Err(InvalidHeader::Checksum));
    let bad = summed(|block| block[124..128].copy_from_slice(b"12x4"));
    assert_eq!(Header::parse(&bad), Err(InvalidHeader::Number { field: "size" }));
    let negative = summed(|block| block[124..136].fill(0xff));
    assert_eq!(Header::parse(&negative), Err(InvalidHeader::Number { field: "size" }));
}

#[test]
fn numbers_are_octal_or_in_base_256() {
    for (field, expected) in [
        (&b"0000755\0"[..], Some(0o755)),
        (b"   755 \0", Some(0o755)),
        (b"\0\0\0\0", Some(0)),
        (b"7 5", None),
        (b"7\x005", Some(7)),
        (b"\x80\0\x01\x02", Some(258)),
        (b"\xff\xff\xff\xfe", Some(-2)),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        (b"", None),
    ] {
        assert_eq!(number(field), expected, "{field:?}");
    }
    assert_eq!((low_bits(-1), low_bits(1 << 32 | 5)), (u32::MAX, 5));
}

#[test]
fn records_have_a_length_and_any_bytes() {
    let mut bytes = b"12 path=a/b\n".to_vec();
    bytes.extend(b"16 SCHILY.x=\n\0\xff\n");
    let found = records(&bytes).unwrap();
    assert_eq!(found, [(&b"path"[..], &b"a/b"[..]), (b"SCHILY.x", b"\n\0\xff")]);
    for bad in [
        &b"12 path=a/b"[..],
        b"13 path=a/b\n",
        b"x path=a\n",
        b"9 path-a\n",
        b"5 =a\n",
        b"10 path=a\0\n",
        b"path",
    ] {
        assert_eq!(records(bad), Err(InvalidHeader::Record), "{bad:?}");
    }
}

#[test]
fn an_archive_begins_with_a_header_or_ends_at_once() {
    assert!(is_archive(&block(|_| {})) && is_archive(&[0; 1024]));
    assert!(!is_archive(&[0; 511]) && !is_archive(&[b'x'; 512]));
}
