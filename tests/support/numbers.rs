//! Random numbers with a fixed sequence, so that a failure can be repeated.

/// A linear congruential generator with this seed.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(3_037_000_493);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    pub(crate) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub(crate) fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// One of the words that spaces separate.
    pub(crate) fn word(&mut self, words: &'static str) -> &'static str {
        self.one_of(&words.split_whitespace().collect::<Vec<_>>())
    }
}
