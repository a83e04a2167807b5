use super::*;
use crate::job::{keys, parse_with};
use std::path::{Path, PathBuf};

/// What a value is not, by as much of JSON Schema as the schema uses.
fn misfit(schema: &Value, wanted: &Value, value: &Value) -> Option<String> {
    if let Some(reference) = wanted["$ref"].as_str() {
        let found = schema.pointer(&reference[1..]).expect(reference);
        return misfit(schema, found, value);
    }
    if let Some(one) = wanted["allOf"].as_array() {
        return one.iter().find_map(|one| misfit(schema, one, value));
    }
    if let Some(choices) = wanted["anyOf"].as_array() {
        let none = choices.iter().all(|choice| misfit(schema, choice, value).is_some());
        return none.then(|| format!("{value} is none of {choices:?}"));
    }
    let fits = match wanted["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        other => panic!("{other:?} is no type: {wanted}"),
    };
    if !fits {
        return Some(format!("{value} is no {}", wanted["type"]));
    }
    let items = value.as_array().into_iter().flatten();
    let mut items = items.filter(|_| wanted.get("items").is_some());
    if let Some(misfit) = items.find_map(|item| misfit(schema, &wanted["items"], item)) {
        return Some(misfit);
    }
    for name in wanted["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().expect("a name")).is_none() {
            return Some(format!("there is no {name}"));
        }
    }
    value.as_object().into_iter().flatten().find_map(|(name, value)| {
        match (&wanted["properties"][name], &wanted["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => Some(format!("{name} is no key")),
            (Value::Null, Value::Null) => None,
            (Value::Null, each) | (each, _) => misfit(schema, each, value),
        }
    })
}

fn is_told(text: &str) -> Option<String> {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    match toml::from_str::<Value>(text) {
        Ok(value) => misfit(&schema, &schema, &value),
        Err(error) => Some(error.to_string()),
    }
}

/// Job files of this tree: examples, what the fuzzers begin with, and what stands in documents.
fn job_files() -> Vec<(PathBuf, String)> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["docs/examples", "fuzz/corpus/job_file", "docs", "docs/guide", "."] {
        for file in std::fs::read_dir(tree.join(folder)).expect(folder) {
            let path = file.expect("a file").path();
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if path.extension().is_some_and(|it| it == "md") {
                let blocks = text.split("```toml\n").skip(1);
                let blocks = blocks.filter_map(|rest| rest.split("```").next());
                files.extend(blocks.map(|block| (path.clone(), block.to_owned())));
            } else {
                files.push((path, text));
            }
        }
    }
    files
}

#[test]
fn the_schema_is_made_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/weft-job.schema.json");
    if std::env::var_os("WEFT_REWRITE").is_some() {
        std::fs::write(path, schema()).expect("it is written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == schema(), "{path} is not what the table says: WEFT_REWRITE=1 cargo test");
}

#[test]
fn what_the_parser_takes_the_schema_takes() {
    let mut taken = 0;
    for (path, text) in job_files() {
        if parse_with(&text, &mut |_| Ok("a = 1".into())).is_ok() {
            assert_eq!(is_told(&text), None, "{}: {text}", path.display());
            taken += 1;
        }
    }
    assert!(taken >= 10, "{taken}");
    let size =
        "name = 'a'\ntask = { command = ['/bin/a'] }\nresources = { memory = 67108864, cpu = 1 }\n";
    assert!(crate::job::parse(size).is_ok());
    assert_eq!(is_told(size), None);
}

#[test]
fn every_key_is_in_it_and_what_is_none_is_refused() {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    for section in keys::TABLES {
        let definition = match name(section) {
            job if job.is_empty() => &schema,
            name => &schema["definitions"][name],
        };
        let known = definition["properties"].as_object().expect(section.head);
        assert!(
            known.keys().eq(std::collections::BTreeMap::from_iter(
                section.keys.iter().map(|key| (key.name, ())),
            )
            .keys()),
            "{}",
            section.head
        );
    }
    let job = "name = 'a'\n[task]\ncommand = ['/bin/a']\n";
    assert_eq!(is_told(job), None);
    for wrong in [
        "[task]\ncommand = ['/bin/a']\n".to_owned(),
        job.replace("command", "comand"),
        job.replace("['/bin/a']", "'/bin/a'"),
        format!("{job}[resources]\ncores = '2'\n"),
        format!("{job}[[task.files]]\ncontent = 'a'\n"),
        format!("{job}[task.arch.aarch64]\ncommands = ['/bin/b']\n"),
        format!("{job}[placement]\naffinity = [{{ weight = 3 }}]\n"),
        format!("{job}[health]\nport = 80\n"),
    ] {
        assert!(is_told(&wrong).is_some(), "{wrong}");
        assert!(parse_with(&wrong, &mut |_| Ok(String::new())).is_err(), "{wrong}");
    }
}
