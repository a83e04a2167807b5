use proptest::prelude::*;

use super::*;
use crate::limits::EXPRESSION_BYTES_MAX;

const EXPRESSIONS: &str = include_str!("../../tests/expressions.txt");

/// Those of the conformance test that are valid.
fn expressions() -> impl Iterator<Item = &'static str> {
    let lines =
        EXPRESSIONS.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    lines.filter_map(|line| match line.split_once(": ") {
        Some(("error", _)) => None,
        Some(("instant" | "ordered" | "live", expression)) => Some(expression),
        _ => Some(line),
    })
}

#[test]
fn what_is_printed_parses_to_the_same() {
    assert!(expressions().count() > 200);
    for text in expressions() {
        let expr = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let printed = expr.to_string();
        let again = parse(&printed).unwrap_or_else(|error| panic!("{text}: {printed}: {error}"));
        // A tree with a NaN is not equal to itself.
        assert!(expr == again || text.contains("NaN"), "{text} became {printed}");
        assert_eq!(again.to_string(), printed);
    }
}

#[test]
fn prometheus_is_asked_about_every_function_and_operator() {
    let all: Vec<String> = expressions().map(str::to_ascii_lowercase).collect();
    let asked = |text: &str| {
        assert!(all.iter().any(|line| line.contains(text)), "{text} is in no expression")
    };
    // The one beside is 2.42.
    let is_newer = |name| ["double_exponential_smoothing", "mad_over_time"].contains(&name);
    let functions = Function::all().iter().filter(|function| !is_newer(function.name));
    functions.for_each(|function| asked(&format!("{}(", function.name)));
    for aggregation in Aggregation::ALL {
        asked(&format!("{}(", aggregation.name()));
        let grouped = ["by", "without"].map(|word| format!("{} {word} (", aggregation.name()));
        let named = |line: &&String| {
            grouped.iter().any(|text| line.contains(text)) || line.contains(") by (")
        };
        assert!(all.iter().any(|line| named(&line)), "{} has no grouping", aggregation.name());
    }
    for word in [
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        " ^ ",
        " atan2 ",
        " == ",
        " != ",
        " < ",
        " > ",
        " <= ",
        " >= ",
        " and ",
        " or ",
        " unless ",
        " bool ",
        " on (",
        " ignoring (",
        " group_left",
        " group_right",
        " offset ",
        " offset -",
        " @ ",
        "start()",
        "end()",
        "=~",
        "!~",
        "!=",
        "m:]",
        "m:1m]",
    ] {
        asked(word);
    }
}

#[test]
fn precedence_is_prometheus() {
    for (text, same) in [
        ("-2 ^ 2", "-(2 ^ 2)"),
        ("2 ^ -1 * 3", "(2 ^ (-1)) * 3"),
        ("2 ^ 3 ^ 2", "2 ^ (3 ^ 2)"),
        ("1 - 2 - 3", "(1 - 2) - 3"),
        ("a or b and c", "a or (b and c)"),
        ("a unless b or c", "(a unless b) or c"),
        ("a + b * c == d", "(a + (b * c)) == d"),
        ("-a * b", "(-a) * b"),
        ("a atan2 b * c", "(a atan2 b) * c"),
        ("-a[5m:]", "-(a)[5m:]"),
    ] {
        let (left, right) =
            (parse(text).map(|expr| expr.to_string()), parse(same).map(|expr| expr.to_string()));
        assert_eq!(left, right, "{text}");
    }
}

#[test]
fn errors_say_where_and_why() {
    for (text, line, column, reason) in [
        ("", 1, 1, "no expression found"),
        ("sum(rate(x[5m])", 1, 4, "unclosed left parenthesis"),
        (
            "rate(x)",
            1,
            6,
            "expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("a +", 1, 4, "unexpected end of input"),
        ("a +\n  * b", 2, 3, "unexpected \"*\""),
        ("foo{a=~\"(\"}", 1, 8, "not valid"),
        ("foo{a=1}", 1, 7, "expected a string"),
        ("x[5q]", 1, 3, "bad number or duration"),
        ("1 > 2", 1, 3, "BOOL"),
        ("nothing(x)", 1, 1, "unknown function"),
        ("sum by (a-b) (x)", 1, 10, "expected \",\""),
        ("{a=\"\"}", 1, 1, "at least one non-empty matcher"),
        ("ä", 1, 1, "unexpected character 'ä'"),
        ("\"ää\" + x", 1, 1, "binary expression"),
        ("x offset 5", 1, 10, "expected a duration"),
        ("x @ 1e300", 1, 5, "out of bounds"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.reason.contains(reason), "{text}: {error}");
    }
}

#[test]
fn depth_length_and_durations_are_bounded() {
    for text in [
        "(".repeat(5000),
        "-".repeat(5000),
        format!("{}1", "1 + ".repeat(3000)),
        format!("{}x{}", "abs(".repeat(2000), ")".repeat(2000)),
        format!("x{}", "[5m:1m]".repeat(1000)),
        "x".repeat(EXPRESSION_BYTES_MAX + 1),
        "x[99999999999999999999y]".into(),
        "x offset 9223372036854775807ms".into(),
    ] {
        assert!(parse(&text).is_err(), "{}", &text[..20]);
    }
    parse(&format!("{}1", "1 + ".repeat(90))).expect("a chain of ninety");
}

#[test]
fn functions_are_in_order_and_each_has_arguments_that_fit_its_rules() {
    let names: Vec<&str> = Function::all().iter().map(|function| function.name).collect();
    assert!(names.is_sorted());
    assert!(Function::all().iter().all(|function| function.optional <= function.arguments.len()));
}

proptest! {
    /// Whatever comes is an expression or an error, and an expression survives being printed.
    #[test]
    fn no_text_is_too_odd(parts in prop::collection::vec(prop::sample::select(vec![
        "a", "rate", "sum", "by", "(", ")", "[5m]", "[5m:1m]", "{", "}", "b=\"c\"", ",", "+", "-", "^", "==",
        "bool", "on", "(x)", "group_left", "offset", "5m", "@", "start()", "1", "0x", "1e", "\"", "'", "\\", "and",
        "topk", "inf", ":", "#", "\n", "é", " ",
    ]), 0..20)) {
        let text = parts.join(" ");
        if let Ok(expr) = parse(&text) {
            let printed = expr.to_string();
            prop_assert_eq!(parse(&printed).map(|again| again.to_string()), Ok(printed));
        }
    }

    #[test]
    fn random_bytes_never_panic(text in "\\PC*") {
        let _ = parse(&text);
    }
}
