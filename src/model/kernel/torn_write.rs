//! Whether the boot environment block is what an interrupted write of it left. It has no checksum of its own, so
//! `host/kernel/block_redo.rs` records both contents before each write.

/// The unit in which a disk writes.
const SECTOR: usize = 512;

/// Whether `found` is neither `old` nor `new`, but what a write of `new` over `old` leaves when it is interrupted: of
/// each sector the new content up to some byte, and the old one behind it. Sectors are written in any order.
///
/// Any other content is a later write of another program. One write of another program can look like this too: if it
/// puts back a part of the old content, such as a count of boots. Then that part is lost.
pub(crate) fn is_torn(found: &[u8], old: &[u8], new: &[u8]) -> bool {
    if found == old || found == new || found.len() != old.len() || found.len() != new.len() {
        return false;
    }
    let sectors = found.chunks(SECTOR).zip(old.chunks(SECTOR)).zip(new.chunks(SECTOR));
    sectors.into_iter().all(|((found, old), new)| {
        let written = found.iter().zip(new).take_while(|(found, new)| found == new).count();
        found.get(written..) == old.get(written..)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mixture_of_the_old_and_the_new_content_is_torn() {
        let (old, new) = ([b'o'; 1025], [b'n'; 1025]);
        let mixed = |is_new: &dyn Fn(usize) -> bool| {
            let byte = |at: usize| if is_new(at) { b'n' } else { b'o' };
            (0..1025).map(byte).collect::<Vec<u8>>()
        };
        for (found, expected) in [
            (old.to_vec(), false),
            (new.to_vec(), false),
            (mixed(&|at| at < 1), true),
            (mixed(&|at| at < 512), true),
            (mixed(&|at| at < 700), true),
            (mixed(&|at| at < 1024), true),
            (mixed(&|at| at >= 1024), true),
            (mixed(&|at| (512..1024).contains(&at)), true),
            (mixed(&|at| !(512..1024).contains(&at)), true),
            (mixed(&|at| at % 512 < 100), true),
            (mixed(&|at| at > 0), false),
            (mixed(&|at| at % 2 == 0), false),
            (mixed(&|at| at < 700)[..1024].to_vec(), false),
            (vec![b'x'; 1025], false),
            ([&new[..600], b"x", &old[601..]].concat(), false),
            (vec![], false),
        ] {
            assert_eq!(is_torn(&found, &old, &new), expected);
        }
        assert!(!is_torn(&[b'n'; 600], &[b'o'; 600], &new));
        assert!(!is_torn(&[b'n'; 600], &old, &[b'x'; 600]));
    }
}
