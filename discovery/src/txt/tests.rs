use super::*;

const NODE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const FABRIC: &str = "0123456789abcdef";

fn read(strings: &[&str]) -> Hint {
    Hint::read_strings(strings.iter().map(|string| string.as_bytes()))
}

#[test]
fn what_is_written_is_read() {
    for fabric in [None, Some(FABRIC.to_owned())] {
        let hint = Hint { node: Some(NODE.to_owned()), fabric };
        let strings: Vec<String> =
            hint.properties().iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(Hint::read_strings(strings.iter().map(|string| string.as_bytes())), hint);
    }
}

#[test]
fn keys_and_digits_may_be_upper_case_and_the_first_counts() {
    let node = format!("NODE={}", NODE.to_uppercase());
    let hint = read(&["V=1", &node, "node=no", "fabric=0123456789ABCDEF", "Fabric=no", "more"]);
    assert_eq!(hint.node.as_deref(), Some(NODE));
    assert_eq!(hint.fabric.as_deref(), Some(FABRIC));
}

#[test]
fn what_makes_no_sense_says_nothing() {
    let node = format!("node={NODE}");
    let short = format!("node={}", &NODE[1..]);
    let not_hex = format!("node={}g", &NODE[1..]);
    let long = format!("x={}", "y".repeat(limits::TXT_BYTES_MAX));
    for strings in [
        vec![],
        vec![""],
        vec!["="],
        vec![node.as_str()],
        vec!["v=2", &node],
        vec!["v", &node],
        vec!["v=1"],
        vec!["v=1", &short],
        vec!["v=1", &not_hex],
        vec!["v=1", &node, "fabric="],
        vec!["v=1", &node, "fabric=0123"],
        vec!["v=1", &node, &long],
    ] {
        assert_eq!(read(&strings), Hint::default(), "{strings:?}");
    }
    let many: Vec<&str> = ["v=1", &node].into_iter().chain([""; limits::TXT_STRINGS_MAX]).collect();
    assert_eq!(read(&many), Hint::default());
    assert_eq!(Hint::read_strings([&[0xff, b'=', 0xfe][..]].into_iter()), Hint::default());
}
