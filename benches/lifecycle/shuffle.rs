//! The order of the rounds, mixed anew each time, so that no subject always follows the same one.

/// Shuffles, the same way in every run (xorshift64). With a fixed order, or a rotating one, each row
/// would follow the same other row, and would be charged with what that leaves behind: the kernel's
/// cgroup and namespace work goes on after the command that caused it.
pub(crate) struct Shuffle(pub(crate) u64);

impl Shuffle {
    pub(crate) fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            order.swap(last, self.0 as usize % (last + 1));
        }
    }
}
