//! The status screen of a node, as it comes out of a serial port: `weft console` (`cli/src/console.rs`) draws it anew
//! whenever something on it has changed.

use std::collections::BTreeMap;

/// What it begins with: the cursor goes home.
const HOME: &str = "\x1b[H";
/// What it ends with: nothing is below.
const END: &str = "\x1b[J";
/// Column at which values begin.
const VALUES: usize = 14;

/// What was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    /// The node's name.
    pub node: String,
    /// Of its key: 20 digits in groups of four.
    pub fingerprint: String,
    /// Whether it has an address.
    pub has_network: bool,
    /// The first of them.
    pub addresses: Vec<String>,
    /// Where it belongs.
    pub standing: Standing,
    /// What it says about how it is: its state, and its warnings.
    pub says: Vec<String>,
}

/// Where a node belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// To a fabric.
    Member {
        /// Its name.
        fabric: String,
        /// The part of its key that people compare.
        key: String,
        /// Nodes that are alive, itself among them.
        alive: u32,
    },
    /// It waits to be approved.
    Waiting,
    /// Nowhere, and this is what it says.
    Nowhere(String),
}

impl Screen {
    /// The last one that can be read. What else is written to a console goes in between and may spoil one. Once an agent
    /// does not answer, there is none.
    pub fn last(heard: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(heard);
        for drawn in text.rsplit(HOME) {
            let Some((drawn, _)) = drawn.split_once(END) else { continue };
            let page = Page::new(&without_escapes(drawn));
            if page.first("agent").is_some_and(|agent| agent == "does not answer") {
                return None;
            }
            if let Some(screen) = page.screen() {
                return Some(screen);
            }
        }
        None
    }

    /// Whether it has found its place: it can be reached, and belongs to a fabric or waits for one.
    pub fn is_settled(&self) -> bool {
        self.has_network && !matches!(self.standing, Standing::Nowhere(_))
    }
}

/// Values by the name before them, and warnings.
#[derive(Default)]
struct Page {
    fields: BTreeMap<String, Vec<String>>,
    warnings: Vec<String>,
}

impl Page {
    fn new(text: &str) -> Self {
        let mut page = Self::default();
        let mut name = String::new();
        for line in text.lines().map(str::trim_end) {
            if let Some(warning) = line.strip_prefix("! ") {
                page.warnings.push(warning.into());
                continue;
            }
            if let (true, Some(warning)) = (line.starts_with("  "), page.warnings.last_mut()) {
                warning.push(' ');
                warning.push_str(line.trim());
                continue;
            }
            let Some((head, value)) = line.split_at_checked(VALUES) else { continue };
            if !head.trim().is_empty() {
                name = head.trim().to_owned();
            }
            page.fields.entry(name.clone()).or_default().push(value.trim().to_owned());
        }
        page
    }

    fn all(&self, name: &str) -> &[String] {
        self.fields.get(name).map_or(&[], Vec::as_slice)
    }

    fn first(&self, name: &str) -> Option<&String> {
        self.all(name).first()
    }

    fn screen(self) -> Option<Screen> {
        let fingerprint = self.first("fingerprint")?;
        if !is_fingerprint(fingerprint) {
            return None;
        }
        let fabric = self.first("fabric")?.clone();
        let standing = match self.all("fabric").get(1).and_then(|next| next.strip_prefix("key ")) {
            Some(key) if is_fingerprint(key) => {
                let nodes = self.first("nodes")?;
                let alive = nodes.split(", ").find_map(|count| count.strip_suffix(" alive"))?;
                Standing::Member { fabric, key: key.into(), alive: alive.parse().ok()? }
            }
            _ if fabric.starts_with("waiting to be approved") => Standing::Waiting,
            _ if fabric.starts_with("none yet") => Standing::Nowhere(fabric),
            // A line of it was spoilt.
            _ => return None,
        };
        Some(Screen {
            node: self.first("node")?.clone(),
            fingerprint: fingerprint.clone(),
            has_network: self.first("network").is_none(),
            addresses: self.all("addresses").to_vec(),
            standing,
            says: self.all("state").iter().chain(&self.warnings).cloned().collect(),
        })
    }
}

fn is_fingerprint(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let is_group =
        |group: &&str| group.len() == 4 && group.bytes().all(|byte| byte.is_ascii_hexdigit());
    groups.len() == 5 && groups.iter().all(is_group)
}

/// Without what moves a cursor or paints: from ESC and `[` to a letter.
pub fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| ('@'..='~').contains(&c)).map_or(part.len(), |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

#[cfg(test)]
mod tests;
