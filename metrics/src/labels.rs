//! Labels of series, and the matchers that choose among them.

use std::fmt;
use std::sync::Arc;

use regex_lite::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{
    LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, REGEX_BYTES_MAX,
    REGEX_COMPILED_BYTES_MAX,
};

/// The label that holds a metric's name.
pub const NAME: &str = "__name__";

/// The labels of a series, by name; the metric's name is the label [`NAME`].
///
/// Invariants: names are in order, each occurs once; no value is empty (an empty label and no label
/// are the same).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Vec<(Arc<str>, Arc<str>)>);

/// Why labels are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// More than [`LABELS_MAX`].
    #[error("a series has {0} labels; at most {LABELS_MAX} are kept: leave some out")]
    TooMany(usize),
    /// Not `[a-zA-Z_][a-zA-Z0-9_]*`, or too long.
    #[error(
        "label name {0:?} is not letters, digits and underscores, at most {LABEL_NAME_BYTES_MAX} bytes"
    )]
    Name(String),
    /// Too long.
    #[error(
        "the value of label {0} has {1} bytes; at most {LABEL_VALUE_BYTES_MAX} are kept: shorten it"
    )]
    Value(String, usize),
    /// The same name twice.
    #[error("label {0} is there twice")]
    Twice(String),
}

impl Labels {
    /// Checks and sorts.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, LabelError> {
        let mut list: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for (name, value) in pairs {
            let (name, value): (Arc<str>, Arc<str>) = (name.into(), value.into());
            let valid = if &*name == NAME { is_metric_name(&value) } else { is_label_name(&name) };
            if !valid || name.len() > LABEL_NAME_BYTES_MAX {
                let shown = if &*name == NAME { &value } else { &name };
                return Err(LabelError::Name(shown.chars().take(64).collect()));
            }
            if value.len() > LABEL_VALUE_BYTES_MAX {
                return Err(LabelError::Value(name.to_string(), value.len()));
            }
            if !value.is_empty() {
                list.push((name, value));
            }
            if list.len() > LABELS_MAX {
                return Err(LabelError::TooMany(list.len()));
            }
        }
        list.sort();
        match list.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(LabelError::Twice(pair[0].0.to_string())),
            None => Ok(Labels(list)),
        }
    }

    /// Of pairs that are known to be in order.
    pub(crate) fn from_sorted(pairs: Vec<(Arc<str>, Arc<str>)>) -> Self {
        Labels(pairs)
    }

    /// Of a metric without further labels.
    pub fn named(name: &str) -> Self {
        Labels(vec![(NAME.into(), name.into())])
    }

    /// In order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A label's value; empty if there is none.
    pub fn value(&self, name: &str) -> &str {
        match self.0.binary_search_by(|(this, _)| (**this).cmp(name)) {
            Ok(index) => &self.0[index].1,
            Err(_) => "",
        }
    }

    /// The metric's name; empty if there is none.
    pub fn name(&self) -> &str {
        self.value(NAME)
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.binary_search_by(|(this, _)| (**this).cmp(name)) {
            Ok(index) if value.is_empty() => drop(self.0.remove(index)),
            Ok(index) => self.0[index].1 = value.into(),
            Err(_) if value.is_empty() => {}
            Err(index) => self.0.insert(index, (name.into(), value.into())),
        }
    }

    /// Without the metric's name, as most operations leave it.
    pub fn without_name(mut self) -> Self {
        self.0.retain(|(name, _)| &**name != NAME);
        self
    }

    /// Only these.
    pub fn keep(&self, names: &[String]) -> Self {
        let kept = self.0.iter().filter(|(name, _)| names.iter().any(|kept| **kept == **name));
        Labels(kept.cloned().collect())
    }

    /// All but these, and without the metric's name.
    pub fn drop(&self, names: &[String]) -> Self {
        let dropped = |name: &str| name == NAME || names.iter().any(|dropped| dropped == name);
        Labels(self.0.iter().filter(|(name, _)| !dropped(name)).cloned().collect())
    }
}

/// As a selector: `name{label="value"}`.
impl fmt::Display for Labels {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(self.name())?;
        let rest: Vec<_> = self.iter().filter(|(name, _)| *name != NAME).collect();
        if rest.is_empty() && !self.name().is_empty() {
            return Ok(());
        }
        out.write_str("{")?;
        for (index, (name, value)) in rest.iter().enumerate() {
            write!(out, "{}{name}={value:?}", if index > 0 { ", " } else { "" })?;
        }
        out.write_str("}")
    }
}

/// A list of pairs.
impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Checked like [`Labels::new`].
impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(String, String)>::deserialize(deserializer)?;
        Labels::new(pairs).map_err(serde::de::Error::custom)
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`
pub fn is_label_name(name: &str) -> bool {
    is_metric_name(name) && !name.contains(':')
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`
pub fn is_metric_name(name: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(first) && bytes.all(|byte| first(byte) || byte.is_ascii_digit())
}

/// What a matcher asks of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

/// One condition on a label.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label.
    pub label: String,
    /// The comparison.
    pub matching: Matching,
    /// What it is compared with.
    pub value: String,
    regex: Option<Regex>,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.label, self.matching, &self.value) == (&other.label, other.matching, &other.value)
    }
}

impl Matcher {
    /// Compiles a regular expression; the error is its reason.
    pub fn new(label: &str, matching: Matching, value: &str) -> Result<Self, String> {
        let regex = match matching {
            Matching::Equal | Matching::NotEqual => None,
            Matching::Regex | Matching::NotRegex => Some(anchored(value)?),
        };
        Ok(Matcher { label: label.to_owned(), matching, value: value.to_owned(), regex })
    }

    /// How much it costs to try it on a value, in samples looked at.
    pub(crate) fn cost(&self) -> usize {
        // A regular expression looks at a text as often as it is long, at worst.
        if self.regex.is_some() { self.value.len().max(1) } else { 1 }
    }

    /// Whether a value, empty for a label that is not there, fits.
    pub fn matches(&self, value: &str) -> bool {
        match (&self.regex, self.matching) {
            (Some(regex), Matching::NotRegex) => !regex.is_match(value),
            (Some(regex), _) => regex.is_match(value),
            (None, Matching::NotEqual) => self.value != value,
            (None, _) => self.value == value,
        }
    }
}

/// As it is written.
impl fmt::Display for Matcher {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let sign = match self.matching {
            Matching::Equal => "=",
            Matching::NotEqual => "!=",
            Matching::Regex => "=~",
            Matching::NotRegex => "!~",
        };
        write!(out, "{}{sign}{}", self.label, quoted(&self.value))
    }
}

/// A regular expression that must match all of a text, within bounds.
pub(crate) fn anchored(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > REGEX_BYTES_MAX {
        return Err(format!("a regular expression may have {REGEX_BYTES_MAX} bytes"));
    }
    regex_lite::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(REGEX_COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| format!("the regular expression {pattern:?} is not valid: {error}"))
}

/// A text as PromQL writes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => {
                out.push_str(&format!("\\U{:08x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
