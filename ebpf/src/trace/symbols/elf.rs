//! The functions that an ELF file names (System V ABI, chapters 4 and 5; 64 bits, little-endian). The file is whatever
//! a program has mapped: nothing in it is believed.

use crate::limits::SYMBOLS_MAX;
use std::collections::BTreeMap;

const SYMTAB: u32 = 2;
const DYNSYM: u32 = 11;
const FUNCTION: u8 = 2;
const LOAD: u32 = 1;

/// Names of functions by their offset in the file. `None` if this is no such file, or it contradicts itself.
pub(super) fn functions(bytes: &[u8]) -> Option<BTreeMap<u64, String>> {
    let file = Reader(bytes);
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let segments = segments(file)?;
    let mut names = BTreeMap::new();
    let (table, size, count) = (file.u64(40)?, file.u16(58)?, file.u16(60)?);
    let section = |number: u64| -> Option<Section> {
        let at = table.checked_add(number.checked_mul(size.into())?)?;
        Some(Section {
            kind: file.u32(at.checked_add(4)?)?,
            offset: file.u64(at.checked_add(24)?)?,
            size: file.u64(at.checked_add(32)?)?,
            link: file.u32(at.checked_add(40)?)?,
        })
    };
    for number in 0..u64::from(count) {
        let symbols = section(number)?;
        if symbols.kind != SYMTAB && symbols.kind != DYNSYM {
            continue;
        }
        let texts = section(symbols.link.into())?;
        for symbol in 0..symbols.size / 24 {
            if names.len() == SYMBOLS_MAX {
                return Some(names);
            }
            let at = symbols.offset.checked_add(symbol * 24)?;
            let (text, kind, value) = (file.u32(at)?, file.u8(at + 4)? & 0xf, file.u64(at + 8)?);
            if kind != FUNCTION || value == 0 {
                continue;
            }
            let Some(offset) = segments.iter().find_map(|segment| segment.offset_of(value)) else {
                continue;
            };
            let name = file.text(texts.offset.checked_add(text.into())?)?;
            names.entry(offset).or_insert_with(|| demangled(&name));
        }
    }
    Some(names)
}

struct Section {
    kind: u32,
    offset: u64,
    size: u64,
    link: u32,
}

/// A part of the file, and where in memory it wants to be.
struct Segment {
    offset: u64,
    address: u64,
    size: u64,
}

impl Segment {
    fn offset_of(&self, address: u64) -> Option<u64> {
        let within = address.checked_sub(self.address).filter(|within| *within < self.size)?;
        self.offset.checked_add(within)
    }
}

fn segments(file: Reader<'_>) -> Option<Vec<Segment>> {
    let (table, size, count) = (file.u64(32)?, file.u16(54)?, file.u16(56)?);
    let mut found = Vec::new();
    for number in 0..u64::from(count) {
        let at = table.checked_add(number.checked_mul(size.into())?)?;
        if file.u32(at)? == LOAD {
            let word = |place: u64| file.u64(at.checked_add(place)?);
            found.push(Segment { offset: word(8)?, address: word(16)?, size: word(32)? });
        }
    }
    Some(found)
}

/// Rust's names as people write them; others as they are.
fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// Numbers at places of a file, as far as it goes.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(self, place: u64) -> Option<[u8; N]> {
        let place = usize::try_from(place).ok()?;
        self.0.get(place..place.checked_add(N)?)?.try_into().ok()
    }

    fn u8(self, place: u64) -> Option<u8> {
        self.bytes::<1>(place).map(|[byte]| byte)
    }

    fn u16(self, place: u64) -> Option<u16> {
        self.bytes(place).map(u16::from_le_bytes)
    }

    fn u32(self, place: u64) -> Option<u32> {
        self.bytes(place).map(u32::from_le_bytes)
    }

    fn u64(self, place: u64) -> Option<u64> {
        self.bytes(place).map(u64::from_le_bytes)
    }

    /// Up to a zero, at most 256 bytes.
    fn text(self, place: u64) -> Option<String> {
        let rest = self.0.get(usize::try_from(place).ok()?..)?;
        let rest = &rest[..rest.len().min(256)];
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    }
}
