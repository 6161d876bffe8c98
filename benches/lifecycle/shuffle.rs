//! The order within a round, shuffled for each round, so that no subject always follows the same one.

/// Shuffles, the same way in every run (xorshift64). With a fixed or a rotating order each row would always
/// follow the same other row, and would pay for work that the other one leaves behind: the kernel continues to
/// tear down cgroups and namespaces after the command that caused it.
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
