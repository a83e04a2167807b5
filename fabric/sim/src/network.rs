//! What lies between the machines: latency, loss, repetition, reordering and splits.
//!
//! A datagram is lost, delivered, or delivered twice, each copy with its own latency, so that they
//! overtake each other. A message needs a stream, and a stream needs both directions: it arrives whole,
//! later than a datagram would, or it is lost.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes that a stream carries in a second: 1 Gbit/s.
const BYTES_PER_SECOND: u64 = 125_000_000;

/// A stranger keeps a copy for so long.
const COPY_DELAY_MAX: Duration = Duration::from_secs(5);

/// How well the network does right now, the same between all machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// Half of all packets take less than this.
    pub latency: Duration,
    /// One packet in a hundred takes up to this much longer.
    pub tail: Duration,
    /// Packets lost, in thousandths.
    pub loss_permille: u32,
    /// Packets delivered twice, in thousandths.
    pub repeat_permille: u32,
}

impl Default for Quality {
    /// A wired local network.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(250),
            tail: Duration::from_millis(5),
            loss_permille: 0,
            repeat_permille: 0,
        }
    }
}

/// The network and its random choices.
#[derive(Debug)]
pub struct Network {
    /// How well it does right now.
    pub quality: Quality,
    /// How many splits keep packets of the first machine from the second.
    blocked: BTreeMap<(usize, usize), u32>,
    /// Somebody hears everything, and sends it again.
    pub stranger: bool,
    random: ChaCha8Rng,
}

impl Network {
    /// A network without splits.
    pub fn new(quality: Quality, random: ChaCha8Rng) -> Self {
        Self { quality, blocked: BTreeMap::new(), stranger: false, random }
    }

    /// Whether packets of `from` can reach `to`.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        from == to || !self.blocked.contains_key(&(from, to))
    }

    /// Whether the two can hold a stream.
    pub fn connects(&self, a: usize, b: usize) -> bool {
        self.reaches(a, b) && self.reaches(b, a)
    }

    /// From now on no packet of any of `from` reaches any of `to`.
    pub fn block(&mut self, from: &[usize], to: &[usize]) {
        for pair in pairs(from, to) {
            *self.blocked.entry(pair).or_default() += 1;
        }
    }

    /// Takes one [`Network::block`] back.
    pub fn unblock(&mut self, from: &[usize], to: &[usize]) {
        for pair in pairs(from, to) {
            if let Some(count) = self.blocked.get_mut(&pair) {
                *count -= 1;
                if *count == 0 {
                    self.blocked.remove(&pair);
                }
            }
        }
    }

    /// Ends every split.
    pub fn heal(&mut self) {
        self.blocked.clear();
    }

    /// When copies of a datagram sent now arrive: none, one or two.
    pub fn datagram(&mut self, from: usize, to: usize) -> Vec<Duration> {
        if !self.reaches(from, to) || self.chance(self.quality.loss_permille) {
            return Vec::new();
        }
        let mut copies = vec![self.one_way()];
        if self.chance(self.quality.repeat_permille) {
            copies.push(self.one_way() + self.one_way());
        }
        copies
    }

    /// When a message of `bytes` sent now has arrived, if it does. Lost packets are sent again, which
    /// takes time; a path that loses nearly all of them is none.
    pub fn stream(&mut self, from: usize, to: usize, bytes: usize) -> Option<Duration> {
        if !self.connects(from, to) {
            return None;
        }
        let mut taken = Duration::from_nanos(bytes as u64 * 1_000_000_000 / BYTES_PER_SECOND);
        let mut resend_after = Duration::from_millis(200);
        for _ in 0..3 {
            while self.chance(self.quality.loss_permille) {
                taken += resend_after;
                resend_after *= 2;
                if taken > Duration::from_secs(10) {
                    return None;
                }
            }
            taken += self.one_way();
        }
        Some(taken)
    }

    /// When a stranger's copy of a packet arrives: at once, which may be before the packet itself, or seconds
    /// later.
    pub fn copy(&mut self) -> Duration {
        match self.chance(500) {
            true => self.one_way() / 2,
            false => nanos(self.random.random_range(0..COPY_DELAY_MAX.as_nanos() as u64)),
        }
    }

    /// One packet's latency.
    pub fn one_way(&mut self) -> Duration {
        let Quality { latency, tail, .. } = self.quality;
        let spread = (latency / 2).as_nanos() as u64;
        let usual = latency - latency / 4 + nanos(self.random.random_range(0..=spread));
        if self.chance(10) {
            usual + nanos(self.random.random_range(0..=tail.as_nanos() as u64))
        } else {
            usual
        }
    }

    fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.random.random_range(0..1000) < permille
    }
}

fn nanos(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

fn pairs(from: &[usize], to: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    from.iter().flat_map(|a| to.iter().map(|b| (*a, *b))).filter(|(a, b)| a != b)
}

#[cfg(test)]
mod tests;
