//! Conditions on a node: `arch == "x86_64"`, `labels.rack != "r1"`, `memory >= "4GiB"`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::id::NodeId;
use crate::job::parse_bytes;
use crate::topology::NodeInfo;

/// Something that can be said of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// Host name, with the first digits of the key where that is asked for, or where nodes are to be told apart.
    Name,
    /// Architecture.
    Arch,
    /// Kernel release, compared number by number.
    Kernel,
    /// Operating system.
    Os,
    /// Version of the agent, compared number by number.
    Version,
    /// `systemd` or `direct`.
    Executor,
    /// Physical cores given to the fabric.
    Cores,
    /// Bytes of memory given to the fabric.
    Memory,
    /// Number of memory nodes.
    Numa,
    /// A label; a node that lacks it matches only `!=`.
    Label(String),
    /// Number of devices of a class that are given to the fabric, in use or not.
    Devices(String),
}

/// How an attribute is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const OPERATORS: [(&str, Operator); 6] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

/// One condition. Written, stored and shown as text; parsed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    attribute: Attribute,
    operator: Operator,
    value: String,
}

/// Why a text is not a condition. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// No operator.
    #[error("{0:?} compares nothing: write ATTRIBUTE == \"VALUE\" (or != < <= > >=)")]
    NoOperator(String),
    /// Not an attribute.
    #[error("a node has no attribute {name:?}{}", suggestion.as_ref().map(|s| format!(": did you mean {s:?}?")).unwrap_or_else(|| ": use name, arch, kernel, os, version, executor, cores, memory, numa, labels.NAME or devices.CLASS".into()))]
    NoSuchAttribute {
        /// What was written.
        name: String,
        /// The nearest real one.
        suggestion: Option<&'static str>,
    },
    /// A label's name that no node can have.
    #[error("{0:?} is not the name of a label: use letters, digits, '-', '_', '.' and '/'")]
    NotALabel(String),
    /// A class that no device can have.
    #[error(
        "{0:?} is not a class of devices: use lower-case letters, digits and '-', as in devices.gpu"
    )]
    NotAClass(String),
    /// A value that could be read in two ways.
    #[error(
        "{0:?} is not one value: put text with spaces in quotes, and write one condition for each item of the list"
    )]
    NotAValue(String),
    /// A number was expected.
    #[error("{attribute} is a number, {value:?} is not")]
    NotANumber {
        /// Which attribute.
        attribute: String,
        /// What was written.
        value: String,
    },
}

const PLAIN: [(&str, Attribute); 9] = [
    ("name", Attribute::Name),
    ("arch", Attribute::Arch),
    ("kernel", Attribute::Kernel),
    ("os", Attribute::Os),
    ("version", Attribute::Version),
    ("executor", Attribute::Executor),
    ("cores", Attribute::Cores),
    ("memory", Attribute::Memory),
    ("numa", Attribute::Numa),
];

impl Attribute {
    /// What the node has for this attribute. A name is the one that no other node has.
    pub fn of<'a>(&self, id: NodeId, node: &'a NodeInfo) -> Option<Cow<'a, str>> {
        Some(match self {
            Attribute::Name => Cow::Owned(id.with_name(&node.name)),
            Attribute::Arch => Cow::Borrowed(node.topology.arch.as_str()),
            Attribute::Kernel => Cow::Borrowed(node.topology.kernel.as_str()),
            Attribute::Os => Cow::Borrowed(node.topology.os.as_str()),
            Attribute::Version => Cow::Borrowed(node.version.as_str()),
            Attribute::Executor => Cow::Borrowed(node.executor.as_str()),
            Attribute::Cores => Cow::Owned(node.topology.cores.len().to_string()),
            Attribute::Memory => Cow::Owned(node.topology.memory.to_string()),
            Attribute::Numa => Cow::Owned(node.topology.numa.len().to_string()),
            Attribute::Label(label) => Cow::Borrowed(node.labels.get(label)?.as_str()),
            Attribute::Devices(class) => {
                let devices = node.topology.devices.iter();
                Cow::Owned(devices.filter(|device| device.class == *class).count().to_string())
            }
        })
    }

    fn is_number(&self) -> bool {
        matches!(
            self,
            Attribute::Cores | Attribute::Memory | Attribute::Numa | Attribute::Devices(_)
        )
    }
}

impl FromStr for Attribute {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let text = text.trim();
        if let Some(label) = text.strip_prefix("labels.") {
            return if is_label(label) {
                Ok(Attribute::Label(label.into()))
            } else {
                Err(ConstraintError::NotALabel(shorten(label)))
            };
        }
        if let Some(class) = text.strip_prefix("devices.") {
            return if is_device_class(class) {
                Ok(Attribute::Devices(class.into()))
            } else {
                Err(ConstraintError::NotAClass(shorten(class)))
            };
        }
        if let Some((_, attribute)) = PLAIN.iter().find(|(name, _)| *name == text) {
            return Ok(attribute.clone());
        }
        let suggestion = crate::job::nearest(text, PLAIN.iter().map(|(name, _)| *name));
        Err(ConstraintError::NoSuchAttribute { name: shorten(text), suggestion })
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attribute::Label(label) => write!(f, "labels.{label}"),
            Attribute::Devices(class) => write!(f, "devices.{class}"),
            plain => {
                let known = PLAIN.iter().find(|(_, attribute)| attribute == plain);
                f.write_str(known.map_or("?", |(name, _)| name))
            }
        }
    }
}

impl Constraint {
    /// What the node has for the condition's attribute, as the condition speaks of it. A node has two names, whether
    /// or not another one shares its host name now: a condition that was met does not cease to be when one joins.
    pub fn actual<'a>(&self, id: NodeId, node: &'a NodeInfo) -> Option<Cow<'a, str>> {
        let is_plain = || {
            let rest = self.value.strip_prefix(&*node.name).and_then(|rest| rest.strip_prefix('-'));
            rest.is_none_or(|rest| rest.len() != id.short().len())
        };
        match self.attribute {
            Attribute::Name if is_plain() => Some(Cow::Borrowed(&node.name)),
            _ => self.attribute.of(id, node),
        }
    }

    /// Whether a node meets the condition.
    pub fn holds(&self, id: NodeId, node: &NodeInfo) -> bool {
        let Some(actual) = self.actual(id, node) else {
            return self.operator == Operator::NotEqual;
        };
        let order = if self.attribute.is_number() {
            let wanted = parse_bytes(&self.value).unwrap_or(0);
            actual.parse::<u64>().unwrap_or(0).cmp(&wanted)
        } else {
            match self.operator {
                Operator::Equal | Operator::NotEqual => (*actual).cmp(&*self.value),
                _ => compare_versions(&actual, &self.value),
            }
        };
        match self.operator {
            Operator::Equal => order == Ordering::Equal,
            Operator::NotEqual => order != Ordering::Equal,
            Operator::Less => order == Ordering::Less,
            Operator::LessOrEqual => order != Ordering::Greater,
            Operator::Greater => order == Ordering::Greater,
            Operator::GreaterOrEqual => order != Ordering::Less,
        }
    }

    /// What the condition is about.
    pub fn attribute(&self) -> &Attribute {
        &self.attribute
    }
}

/// Runs of digits compare as numbers, everything else as text: `6.10` is more than `6.9`.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !a.is_empty() && !b.is_empty() {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (na, nb) = (digits(a), digits(b));
        let order = if na > 0 && nb > 0 {
            let number = |text: &str| text.trim_start_matches('0').to_owned();
            let (x, y) = (number(&a[..na]), number(&b[..nb]));
            let order = x.len().cmp(&y.len()).then_with(|| x.cmp(&y));
            (a, b) = (&a[na..], &b[nb..]);
            order
        } else {
            let (mut ca, mut cb) = (a.chars(), b.chars());
            let order = ca.next().cmp(&cb.next());
            (a, b) = (ca.as_str(), cb.as_str());
            order
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let position = text.find(['=', '!', '<', '>']);
        let found = position.and_then(|position| {
            let operator = OPERATORS.iter().find(|(sign, _)| text[position..].starts_with(sign))?;
            Some((position, operator))
        });
        let Some((position, (sign, operator))) = found else {
            return Err(ConstraintError::NoOperator(shorten(text)));
        };
        let attribute: Attribute = text[..position].parse()?;
        let value = unquote(text[position + sign.len()..].trim())?.to_owned();
        if attribute.is_number() && parse_bytes(&value).is_none() {
            return Err(ConstraintError::NotANumber { attribute: attribute.to_string(), value });
        }
        Ok(Self { attribute, operator: *operator, value })
    }
}

/// What stands between quotes, or a single word without any. A value has no double quote inside, so
/// that it can be written between them again.
fn unquote(text: &str) -> Result<&str, ConstraintError> {
    let refuse = || ConstraintError::NotAValue(shorten(text));
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let inner = rest.strip_suffix(quote).ok_or_else(refuse)?;
            let fine = !inner.contains(quote) && !inner.contains('"');
            return if fine && inner.len() <= VALUE_BYTES_MAX { Ok(inner) } else { Err(refuse()) };
        }
    }
    let word =
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "\"'=<>!&|".contains(c));
    if word && text.len() <= VALUE_BYTES_MAX { Ok(text) } else { Err(refuse()) }
}

/// Bytes of a value or of a label's name.
const VALUE_BYTES_MAX: usize = 253;

fn is_label(name: &str) -> bool {
    (1..=VALUE_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
}

/// Whether a class of devices can be called that: `gpu`, `tty`.
pub(crate) fn is_device_class(class: &str) -> bool {
    class.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && class.len() <= 32
        && class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign =
            OPERATORS.iter().find(|(_, o)| *o == self.operator).map_or("?", |(sign, _)| sign);
        write!(f, "{} {sign} \"{}\"", self.attribute, self.value)
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}
as_text!(Attribute);
as_text!(Constraint);

#[cfg(test)]
mod tests;
