use super::*;

const NOW_MS: i64 = 1_800_000_000_000;

type Read = fn(&Question<'_>) -> Result<Query, Answer>;

fn came<'a>(label: &'a str, query: &'a str, body: &'a [u8]) -> Came<'a> {
    Came { name: Some(label), query, body, now_ms: NOW_MS, ..Came::default() }
}

fn read(what: Read, query: &str, body: &str) -> Result<Asked, String> {
    asked(what, &came("job", query, body.as_bytes())).map_err(|answer| {
        assert_eq!(answer.status(), 400);
        answer.reason().expect("an error has a reason").to_owned()
    })
}

#[test]
fn parameters_come_from_the_path_and_from_a_form() {
    let grid = Grid::instant(1_000_500).unwrap();
    let wanted = Asked {
        query: Query::Evaluate { expression: "sum(up)".into(), grid, is_range: false },
        scope: Scope::Node,
        timeout: Duration::from_millis(1500),
    };
    let all = "query=sum(up)&time=1000.5&scope=node&timeout=1.5";
    assert_eq!(read(at_one_time, all, ""), Ok(wanted.clone()));
    assert_eq!(read(at_one_time, "", all), Ok(wanted.clone()));
    assert_eq!(
        read(
            at_one_time,
            "scope=node",
            "query=sum%28up%29&time=1970-01-01T00:16:40.5Z&timeout=1500ms"
        ),
        Ok(wanted)
    );
    // What it does not know is of no interest; what is not said has a default.
    let asked = read(at_one_time, "query=1&dedup=true&_=17", "").unwrap();
    let Query::Evaluate { grid, .. } = asked.query else { panic!("{asked:?}") };
    assert_eq!((grid.start_ms(), asked.scope, asked.timeout), (NOW_MS, Scope::Fabric, TIMEOUT_MAX));
}

#[test]
fn a_range_has_a_beginning_an_end_and_a_step() {
    let asked = read(at_many_times, "query=up&start=0&end=60&step=15s", "").unwrap();
    let grid = Grid::range(0, 60_000, 15_000).unwrap();
    let wanted = Query::Evaluate { expression: "up".into(), grid, is_range: true };
    assert_eq!(asked.query, wanted);
}

#[test]
fn series_are_found_by_any_of_several_selectors() {
    let asked = read(series, "match[]=up&match%5B%5D=%7Bjob%3D%22a%22%7D&limit=2", "");
    let Query::Find { selectors, from_ms, until_ms, wanted, limit } = asked.unwrap().query else {
        panic!("not that")
    };
    assert_eq!(selectors, ["up", "{job=\"a\"}"]);
    assert_eq!((from_ms, until_ms), (NOW_MS - PAST_MS, NOW_MS));
    assert_eq!((wanted, limit), (Wanted::Series, 2));
    let asked = read(label_values, "", "").unwrap();
    assert!(
        matches!(asked.query, Query::Find { wanted: Wanted::Values(label), .. } if label == "job")
    );
}

/// What makes no sense, and what is said about it.
#[test]
fn nonsense_is_refused_with_what_to_write_instead() {
    let rows: [(Read, &str, &str); 13] = [
        (at_one_time, "", "query is missing"),
        (at_one_time, "query=", "query is missing"),
        (at_one_time, "query=up&time=yesterday", "write seconds since 1970"),
        (at_one_time, "query=up&time=1e300", "write seconds since 1970"),
        (at_one_time, "query=up&timeout=-1", "write seconds above 0"),
        (at_one_time, "query=up&timeout=5s]+or+a[5m", "write seconds above 0"),
        (at_one_time, "query=up&scope=all", "write fabric or node"),
        (at_one_time, "query=%zz", "not percent-encoded"),
        (at_many_times, "query=up&start=0&end=60&step=0", "write seconds above 0"),
        (at_many_times, "query=up&start=60&end=0&step=1", "ends before it starts"),
        (at_many_times, "query=up&start=0&end=1e6&step=1", "at most 11000 are evaluated"),
        (series, "", "no match[] parameter provided"),
        (series, "match[]=up&limit=many", "write a number"),
    ];
    for (what, query, wanted) in rows {
        let reason = read(what, query, "").unwrap_err();
        assert!(reason.contains(wanted), "{query}: {reason}");
    }
    let label = asked(label_values, &came("no-label", "", b""));
    assert!(label.unwrap_err().reason().unwrap().contains("is not a label's name"));
    assert!(asked(at_one_time, &came("", "", &[0xff])).is_err());
}

#[test]
fn dates_are_those_of_rfc_3339() {
    let rows = [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2026-11-26T12:30:00Z", Some(1_795_696_200_000)),
        ("2026-11-26T13:30:00.25+01:00", Some(1_795_696_200_250)),
        ("2024-02-29t23:59:59-00:30", Some(1_709_252_999_000)),
        ("1969-12-31T23:59:59.5Z", Some(-500)),
        ("2026-13-01T00:00:00Z", None),
        ("2026-00-01T00:00:00Z", None),
        ("2026-01-01T24:00:00Z", None),
        ("2026-01-01", None),
        ("2026-01-01T00:00:00", None),
        ("2026-01-01T00:00:00.1e3Z", None),
    ];
    for (text, wanted) in rows {
        assert_eq!(date_ms(text), wanted, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_form_is_too_strange(text in "\\PC{0,80}", time in "[0-9TtZ:+. -]{0,30}") {
        for what in [at_one_time as Read, at_many_times, series, label_values] {
            let _ = asked(what, &came(&text, &text, text.as_bytes()));
        }
        let _ = date_ms(&time);
    }
}
