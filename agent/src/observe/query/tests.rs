use super::*;

const NOW_MS: i64 = 1_800_000_000_000;

fn read(kind: Kind, query: &str, body: &str) -> Result<Asked, String> {
    Asked::read(kind, Some("job"), query, body.as_bytes(), NOW_MS).map_err(|answer| {
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
    assert_eq!(read(Kind::Query, all, ""), Ok(wanted.clone()));
    assert_eq!(read(Kind::Query, "", all), Ok(wanted.clone()));
    assert_eq!(
        read(
            Kind::Query,
            "scope=node",
            "query=sum%28up%29&time=1970-01-01T00:16:40.5Z&timeout=1500ms"
        ),
        Ok(wanted)
    );
    // What it does not know is of no interest; what is not said has a default.
    let asked = read(Kind::Query, "query=1&dedup=true&_=17", "").unwrap();
    let Query::Evaluate { grid, .. } = asked.query else { panic!("{asked:?}") };
    assert_eq!((grid.start_ms(), asked.scope, asked.timeout), (NOW_MS, Scope::Fabric, TIMEOUT_MAX));
}

#[test]
fn a_range_has_a_beginning_an_end_and_a_step() {
    let asked = read(Kind::QueryRange, "query=up&start=0&end=60&step=15s", "").unwrap();
    let grid = Grid::range(0, 60_000, 15_000).unwrap();
    let wanted = Query::Evaluate { expression: "up".into(), grid, is_range: true };
    assert_eq!(asked.query, wanted);
}

#[test]
fn series_are_found_by_any_of_several_selectors() {
    let asked = read(Kind::Series, "match[]=up&match%5B%5D=%7Bjob%3D%22a%22%7D&limit=2", "");
    let Query::Find { selectors, from_ms, until_ms, wanted, limit } = asked.unwrap().query else {
        panic!("not that")
    };
    assert_eq!(selectors, ["up", "{job=\"a\"}"]);
    assert_eq!((from_ms, until_ms), (NOW_MS - PAST_MS, NOW_MS));
    assert_eq!((wanted, limit), (Wanted::Series, 2));
    let asked = read(Kind::LabelValues, "", "").unwrap();
    assert!(
        matches!(asked.query, Query::Find { wanted: Wanted::Values(label), .. } if label == "job")
    );
}

/// What makes no sense, and what is said about it.
#[test]
fn nonsense_is_refused_with_what_to_write_instead() {
    let rows = [
        (Kind::Query, "", "query is missing"),
        (Kind::Query, "query=", "query is missing"),
        (Kind::Query, "query=up&time=yesterday", "write seconds since 1970"),
        (Kind::Query, "query=up&time=1e300", "write seconds since 1970"),
        (Kind::Query, "query=up&timeout=-1", "write seconds above 0"),
        (Kind::Query, "query=up&timeout=5s]+or+a[5m", "write seconds above 0"),
        (Kind::Query, "query=up&scope=all", "write fabric or node"),
        (Kind::Query, "query=%zz", "not percent-encoded"),
        (Kind::QueryRange, "query=up&start=0&end=60&step=0", "write seconds above 0"),
        (Kind::QueryRange, "query=up&start=60&end=0&step=1", "ends before it starts"),
        (Kind::QueryRange, "query=up&start=0&end=1e6&step=1", "at most 11000 are evaluated"),
        (Kind::Series, "", "no match[] parameter provided"),
        (Kind::Series, "match[]=up&limit=many", "write a number"),
    ];
    for (kind, query, wanted) in rows {
        let reason = read(kind, query, "").unwrap_err();
        assert!(reason.contains(wanted), "{query}: {reason}");
    }
    let label = Asked::read(Kind::LabelValues, Some("no-label"), "", b"", NOW_MS);
    assert!(label.unwrap_err().reason().unwrap().contains("is not a label's name"));
    assert!(Asked::read(Kind::Query, None, "", &[0xff], NOW_MS).is_err());
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
        for kind in [Kind::Query, Kind::QueryRange, Kind::Series, Kind::LabelValues] {
            let _ = Asked::read(kind, Some(&text), &text, text.as_bytes(), NOW_MS);
        }
        let _ = date_ms(&time);
    }
}
