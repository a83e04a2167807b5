//! The keys of a job file as a JSON Schema, for editors: `docs/weft-job.schema.json` is made of the parser's table.
//!
//! A key takes values of the kinds that its example and its default have, and those that examples of its section show. What
//! else the parser asks of a value (a name, a size, a condition) is in no schema: `weft plan FILE` says it, with the place.

use serde_json::{Map, Value, json};

use super::keys::{Key, KeyTable, TABLES};
use super::parse_bytes;

/// The schema, with the end of its last line.
pub fn schema() -> String {
    let [job, sections @ ..] = TABLES;
    let mut definitions = Map::new();
    for section in sections {
        definitions.insert(name(section), definition(section));
    }
    let mut schema = definition(job);
    let about = "A job file of weft. Made of fabric/src/job/keys.rs: change it there, and run the tests with WEFT_REWRITE=1.";
    schema["description"] = about.into();
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "weft job file".into();
    schema["definitions"] = definitions.into();
    format!("{schema:#}\n")
}

/// What a section is called: `task.files` of `[[task.files]]`.
fn name(section: &KeyTable) -> String {
    section.head.trim_matches(['[', ']']).trim_end_matches(".NAME").to_owned()
}

fn definition(section: &KeyTable) -> Value {
    let properties = section.keys.iter().map(|key| (key.name.to_owned(), property(section, key)));
    let required = section.keys.iter().filter(|key| key.meaning.contains("**Required.**"));
    json!({
        "type": "object",
        "description": section.about,
        "additionalProperties": false,
        "required": required.map(|key| key.name).collect::<Vec<_>>(),
        "properties": properties.collect::<Map<_, _>>(),
    })
}

fn property(section: &KeyTable, key: &Key) -> Value {
    let inner = TABLES.iter().find(|inner| is_inner(inner, section, key));
    let mut property = match inner {
        Some(inner) => reference(inner, &value(key.example)),
        None => {
            let kinds = kinds(section, key);
            if let [kind] = &kinds[..] { kind.clone() } else { json!({ "anyOf": kinds }) }
        }
    };
    property["description"] = key.meaning.into();
    if let Some(default) = key.default {
        property["default"] = value(default);
    }
    property
}

/// Whether a key of `section` is where the section `inner` stands.
fn is_inner(inner: &KeyTable, section: &KeyTable, key: &Key) -> bool {
    let path = match name(section) {
        outer if outer.is_empty() => key.name.to_owned(),
        outer => format!("{outer}.{}", key.name),
    };
    // Files of an architecture are written like those of all.
    !inner.head.is_empty() && name(inner) == path.replace("task.arch.files", "task.files")
}

/// What stands in place of a section: itself, a list of it, or one for each name.
fn reference(inner: &KeyTable, example: &Value) -> Value {
    let one = json!({ "$ref": format!("#/definitions/{}", name(inner)) });
    match example {
        // An item that is no section of its own may be a condition alone.
        Value::Array(_) if !inner.head.starts_with('[') => {
            json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, one] } })
        }
        Value::Array(_) => json!({ "type": "array", "items": one }),
        _ if inner.head.ends_with(".NAME]") => {
            json!({ "type": "object", "additionalProperties": one })
        }
        // Beside a reference nothing else counts.
        _ => json!({ "allOf": [one] }),
    }
}

/// The kinds of values that a key takes.
fn kinds(section: &KeyTable, key: &Key) -> Vec<Value> {
    let mut shown = vec![value(key.example)];
    shown.extend(key.default.map(value));
    // In the example of the key that the section itself is.
    let name = name(section);
    let outer = TABLES.iter().flat_map(|table| table.keys).filter(|outer| outer.name == name);
    shown.extend(outer.filter_map(|outer| value(outer.example).get_mut(key.name).map(Value::take)));
    // A size may be a number of bytes.
    if shown.iter().any(|shown| shown.as_str().is_some_and(|text| parse_bytes(text).is_some())) {
        shown.push(0.into());
    }
    let mut kinds: Vec<Value> = Vec::new();
    for kind in shown.iter().map(kind) {
        match kinds.iter_mut().find(|other| other["type"] == kind["type"]) {
            // What is empty says less than another example of that type.
            Some(other) if other.as_object().is_some_and(|it| it.len() == 1) => *other = kind,
            Some(_) => {}
            None => kinds.push(kind),
        }
    }
    kinds
}

/// What a value has to be to be like this one.
fn kind(shown: &Value) -> Value {
    match shown {
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(number) if number.is_f64() => json!({ "type": "number" }),
        Value::Number(_) => json!({ "type": "integer" }),
        Value::String(_) | Value::Null => json!({ "type": "string" }),
        Value::Array(items) => match items.first() {
            Some(item) => json!({ "type": "array", "items": kind(item) }),
            None => json!({ "type": "array" }),
        },
        Value::Object(fields) => match fields.values().next() {
            Some(field) => json!({ "type": "object", "additionalProperties": kind(field) }),
            None => json!({ "type": "object" }),
        },
    }
}

/// A value as the table writes it.
fn value(written: &str) -> Value {
    let text = format!("value = {written}");
    let read: Option<Map<String, Value>> = toml::from_str(&text).ok();
    read.and_then(|mut read| read.remove("value")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
