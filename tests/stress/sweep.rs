//! Sweeps over the system calls of a process.

/// A sweep ends after this many calls in a row that were not reached. The number of calls varies a little from run
/// to run: a hook's output is read in one piece or in two.
const NOT_REACHED: usize = 3;

/// Calls `point` with 1, 2, … It returns whether the process made as many calls. Returns how many were reached.
pub(crate) fn each_call(mut point: impl FnMut(usize) -> bool) -> usize {
    let (mut reached, mut missed) = (0, 0);
    for at in 1.. {
        if point(at) {
            (reached, missed) = (reached + 1, 0);
        } else {
            missed += 1;
        }
        if missed == NOT_REACHED {
            break;
        }
    }
    reached
}
