//! Typed reading of TOML values, with errors that know where they are and what was expected.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ParseError, duration, keys, nearest, parse_bytes};
use crate::limits;

/// Errors of one file that are noted: far more than anybody reads, so that those that come first in it are among them.
const ERRORS_MAX: usize = 256;

/// The text that is read, for turning byte offsets into lines and columns; and what was found to be wrong with it.
pub(super) struct Place<'t> {
    text: &'t str,
    errors: RefCell<Vec<ParseError>>,
}

impl<'t> Place<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, errors: RefCell::default() }
    }

    /// Notes what is wrong, and goes on.
    pub(super) fn note(&self, error: ParseError) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() < ERRORS_MAX && !errors.contains(&error) {
            errors.push(error);
        }
    }

    /// What was noted so far.
    pub(super) fn errors(&self) -> std::cell::Ref<'_, [ParseError]> {
        std::cell::Ref::map(self.errors.borrow(), Vec::as_slice)
    }

    /// Everything that was noted, as it came.
    pub(super) fn into_errors(self) -> Vec<ParseError> {
        self.errors.into_inner()
    }

    /// An error at byte `at`, about the key `path`.
    pub(super) fn error(
        &self,
        at: usize,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> ParseError {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ParseError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            path: path.into(),
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
    /// Known keys that are there under a name which is almost theirs.
    misspelt: RefCell<Vec<&'static str>>,
}

impl<'r> Section<'r> {
    /// The whole file.
    pub(super) fn root(place: &'r Place<'r>, table: &'r DeTable<'r>) -> Self {
        Self { place, path: String::new(), at: 0, table, misspelt: RefCell::default() }
    }

    /// Notes every key that is not one of `known`.
    pub(super) fn only(&self, known: &keys::KeyTable) {
        let keys: Vec<&'static str> = known.keys.iter().map(|key| key.name).collect();
        for key in self.table.keys().filter(|key| !keys.contains(&&**key.get_ref())) {
            let path = self.path_of(&shorten(key.get_ref()));
            let near = nearest(key.get_ref(), keys.iter().copied());
            let hint = match near {
                Some(name) => format!("did you mean {name}?"),
                None => format!("known are {}", keys.join(", ")),
            };
            self.misspelt.borrow_mut().extend(near);
            let message = format!("unknown key {path}: {hint}");
            // It is about the key that was meant.
            let path = near.map_or(path, |name| self.path_of(name));
            self.place.note(self.place.error(key.span().start, path, message));
        }
    }

    /// The value of `read`; `None` once the error is noted.
    pub(super) fn take<T>(&self, read: Result<T, ParseError>) -> Option<T> {
        read.map_err(|error| self.place.note(error)).ok()
    }

    /// Puts what `read` makes of the value of `key` into `field`. A key that is absent, or whose value is wrong, leaves it as it is.
    pub(super) fn set<T>(
        &self,
        key: &str,
        field: &mut T,
        read: impl FnOnce(&Item<'r>) -> Result<T, ParseError>,
    ) {
        if let Some(value) = self.item(key).and_then(|item| self.take(read(&item))) {
            *field = value;
        }
    }

    /// The section at `key`, if there is one.
    pub(super) fn section(&self, key: &str) -> Option<Section<'r>> {
        self.take(self.item(key)?.section())
    }

    /// What `read` makes of each section of the list at `key`; `T`'s default of what is none, which is noted.
    pub(super) fn sections<T: Default>(
        &self,
        key: &str,
        mut read: impl FnMut(&Section<'r>) -> T,
    ) -> Vec<T> {
        let list = self.item(key).and_then(|item| self.take(item.list())).unwrap_or_default();
        let sections = list.iter().map(|item| self.take(item.section()));
        sections.map(|section| section.as_ref().map(&mut read).unwrap_or_default()).collect()
    }

    /// Whether something that was noted is about one of these keys of the file, or what is in it.
    pub(super) fn is_wrong(&self, is_about: impl Fn(&str) -> bool) -> bool {
        self.place.errors().iter().any(|error| is_about(&error.path))
    }

    /// What `read` makes of each element of the list at `key`. Elements that are wrong are noted and left out.
    pub(super) fn each<T>(
        &self,
        key: &str,
        read: impl FnMut(&Item<'r>) -> Result<T, ParseError>,
    ) -> Vec<T> {
        let list = self.item(key).and_then(|item| self.take(item.list())).unwrap_or_default();
        list.iter().map(read).filter_map(|read| self.take(read)).collect()
    }

    /// The value of `key`, if it is there.
    pub(super) fn item(&self, key: &str) -> Option<Item<'r>> {
        self.table.get_key_value(key).map(|(key, value)| self.item_of(key, value))
    }

    /// The value of `key`. If it is not there, that is noted, unless it is there under a name that is almost right.
    pub(super) fn required(&self, key: &str, what: &str) -> Option<Item<'r>> {
        let item = self.item(key);
        if item.is_none() && !self.misspells(&[key]) {
            self.place.note(self.missing(key, what));
        }
        item
    }

    /// Whether one of these is there under a name that is almost right.
    pub(super) fn misspells(&self, keys: &[&str]) -> bool {
        self.misspelt.borrow().iter().any(|known| keys.contains(known))
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
        let path = self.path_of(key);
        let message = format!("{path} is missing: {what}");
        self.place.error(self.at, path, message)
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
        self.place.error(self.at, self.path.clone(), format!("{}: {message}", self.path))
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

    /// A list of texts. Each element that is none is noted; with the last of them it is an error.
    pub(super) fn strings(&self) -> Result<Vec<String>, ParseError> {
        self.elements(|item| item.string().map(str::to_owned))
    }

    /// A list, each element as `read` makes it. All that are wrong are noted but the last, which is the error.
    pub(super) fn elements<T>(
        &self,
        read: impl FnMut(&Item<'r>) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        let (mut values, mut last) = (Vec::new(), None);
        for read in self.list()?.iter().map(read) {
            match read {
                Ok(value) => values.push(value),
                Err(error) => {
                    if let Some(before) = last.replace(error) {
                        self.place.note(before);
                    }
                }
            }
        }
        last.map_or(Ok(values), Err)
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
        let misspelt = RefCell::default();
        Ok(Section { place: self.place, path: self.path.clone(), at: self.at, table, misspelt })
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
