use super::*;

#[test]
fn sparklines_reach_from_low_to_high_and_show_gaps() {
    let values = [Some(0.0), Some(5.0), None, Some(10.0), Some(f64::NAN), Some(99.0)];
    assert_eq!(sparkline(&values, 0.0, 10.0), "▁▅ █ █");
    assert_eq!(sparkline(&[Some(3.0), Some(3.0)], 3.0, 3.0), "▁▁");
}

#[test]
fn bars_are_as_long_as_their_part_and_something_is_seen() {
    assert_eq!(bar(0.0, 10), "");
    assert_eq!(bar(0.5, 4), "██");
    assert_eq!(bar(0.5, 3), "█▌");
    assert_eq!(bar(1e-9, 4), "▏");
    assert_eq!(bar(7.0, 4), "████");
    assert_eq!(bar(f64::NAN, 4), "");
}

#[test]
fn shades_tell_nothing_from_little() {
    assert_eq!([0.0, 1e-9, 0.3, 0.6, 1.0].map(shade), ['·', '░', '▒', '▓', '█']);
}

#[test]
fn squeezing_keeps_peaks() {
    let values: Vec<_> = (0..100).map(|place| Some(if place == 57 { 9.0 } else { 1.0 })).collect();
    let squeezed = squeeze(&values, 10);
    assert_eq!(squeezed.len(), 10);
    assert_eq!(squeezed[5], Some(9.0));
    assert_eq!(squeeze(&values[..3], 10), values[..3]);
    assert_eq!(squeeze(&[None, None, Some(1.0)], 2), [None, Some(1.0)]);
}

#[test]
fn numbers_have_four_digits_and_times_their_unit() {
    for (value, text) in [
        (0.0, "0"),
        (0.123_456, "0.1235"),
        (1.5, "1.5"),
        (1532.4, "1532"),
        (123_456_789.0, "123456789"),
        (1e18, "1.00e18"),
        (-0.000_01, "-1.00e-5"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(number(value), text);
    }
    for (value, text) in [
        (0.0, "0"),
        (64e-9, "64ns"),
        (1.25e-6, "1.2us"),
        (340e-6, "340us"),
        (0.999_7e-3, "1ms"),
        (0.0012, "1.2ms"),
        (15.0, "15s"),
        (f64::INFINITY, "+Inf"),
    ] {
        assert_eq!(seconds(value), text, "{value}");
    }
    assert_eq!([0.0, 0.042, 0.38, 2.0].map(percent), ["0 %", "4.2 %", "38 %", "200 %"]);
}
