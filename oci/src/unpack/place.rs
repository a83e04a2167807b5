//! Paths of a layer, before the kernel sees them.

use super::Problem;
use crate::limits;

/// A path from the layer's root on, without slashes at its ends, `.`, `..` or empty names in it; empty: the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(Vec<u8>);

impl Place {
    /// Absolute paths begin at the root, too: so does everybody read them.
    pub(super) fn parse(path: &[u8]) -> Result<Self, Problem> {
        if path.len() > limits::PATH_BYTES_MAX {
            return Err(Problem::TooLong);
        }
        let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        let mut place = Vec::with_capacity(path.len());
        let mut count = 0;
        for name in names {
            if name == b".." {
                return Err(Problem::Climbs);
            }
            if name.len() > limits::NAME_COMPONENT_BYTES_MAX {
                return Err(Problem::TooLong);
            }
            count += 1;
            if count > limits::PATH_COMPONENTS_MAX {
                return Err(Problem::TooDeep);
            }
            if !place.is_empty() {
                place.push(b'/');
            }
            place.extend_from_slice(name);
        }
        Ok(Self(place))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The folder that it is in, and its name there. The root has no name.
    pub(super) fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&[], &self.0),
        }
    }
}

/// A folder and those that it is in, the outermost first, each with its own name.
pub(super) fn prefixes(folder: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let ends = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let mut from = 0;
    ends.chain((!folder.is_empty()).then_some(folder.len())).map(move |end| {
        let name = &folder[from..end];
        from = end + 1;
        (&folder[..end], name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_the_root_on() {
        let long = [b'a'; limits::NAME_COMPONENT_BYTES_MAX + 1];
        let deep = b"a/".repeat(limits::PATH_COMPONENTS_MAX + 1);
        let longest = b"aaa/".repeat(limits::PATH_BYTES_MAX / 4 + 1);
        let table: [(&[u8], &[u8]); 6] = [
            (b"", b""),
            (b"./", b""),
            (b"/", b""),
            (b"./etc/passwd", b"etc/passwd"),
            (b"/etc//x/.", b"etc/x"),
            (b"a/...", b"a/..."),
        ];
        for (path, wanted) in table {
            assert_eq!(Place::parse(path).as_ref().map(Place::bytes), Ok(wanted));
        }
        let table: [(&[u8], Problem); 7] = [
            (b"..", Problem::Climbs),
            (b"../out1", Problem::Climbs),
            (b"a/../b", Problem::Climbs),
            (b"/..", Problem::Climbs),
            (&long, Problem::TooLong),
            (&deep, Problem::TooDeep),
            (&longest, Problem::TooLong),
        ];
        for (path, wanted) in table {
            assert_eq!(Place::parse(path), Err(wanted));
        }
        let place = Place::parse(b"a/b/c").expect("a path");
        assert_eq!(place.split(), (&b"a/b"[..], &b"c"[..]));
        let outer: Vec<_> = prefixes(b"a/bc/d").collect();
        let wanted: [(&[u8], &[u8]); 3] = [(b"a", b"a"), (b"a/bc", b"bc"), (b"a/bc/d", b"d")];
        assert_eq!(outer, wanted);
        assert_eq!(prefixes(b"").count(), 0);
    }
}
