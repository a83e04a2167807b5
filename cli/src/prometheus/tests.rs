use super::*;

fn data(json: &str) -> Data {
    serde_json::from_str(json).unwrap()
}

#[test]
fn answers_are_read_in_all_their_shapes() {
    let vector = data(
        r#"{"resultType":"vector","result":[{"metric":{"job":"web"},"value":[1.5,"2.5e+3"]}]}"#,
    );
    let Data::Vector(points) = vector else { panic!("{vector:?}") };
    assert_eq!(points[0].metric["job"], "web");
    assert_eq!(points[0].value, Sample { at: 1.5, value: 2500.0 });
    let matrix = data(
        r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"+Inf"],[2,"-Inf"],[3,"NaN"]]}]}"#,
    );
    let Data::Matrix(curves) = matrix else { panic!("{matrix:?}") };
    let values: Vec<f64> = curves[0].values.iter().map(|sample| sample.value).collect();
    assert_eq!(values[..2], [f64::INFINITY, f64::NEG_INFINITY]);
    assert!(values[2].is_nan());
    assert_eq!(
        data(r#"{"resultType":"scalar","result":[1,"7"]}"#),
        Data::Scalar(Sample { at: 1.0, value: 7.0 })
    );
    assert_eq!(
        data(r#"{"resultType":"string","result":[1,"x"]}"#),
        Data::String((1.0, "x".into()))
    );
    for wrong in [
        "{}",
        r#"{"resultType":"vector","result":[{"metric":{},"value":[1,2]}]}"#,
        r#"{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}"#,
        r#"{"resultType":"other","result":[]}"#,
    ] {
        assert!(serde_json::from_str::<Data>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_place_of_a_mistake_is_found_and_marked() {
    for said in ["1:8: parse error: why", "invalid parameter \"query\": 1:8: parse error: why"] {
        assert_eq!(place(said), Some((1, 8, "why")), "{said}");
    }
    for said in ["why", "x: parse error: why", "1: parse error: why", ""] {
        assert_eq!(place(said), None, "{said}");
    }
    assert_eq!(marked("sum(grün", 1, 9).unwrap(), "  sum(grün\n          ^");
    assert_eq!(marked("a\nb +", 2, 4).unwrap(), "  b +\n     ^");
    // A place that the expression does not have.
    assert_eq!(marked("a", 1, 400).unwrap(), "  a\n   ^");
    assert_eq!(marked("a", 2, 1), None);
    assert_eq!(marked("a", 0, 0), None);
}

#[test]
fn what_is_put_into_an_expression_stays_what_it_was() {
    assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
    assert_eq!(any_of(["n1", "rack.2"]), r#""n1|rack\\.2""#);
    assert_eq!(duration(Duration::from_secs(90)), "90000ms");
}

#[test]
fn expressions_and_times_are_escaped_into_a_path() {
    assert_eq!(path("a{b=\"c\"}", When::Now), "/api/v1/query?query=a%7Bb%3D%22c%22%7D");
    let when = When::Range {
        range: Duration::from_secs(60),
        step: Duration::from_millis(1500),
        now_ms: 100_250,
    };
    assert_eq!(path("a", when), "/api/v1/query_range?query=a&start=40.250&end=100.250&step=1.5");
}
