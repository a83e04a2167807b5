//! A set of CPU or memory-node numbers, written as the kernel writes it: `0-3,8`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

use crate::limits;

/// A set of small numbers. Invariant: the last word is not zero, so equal sets compare equal.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet {
    words: Vec<u64>,
}

impl CpuSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { words: Vec::new() }
    }

    /// Adds `cpu`; true when it was not there. Numbers past [`limits::CPUS_MAX`] are refused.
    pub fn insert(&mut self, cpu: u16) -> bool {
        let (word, bit) = (usize::from(cpu) / 64, cpu % 64);
        if usize::from(cpu) >= limits::CPUS_MAX {
            return false;
        }
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & (1 << bit) == 0;
        self.words[word] |= 1 << bit;
        fresh
    }

    /// Takes `cpu` out; true when it was there.
    pub fn remove(&mut self, cpu: u16) -> bool {
        let had = self.contains(cpu);
        if had {
            self.words[usize::from(cpu) / 64] &= !(1 << (cpu % 64));
            self.trim();
        }
        had
    }

    /// Whether `cpu` is in the set.
    pub fn contains(&self, cpu: u16) -> bool {
        self.words.get(usize::from(cpu) / 64).is_some_and(|word| word & (1 << (cpu % 64)) != 0)
    }

    /// How many numbers are in the set.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros() as u16;
                left &= left - 1;
                Some(index as u16 * 64 + bit)
            })
        })
    }

    /// Whether every number of `other` is in this set.
    pub fn contains_all(&self, other: &CpuSet) -> bool {
        other
            .words
            .iter()
            .enumerate()
            .all(|(i, word)| word & !self.words.get(i).copied().unwrap_or(0) == 0)
    }

    /// Whether the two sets share a number.
    pub fn intersects(&self, other: &CpuSet) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// Adds every number of `other`.
    pub fn insert_all(&mut self, other: &CpuSet) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    /// Takes every number of `other` out.
    pub fn remove_all(&mut self, other: &CpuSet) {
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= !theirs;
        }
        self.trim();
    }

    /// The numbers that are in both sets.
    pub fn intersection(&self, other: &CpuSet) -> CpuSet {
        let words = self.words.iter().zip(&other.words).map(|(a, b)| a & b).collect();
        let mut both = CpuSet { words };
        both.trim();
        both
    }

    fn trim(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }
}

impl FromIterator<u16> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u16>>(cpus: I) -> Self {
        let mut set = CpuSet::new();
        for cpu in cpus {
            set.insert(cpu);
        }
        set
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while cpus.peek() == Some(&(last + 1)) {
                last += 1;
                cpus.next();
            }
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// The text is not a list such as `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a list of CPUs: write numbers below {max} like 0-3,8", max = limits::CPUS_MAX)]
pub struct NotACpuList(String);

impl FromStr for CpuSet {
    type Err = NotACpuList;

    fn from_str(text: &str) -> Result<Self, NotACpuList> {
        let refuse = || NotACpuList(text.chars().take(80).collect());
        let number = |text: &str| match text.trim().parse::<u16>() {
            Ok(cpu) if usize::from(cpu) < limits::CPUS_MAX => Ok(cpu),
            _ => Err(refuse()),
        };
        let mut set = CpuSet::new();
        for part in text.trim().split(',').filter(|part| !part.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(refuse());
            }
            for cpu in first..=last {
                set.insert(cpu);
            }
        }
        Ok(set)
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
