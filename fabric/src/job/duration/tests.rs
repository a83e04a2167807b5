use proptest::prelude::*;

use super::*;

#[test]
fn durations_are_read_as_written() {
    for (text, millis) in [
        ("0s", 0),
        ("500ms", 500),
        ("2s", 2_000),
        ("1m30s", 90_000),
        (" 1h ", 3_600_000),
        ("7d", 604_800_000),
        ("90s", 90_000),
    ] {
        assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "1 s",
        "-1s",
        "1.5s",
        "1S",
        "1s2",
        "11y",
        "9999999999999999999999s",
        "18446744073709551615ms1ms",
        "3661d",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn a_duration_reads_back(millis in 0u64..300_000_000_000) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(parse(&display(duration)), Ok(duration));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9dhms ]{0,24}|\\PC{0,12}") {
        let _ = parse(&text);
    }
}
