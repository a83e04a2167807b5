//! Typed reading of TOML values, with errors that know where they are and what was expected.

use std::fmt;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ParseError, duration, keys, nearest, parse_bytes};
use crate::limits;

/// The text that is read, for turning byte offsets into lines and columns.
pub(super) struct Place<'t> {
    text: &'t str,
}

impl<'t> Place<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text }
    }

    /// An error at byte `at`.
    pub(super) fn error(&self, at: usize, message: impl Into<String>) -> ParseError {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ParseError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        }
    }
}

/// One value: where it is, what it is called, what it says.
pub(super) struct Item<'r> {
    place: &'r Place<'r>,
    /// `resources.memory`
    path: String,
    key: &'r str,
    /// Byte offset: of the value, or of the key when the value is a table.
    at: usize,
    value: &'r DeValue<'r>,
}

/// One table.
pub(super) struct Section<'r> {
    place: &'r Place<'r>,
    /// Empty for the whole file.
    path: String,
    at: usize,
    table: &'r DeTable<'r>,
}

impl<'r> Section<'r> {
    /// The whole file.
    pub(super) fn root(place: &'r Place<'r>, table: &'r DeTable<'r>) -> Self {
        Self { place, path: String::new(), at: 0, table }
    }

    /// Refuses every key that is not one of `known`, the first in the file first.
    pub(super) fn only(&self, known: &keys::KeyTable) -> Result<(), ParseError> {
        let keys: Vec<&'static str> = known.keys.iter().map(|key| key.name).collect();
        let unknown = self.table.keys().filter(|key| !keys.contains(&&**key.get_ref()));
        let Some(first) = unknown.min_by_key(|key| key.span().start) else { return Ok(()) };
        let path = self.path_of(&shorten(first.get_ref()));
        let hint = match nearest(first.get_ref(), keys.iter().copied()) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("known are {}", keys.join(", ")),
        };
        Err(self.place.error(first.span().start, format!("unknown key {path}: {hint}")))
    }

    /// The value of `key`, if it is there.
    pub(super) fn item(&self, key: &str) -> Option<Item<'r>> {
        self.table.get_key_value(key).map(|(key, value)| self.item_of(key, value))
    }

    /// The value of `key`; an error that says what is missing if it is not there.
    pub(super) fn required(&self, key: &str, what: &str) -> Result<Item<'r>, ParseError> {
        self.item(key).ok_or_else(|| self.missing(key, what))
    }

    /// Every value, in the order of the file.
    pub(super) fn items(&self) -> Vec<Item<'r>> {
        let mut items: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| (key.span().start, self.item_of(key, value)))
            .collect();
        items.sort_by_key(|(at, _)| *at);
        items.into_iter().map(|(_, item)| item).collect()
    }

    pub(super) fn missing(&self, key: &str, what: &str) -> ParseError {
        self.place.error(self.at, format!("{} is missing: {what}", self.path_of(key)))
    }

    fn item_of(
        &self,
        key: &'r Spanned<std::borrow::Cow<'r, str>>,
        value: &'r Spanned<DeValue<'r>>,
    ) -> Item<'r> {
        let span = if value.get_ref().is_table() { key.span() } else { value.span() };
        Item {
            place: self.place,
            path: self.path_of(&shorten(key.get_ref())),
            key: key.get_ref(),
            at: span.start,
            value: value.get_ref(),
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }
}

impl<'r> Item<'r> {
    /// The last part of its path.
    pub(super) fn key(&self) -> &'r str {
        self.key
    }

    /// An error about this value.
    pub(super) fn error(&self, message: impl fmt::Display) -> ParseError {
        self.place.error(self.at, format!("{}: {message}", self.path))
    }

    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub(super) fn is_section(&self) -> bool {
        self.value.is_table()
    }

    pub(super) fn string(&self) -> Result<&'r str, ParseError> {
        self.value.as_str().ok_or_else(|| self.expected("text in quotes"))
    }

    pub(super) fn boolean(&self) -> Result<bool, ParseError> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub(super) fn integer<T>(&self, least: T, most: T) -> Result<T, ParseError>
    where
        T: Copy + fmt::Display + TryFrom<i128> + PartialOrd,
    {
        let expected = format!("a whole number from {least} to {most}");
        let number = self.whole_number().ok_or_else(|| self.expected(&expected))?;
        T::try_from(number)
            .ok()
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.error(format!("{number} is out of range: {expected}")))
    }

    /// A number, with or without decimals.
    pub(super) fn number(&self, expected: &str) -> Result<f64, ParseError> {
        let number = match self.value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => self.whole_number().map(|number| number as f64),
        };
        number.ok_or_else(|| self.expected(expected))
    }

    pub(super) fn bytes(&self) -> Result<u64, ParseError> {
        let expected = "a size such as \"64MiB\" or \"1.5GiB\"";
        let bytes = match self.value {
            DeValue::String(text) => parse_bytes(text),
            _ => self.whole_number().and_then(|number| u64::try_from(number).ok()),
        };
        bytes.ok_or_else(|| self.expected(expected))
    }

    pub(super) fn duration(&self) -> Result<Duration, ParseError> {
        let text = self
            .value
            .as_str()
            .ok_or_else(|| self.expected("a duration such as \"2s\" or \"1m30s\""))?;
        duration::parse(text).map_err(|error| self.error(error))
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Result<T, ParseError> {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let expected = names.join(" or ");
        let text = self.value.as_str().ok_or_else(|| self.expected(&expected))?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(*choice);
        }
        let hint = match nearest(text, choices.iter().map(|(name, _)| *name)) {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("write {expected}"),
        };
        Err(self.error(format!("there is no {:?}: {hint}", shorten(text))))
    }

    /// The elements of a list, called `path[0]`, `path[1]`, ...
    pub(super) fn list(&self) -> Result<Vec<Item<'r>>, ParseError> {
        let list = self.value.as_array().ok_or_else(|| self.expected("a list in [ ]"))?;
        if list.len() > limits::JOB_LIST_MAX {
            return Err(self.error(format!(
                "has {} items, {} are allowed",
                list.len(),
                limits::JOB_LIST_MAX
            )));
        }
        Ok(list
            .iter()
            .enumerate()
            .map(|(index, value)| Item {
                place: self.place,
                path: format!("{}[{index}]", self.path),
                key: self.key,
                at: value.span().start,
                value: value.get_ref(),
            })
            .collect())
    }

    pub(super) fn strings(&self) -> Result<Vec<String>, ParseError> {
        self.list()?.iter().map(|item| item.string().map(str::to_owned)).collect()
    }

    pub(super) fn section(&self) -> Result<Section<'r>, ParseError> {
        let table = self.value.as_table().ok_or_else(|| self.expected("a section"))?;
        if table.len() > limits::JOB_LIST_MAX {
            return Err(self.error(format!(
                "has {} keys, {} are allowed",
                table.len(),
                limits::JOB_LIST_MAX
            )));
        }
        Ok(Section { place: self.place, path: self.path.clone(), at: self.at, table })
    }

    fn whole_number(&self) -> Option<i128> {
        let number = self.value.as_integer()?;
        i128::from_str_radix(number.as_str(), number.radix()).ok()
    }

    fn expected(&self, what: &str) -> ParseError {
        let found = match self.value {
            DeValue::String(text) => format!("{:?}", shorten(text)),
            DeValue::Integer(number) => shorten(&number.to_string()),
            DeValue::Float(number) => shorten(number.as_str()),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(_) => "a date".into(),
            DeValue::Array(_) => "a list".into(),
            DeValue::Table(_) => "a section".into(),
        };
        self.error(format!("expected {what}, found {found}"))
    }
}

/// What is shown of a text that may be long.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
