//! Bits in words: what blocks are written with and read from.

/// Bits of the largest record. A step in which nothing is as expected has 940: six values of 99, and
/// differences of times and counts.
pub(super) const RECORD_BITS_MAX: usize = 1024;

/// One record, before it is known whether it fits a block.
pub(super) struct Record {
    words: [u32; RECORD_BITS_MAX / 32],
    length: usize,
}

impl Record {
    pub fn new() -> Self {
        Record { words: [0; RECORD_BITS_MAX / 32], length: 0 }
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// The lowest `count` bits of `value`, the highest of them first.
    pub fn put(&mut self, value: u64, count: usize) {
        append(&mut self.words, &mut self.length, value, count);
    }

    /// `count` ones.
    pub fn ones(&mut self, count: usize) {
        self.put(u64::MAX, count);
    }

    /// Elias's gamma code of `value` + 1: one bit for 0, three for 1 and 2.
    pub fn gamma(&mut self, value: u64) {
        let value = value.min(u64::MAX - 1) + 1;
        let bits = 64 - value.leading_zeros() as usize;
        self.put(0, bits - 1);
        self.put(value, bits);
    }

    /// A small number of either sign.
    pub fn signed(&mut self, value: i64) {
        self.gamma(zigzag(value));
    }

    /// Writes the record into a block that holds `used` bits.
    pub fn copy_to(&self, words: &mut [u32], used: &mut usize) {
        let mut left = self.length;
        for word in self.words {
            let count = left.min(32);
            if count == 0 {
                return;
            }
            append(words, used, u64::from(word >> (32 - count)), count);
            left -= count;
        }
    }
}

fn append(words: &mut [u32], length: &mut usize, value: u64, count: usize) {
    let mut left = count;
    while left > 0 {
        let room = 32 - *length % 32;
        let take = left.min(room);
        let part = (value >> (left - take)) & ((1u64 << take) - 1);
        let word = &mut words[*length / 32];
        *word &= !(((((1u64 << take) - 1) << (room - take)) & 0xffff_ffff) as u32);
        *word |= (part << (room - take)) as u32;
        *length += take;
        left -= take;
    }
}

/// Reads what [`Record`] wrote. Behind the end there are zeros.
pub(super) struct Bits<'a> {
    words: &'a [u32],
    at: usize,
}

impl<'a> Bits<'a> {
    pub fn new(words: &'a [u32]) -> Self {
        Bits { words, at: 0 }
    }

    pub fn take(&mut self, count: usize) -> u64 {
        let mut value = 0u64;
        let mut left = count;
        while left > 0 {
            let room = 32 - self.at % 32;
            let take = left.min(room);
            let word = u64::from(self.words.get(self.at / 32).copied().unwrap_or(0));
            let part = (word >> (room - take)) & ((1u64 << take) - 1);
            value = (value << take) | part;
            self.at += take;
            left -= take;
        }
        value
    }

    pub fn bit(&mut self) -> bool {
        self.take(1) == 1
    }

    /// Ones before the next zero, which is read too; at most `most`, then there is no zero to read.
    pub fn ones(&mut self, most: usize) -> usize {
        let mut count = 0;
        while count < most && self.bit() {
            count += 1;
        }
        count
    }

    pub fn gamma(&mut self) -> u64 {
        let mut zeros = 0;
        while zeros < 63 && !self.bit() {
            zeros += 1;
        }
        ((1 << zeros) | self.take(zeros)) - 1
    }

    pub fn signed(&mut self) -> i64 {
        unzigzag(self.gamma())
    }
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
