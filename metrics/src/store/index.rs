//! What the index of a store is made of: pages, a table of ids, interned texts. Each says what it costs.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Entries of one page: growth never copies what is there.
const PAGE: usize = 64;
/// What an allocation costs beside its bytes.
pub(super) const ALLOCATION_BYTES: usize = 16;

/// A list that grows by pages, with a chain of free places.
pub(super) struct Pages<T> {
    pages: Vec<Vec<Place<T>>>,
    free: Option<u32>,
    used: usize,
}

enum Place<T> {
    Free(Option<u32>),
    Used(T),
}

impl<T> Pages<T> {
    const PAGE_BYTES: usize =
        PAGE * size_of::<Place<T>>() + size_of::<Vec<Place<T>>>() + 2 * ALLOCATION_BYTES;

    pub fn new() -> Self {
        Pages { pages: Vec::new(), free: None, used: 0 }
    }

    pub fn len(&self) -> usize {
        self.used
    }

    pub fn bytes(&self) -> usize {
        self.pages.len() * Self::PAGE_BYTES
    }

    /// What `count` more entries add to [`Pages::bytes`].
    pub fn cost(&self, count: usize) -> usize {
        let room = self.pages.len() * PAGE - self.used;
        count.saturating_sub(room).div_ceil(PAGE) * Self::PAGE_BYTES
    }

    pub fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        if let Some(id) = self.free {
            let place = &mut self.pages[id as usize / PAGE][id as usize % PAGE];
            if let Place::Free(next) = place {
                self.free = *next;
            }
            *place = Place::Used(value);
            return id;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.reserve_exact(1);
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let number = self.pages.len() - 1;
        self.pages[number].push(Place::Used(value));
        (number * PAGE + self.pages[number].len() - 1) as u32
    }

    pub fn remove(&mut self, id: u32) -> Option<T> {
        let place = self.pages.get_mut(id as usize / PAGE)?.get_mut(id as usize % PAGE)?;
        if matches!(place, Place::Free(_)) {
            return None;
        }
        let old = std::mem::replace(place, Place::Free(self.free));
        self.free = Some(id);
        self.used -= 1;
        match old {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    pub fn get(&self, id: u32) -> Option<&T> {
        match self.pages.get(id as usize / PAGE)?.get(id as usize % PAGE)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        match self.pages.get_mut(id as usize / PAGE)?.get_mut(id as usize % PAGE)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// In order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.pages.iter().flatten().enumerate().filter_map(|(id, place)| match place {
            Place::Used(value) => Some((id as u32, value)),
            Place::Free(_) => None,
        })
    }

    /// One more than the largest id there ever was.
    pub fn end(&self) -> u32 {
        self.pages.last().map_or(0, |page| (self.pages.len() - 1) * PAGE + page.len()) as u32
    }
}

/// Ids by the hash of what they stand for: open addressing, and no tombstones.
pub(super) struct Ids {
    places: Vec<u32>,
    used: usize,
}

const EMPTY: u32 = u32::MAX;

impl Ids {
    pub fn new() -> Self {
        Ids { places: Vec::new(), used: 0 }
    }

    pub fn bytes(&self) -> usize {
        self.places.len() * size_of::<u32>()
    }

    /// What `count` more entries may need, the old places beside the new ones while they are moved.
    pub fn cost(&self, count: usize) -> usize {
        match self.places_for(count) {
            places if places > self.places.len() => places * size_of::<u32>(),
            _ => 0,
        }
    }

    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.places.len().checked_sub(1)?;
        let mut place = hash as usize & mask;
        loop {
            match self.places[place] {
                EMPTY => return None,
                id if is_it(id) => return Some(id),
                _ => place = (place + 1) & mask,
            }
        }
    }

    /// `hash_of` gives the hash of any id that is in here.
    pub fn insert(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        let wanted = self.places_for(1);
        if wanted > self.places.len() {
            let old = std::mem::replace(&mut self.places, vec![EMPTY; wanted]);
            for old in old.into_iter().filter(|id| *id != EMPTY) {
                self.place(hash_of(old), old);
            }
        }
        self.place(hash, id);
        self.used += 1;
    }

    pub fn remove(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        let Some(mask) = self.places.len().checked_sub(1) else { return };
        let mut hole = hash as usize & mask;
        while self.places[hole] != id {
            if self.places[hole] == EMPTY {
                return;
            }
            hole = (hole + 1) & mask;
        }
        // Whatever would not be found behind a hole moves into it.
        let mut next = (hole + 1) & mask;
        while self.places[next] != EMPTY {
            let home = hash_of(self.places[next]) as usize & mask;
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.places[hole] = EMPTY;
        self.used -= 1;
    }

    fn place(&mut self, hash: u64, id: u32) {
        let mask = self.places.len() - 1;
        let mut place = hash as usize & mask;
        while self.places[place] != EMPTY {
            place = (place + 1) & mask;
        }
        self.places[place] = id;
    }

    /// A power of two, at most three quarters full.
    fn places_for(&self, more: usize) -> usize {
        ((self.used + more) * 4 / 3 + 1).next_power_of_two().max(64)
    }
}

/// Texts, each once, as long as somebody uses it.
pub(super) struct Texts {
    texts: Pages<Text>,
    ids: Ids,
    bytes: usize,
}

struct Text {
    text: Arc<str>,
    users: u32,
}

impl Texts {
    pub fn new() -> Self {
        Texts { texts: Pages::new(), ids: Ids::new(), bytes: 0 }
    }

    pub fn bytes(&self) -> usize {
        self.texts.bytes() + self.ids.bytes() + self.bytes
    }

    /// What these would cost that are not there yet.
    pub fn cost<'a>(&self, texts: impl Iterator<Item = &'a str>) -> usize {
        let (mut count, mut bytes) = (0, 0);
        for text in texts.filter(|text| self.find(text).is_none()) {
            count += 1;
            bytes += Self::text_bytes(text);
        }
        self.texts.cost(count) + self.ids.cost(count) + bytes
    }

    pub fn find(&self, text: &str) -> Option<u32> {
        self.ids.find(hash_of(text), |id| &*self.texts.get(id).expect("in the table").text == text)
    }

    pub fn text(&self, id: u32) -> &Arc<str> {
        &self.texts.get(id).expect("somebody uses it").text
    }

    /// One more user of a text.
    pub fn intern(&mut self, text: &Arc<str>) -> u32 {
        if let Some(id) = self.find(text) {
            self.texts.get_mut(id).expect("found").users += 1;
            return id;
        }
        self.bytes += Self::text_bytes(text);
        // A copy: the caller's may be part of something larger, and would not be counted.
        let id = self.texts.insert(Text { text: Arc::from(&**text), users: 1 });
        let texts = &self.texts;
        self.ids.insert(hash_of(text), id, |id| hash_of(&texts.get(id).expect("used").text));
        id
    }

    pub fn release(&mut self, id: u32) {
        let text = self.texts.get_mut(id).expect("somebody uses it");
        text.users -= 1;
        if text.users == 0 {
            let text = text.text.clone();
            let texts = &self.texts;
            self.ids.remove(hash_of(&text), id, |id| hash_of(&texts.get(id).expect("used").text));
            self.texts.remove(id);
            self.bytes -= Self::text_bytes(&text);
        }
    }

    /// One past the largest id.
    pub fn end(&self) -> u32 {
        self.texts.end()
    }

    fn text_bytes(text: &str) -> usize {
        (2 * size_of::<usize>() + text.len()).next_multiple_of(8) + ALLOCATION_BYTES
    }
}

/// The same in every run.
pub(super) fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
