//! Compares answers with the schemas of the OpenAPI document: as much of JSON Schema as it uses.

use serde_json::Value;

/// Checks `value` against the schema `name`.
#[track_caller]
pub fn check(document: &Value, name: &str, value: &Value) {
    let schema = serde_json::json!({"$ref": format!("#/components/schemas/{name}")});
    if let Err(error) = matches(document, &schema, value) {
        panic!("not a {name}: {error}\n{value:#}");
    }
}

fn matches(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let found =
            document.pointer(&reference[1..]).ok_or(format!("{reference} leads nowhere"))?;
        return matches(document, found, value);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(options) = schema[choice].as_array() {
            let tried: Vec<String> = options
                .iter()
                .filter_map(|option| matches(document, option, value).err())
                .collect();
            if tried.len() == options.len() {
                return Err(format!("none of {choice} fits: {}", tried.join(" | ")));
            }
        }
    }
    let allowed: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !allowed.is_empty() && !allowed.contains(&kind) {
        return Err(format!("{value} is {kind} instead of {allowed:?}"));
    }
    if let (Some(names), false) = (schema["enum"].as_array(), value.is_null())
        && !names.contains(value)
    {
        return Err(format!("{value} is not one of {names:?}"));
    }
    if let Some(fixed) = schema.get("const").filter(|fixed| *fixed != value) {
        return Err(format!("{value} is not {fixed}"));
    }
    match value {
        Value::Array(items) => {
            for item in items {
                matches(document, &schema["items"], item)?;
            }
        }
        Value::Object(fields) => {
            for required in schema["required"].as_array().into_iter().flatten() {
                let name = required.as_str().unwrap_or_default();
                fields.get(name).ok_or(format!("{name} is missing"))?;
            }
            for (name, field) in fields {
                let inner = match schema["properties"].get(name) {
                    Some(inner) => inner,
                    None if schema["additionalProperties"].is_object() => {
                        &schema["additionalProperties"]
                    }
                    // Events have more fields, as their kind has it.
                    None if schema["properties"].get("event").is_some() => continue,
                    None if schema["properties"].is_object() => {
                        return Err(format!("{name} is not in the document"));
                    }
                    None => continue,
                };
                matches(document, inner, field).map_err(|error| format!("{name}: {error}"))?;
            }
        }
        _ => {}
    }
    Ok(())
}
