//! The document (OpenAPI): its paths are written from the table, all else in it by hand.

use super::*;
use crate::api::doc::{Body, Gives, Values};

/// Columns of a line of the document.
const LINE_MAX: usize = 120;
/// What stands before the paths, and after them.
const BEFORE: &str = "  \"paths\": ";
const AFTER: &str = ",\n  \"components\": ";

/// JSON whose fields stay in order.
enum Json {
    Text(String),
    Flag(bool),
    List(Vec<Json>),
    Fields(Vec<(String, Json)>),
}

fn text(text: &str) -> Json {
    Json::Text(text.to_owned())
}

fn fields<const N: usize>(fields: [(&str, Json); N]) -> Json {
    Json::Fields(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

impl Json {
    /// In one line.
    fn short(&self) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        match self {
            Json::Text(text) => quoted(text),
            Json::Flag(flag) => flag.to_string(),
            Json::List(values) => {
                let values: Vec<String> = values.iter().map(Json::short).collect();
                format!("[{}]", values.join(", "))
            }
            Json::Fields(fields) => {
                let field =
                    |(name, value): &(String, Json)| format!("{}: {}", quoted(name), value.short());
                format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// In one line if that is not too long. `column` is where it begins, in a line that is indented by `indent`.
    fn long(&self, indent: usize, column: usize) -> String {
        let short = self.short();
        if column + short.len() < LINE_MAX || matches!(self, Json::Text(_) | Json::Flag(_)) {
            return short;
        }
        let inner = indent + 2;
        let (open, lines, close) = match self {
            Json::List(values) => {
                let lines = values.iter().map(|value| value.long(inner, inner));
                ('[', lines.collect::<Vec<_>>(), ']')
            }
            Json::Fields(fields) => {
                let lines = fields.iter().map(|(name, value)| {
                    let name = Value::from(name.as_str()).to_string();
                    let value = value.long(inner, inner + name.len() + 2);
                    format!("{name}: {value}")
                });
                ('{', lines.collect::<Vec<_>>(), '}')
            }
            _ => return short,
        };
        let lines = lines.join(&format!(",\n{:inner$}", ""));
        format!("{open}\n{:inner$}{lines}\n{:indent$}{close}", "", "")
    }
}

fn reference(schema: &str) -> Json {
    fields([("$ref", Json::Text(format!("#/components/schemas/{schema}")))])
}

fn kind(name: &str) -> Json {
    fields([("type", text(name))])
}

fn content(media: &[&str], schema: impl Fn() -> Json) -> Json {
    let all = media.iter().map(|media| ((*media).to_owned(), fields([("schema", schema())])));
    Json::Fields(all.collect())
}

fn parameters(route: &Route) -> Vec<Json> {
    let in_path = route.path.split(['{', '}']).nth(1).map(|name| {
        fields([
            ("name", text(name)),
            ("in", text("path")),
            ("required", Json::Flag(true)),
            ("schema", kind("string")),
        ])
    });
    let in_query = route.query.iter().map(|parameter| {
        let schema = match parameter.values {
            Values::Text => kind("string"),
            Values::Number => kind("integer"),
            Values::Flag => kind("boolean"),
            Values::OneOf(words) => fields([
                ("type", text("string")),
                ("enum", Json::List(words.iter().map(|word| text(word)).collect())),
            ]),
        };
        let mut all = vec![
            ("name".to_owned(), text(parameter.name)),
            ("in".to_owned(), text("query")),
            ("description".to_owned(), text(parameter.what)),
        ];
        if parameter.required {
            all.push(("required".to_owned(), Json::Flag(true)));
        }
        all.push(("schema".to_owned(), schema));
        Json::Fields(all)
    });
    in_path.into_iter().chain(in_query).collect()
}

fn body(body: Body) -> Option<Json> {
    let json = |required, schema: &str| {
        let content = content(&["application/json"], || reference(schema));
        fields([("required", Json::Flag(required)), ("content", content)])
    };
    Some(match body {
        Body::None => return None,
        Body::Json(schema) => json(true, schema),
        Body::Optional(schema) => json(false, schema),
        Body::Bytes => {
            let bytes = || fields([("type", text("string")), ("format", text("binary"))]);
            let content = content(&["application/octet-stream"], bytes);
            fields([("required", Json::Flag(true)), ("content", content)])
        }
    })
}

fn responses(gives: Gives) -> Json {
    let response = |status: &str, meaning: &str, content: Option<Json>| {
        let mut all = vec![("description".to_owned(), text(meaning))];
        all.extend(content.map(|content| ("content".to_owned(), content)));
        let problem = fields([("$ref", text("#/components/responses/Problem"))]);
        fields([(status, Json::Fields(all)), ("default", problem)])
    };
    let json = ["application/json"];
    match gives {
        Gives::One(schema) => response("200", "OK", Some(content(&json, || reference(schema)))),
        Gives::List(schema) => {
            let list = || fields([("type", text("array")), ("items", reference(schema))]);
            response("200", "OK", Some(content(&json, list)))
        }
        Gives::Done(meaning) => response("204", meaning, None),
        Gives::Text(media) => {
            response("200", "As it comes.", Some(content(media, || kind("string"))))
        }
        Gives::Events(schema) => {
            response("200", "OK", Some(content(&["text/event-stream"], || reference(schema))))
        }
        Gives::Document => {
            response("200", "The document.", Some(content(&json, || kind("object"))))
        }
        Gives::Prometheus => {
            let prometheus = fields([("$ref", text("#/components/responses/Prometheus"))]);
            fields([("default", prometheus)])
        }
    }
}

fn described(route: &Route) -> Json {
    let mut all = vec![
        ("summary".to_owned(), text(route.doc.summary)),
        ("x-role".to_owned(), Json::Text(format!("{:?}", route.role).to_lowercase())),
    ];
    let parameters = parameters(route);
    if !parameters.is_empty() {
        all.push(("parameters".to_owned(), Json::List(parameters)));
    }
    all.extend(body(route.doc.body).map(|body| ("requestBody".to_owned(), body)));
    all.push(("responses".to_owned(), responses(route.doc.gives)));
    Json::Fields(all)
}

fn paths() -> String {
    let mut paths: Vec<(String, Vec<(String, Json)>)> = Vec::new();
    for route in ROUTES.iter().copied().flatten() {
        let method = (route.method.to_lowercase(), described(route));
        match paths.iter_mut().find(|(path, _)| path == route.path) {
            Some((_, methods)) => methods.push(method),
            None => paths.push((route.path.to_owned(), vec![method])),
        }
    }
    let paths = paths.into_iter().map(|(path, methods)| (path, Json::Fields(methods)));
    Json::Fields(paths.collect()).long(2, 2)
}

/// Writes the paths into it anew: `WEFT_REWRITE=1 cargo test -p weft-agent document`.
#[test]
fn the_document_is_of_this_table() {
    let (before, rest) = about::OPENAPI.split_once(BEFORE).expect("paths");
    let (_, after) = rest.split_once(AFTER).expect("components");
    let wanted = format!("{before}{BEFORE}{}{AFTER}{after}", paths());
    if std::env::var_os("WEFT_REWRITE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/openapi.json");
        return std::fs::write(path, wanted).expect("written");
    }
    let lines = wanted.lines().zip(about::OPENAPI.lines());
    if let Some((wanted, found)) = lines.into_iter().find(|(wanted, found)| wanted != found) {
        panic!("openapi.json says {found:?}, the table {wanted:?}: run with WEFT_REWRITE=1");
    }
    assert_eq!(wanted.len(), about::OPENAPI.len(), "run with WEFT_REWRITE=1");
}

#[test]
fn every_row_says_what_it_is_for() {
    for route in ROUTES.iter().copied().flatten() {
        assert!(route.doc.summary.ends_with('.'), "{} {}", route.method, route.path);
        for parameter in route.query {
            assert!(!parameter.what.is_empty(), "{} {}", route.path, parameter.name);
        }
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn walk(value: &Value, document: &Value, references: &mut usize) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').expect("a local reference");
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    *references += 1;
                }
                fields.values().for_each(|value| walk(value, document, references));
            }
            Value::Array(values) => {
                values.iter().for_each(|value| walk(value, document, references));
            }
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(about::OPENAPI).expect("the document is JSON");
    let mut references = 0;
    walk(&document, &document, &mut references);
    assert!(references > 60);
}
