//! Visits every node of a fleet once, in a random order that takes no memory.

use rand::{Rng, RngExt};

/// All numbers below a limit in a random order.
///
/// A linear congruential generator modulo a power of two has its full period when the increment is odd
/// and the multiplier is 1 modulo 4 (Hull and Dobell, "Random Number Generators", 1962); 5 modulo 8
/// keeps it from being a mere step. Its low bits are weak, so the high ones are folded onto them, which
/// maps no two numbers to one. What is not below the limit is skipped: at most half.
pub(super) struct Walk {
    limit: usize,
    at: usize,
    multiplier: usize,
    increment: usize,
    mask: usize,
    fold: u32,
    /// Steps until it is back where it began.
    left: usize,
}

impl Walk {
    /// In order: for fleets that are looked at as a whole anyway.
    pub fn in_order(limit: usize) -> Self {
        let mask = usize::MAX;
        Self { limit, at: 0, multiplier: 1, increment: 1, mask, fold: usize::BITS - 1, left: limit }
    }

    /// In a random order.
    pub fn random<R: Rng + ?Sized>(limit: usize, random: &mut R) -> Self {
        let size = limit.max(8).next_power_of_two();
        let mask = size - 1;
        Self {
            limit,
            at: random.random_range(0..size),
            multiplier: random.random_range(0..size) & !7 | 5,
            increment: random.random_range(0..size) | 1,
            mask,
            fold: size.trailing_zeros().div_ceil(2),
            left: size,
        }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.left > 0 {
            self.left -= 1;
            let number = self.at ^ (self.at >> self.fold);
            self.at =
                self.at.wrapping_mul(self.multiplier).wrapping_add(self.increment) & self.mask;
            if number < self.limit {
                return Some(number);
            }
        }
        None
    }
}
