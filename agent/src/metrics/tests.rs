use super::*;

#[test]
fn a_family_is_written_as_the_format_wants_it() {
    let mut text = Exposition::default();
    text.single(Kind::Gauge, "weft_a", "What a is.", 3);
    text.family(
        Kind::Counter,
        "weft_b_total",
        "Two\nlines.",
        &[(&[("why", "say \"no\"\\"), ("to", "x")], 1), (&[("why", "other")], 2)],
    );
    assert_eq!(
        text.finish(),
        "# HELP weft_a What a is.\n# TYPE weft_a gauge\nweft_a 3\n\
         # HELP weft_b_total Two lines.\n# TYPE weft_b_total counter\n\
         weft_b_total{why=\"say \\\"no\\\"\\\\\",to=\"x\"} 1\nweft_b_total{why=\"other\"} 2\n"
    );
}
