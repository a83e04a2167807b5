use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

fn document() -> Value {
    serde_json::from_str(crate::http::OPENAPI).expect("the document is JSON")
}

#[test]
fn the_document_and_the_table_agree() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let mut described = BTreeSet::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            let query: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            described.insert((method.to_uppercase(), path.clone(), query));
        }
    }
    let table: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| {
            let query = route.query.iter().copied().collect::<BTreeSet<_>>();
            (route.method.to_owned(), route.path.to_owned(), query)
        })
        .collect();
    assert_eq!(described, table);
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
    let document = document();
    let mut references = 0;
    walk(&document, &document, &mut references);
    assert!(references > 20);
}

/// Method, path, and what becomes of it.
#[test]
fn paths_lead_where_the_table_says() {
    let found = |method, path| match find(method, path) {
        Found::Route(route, name) => format!("{:?} {}", route.endpoint, name.unwrap_or_default()),
        Found::OtherMethods(methods) => format!("only {}", methods.join(" ")),
        Found::Nothing(near) => format!("near {}", near.unwrap_or("nothing")),
    };
    let rows = [
        ("GET", "/v1/status", "Status "),
        ("GET", "/v1/nodes/a", "Node a"),
        ("GET", "/v1/nodes/a%2fb", "Node a/b"),
        ("GET", "/v1/nodes/", "near /v1/nodes"),
        ("DELETE", "/v1/jobs/web", "StopJob web"),
        ("PUT", "/v1/jobs/web", "Submit web"),
        ("POST", "/v1/jobs/web/scale", "Scale web"),
        ("PATCH", "/v1/jobs/web", "only GET PUT DELETE"),
        ("HEAD", "/v1/status", "only GET"),
        ("GET", "/v1/stauts", "near /v1/status"),
        ("GET", "/v1/jobs/%zz", "near /v1/jobs"),
        ("GET", "/v1/jobs/%ff", "near /v1/jobs"),
    ];
    for (method, path, wanted) in rows {
        let got = found(method, path);
        // The nearest path is a hint: that there is one is what counts.
        let same = if wanted.starts_with("near") { got.starts_with("near") } else { got == wanted };
        assert!(same, "{method} {path}: {got} instead of {wanted}");
    }
    assert_eq!(found("GET", "/v1/stauts"), "near /v1/status");
}

#[test]
fn a_query_is_read_or_refused() {
    let known = &["tail", "follow"];
    assert_eq!(query("", known).unwrap(), []);
    assert_eq!(
        query("tail=5&follow", known).unwrap(),
        [("tail".into(), "5".into()), ("follow".into(), String::new())]
    );
    assert_eq!(query("tail=%35+6", known).unwrap(), [("tail".into(), "5 6".into())]);
    let refused = [
        ("tial=5", "did you mean \"tail\"?"),
        ("tail=1&tail=2", "twice"),
        ("tail=%", "not percent-encoded"),
        ("tail=%ff", "not percent-encoded"),
    ];
    for (text, wanted) in refused {
        let message = query(text, known).unwrap_err();
        assert!(message.contains(wanted), "{text}: {message}");
    }
    assert!(query("a=1", &[]).unwrap_err().contains("has none"));
}

proptest! {
    #[test]
    fn no_path_and_no_query_is_too_strange(method in "[A-Z]{0,8}", path in "\\PC{0,60}", text in "\\PC{0,60}") {
        let _ = find(&method, &path);
        let _ = find("GET", &format!("/v1/nodes/{path}"));
        let _ = query(&text, &["tail"]);
    }

    #[test]
    fn what_was_encoded_is_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let encoded: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(decode(&encoded), String::from_utf8(bytes).ok());
    }
}
