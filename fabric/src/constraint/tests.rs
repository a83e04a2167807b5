use proptest::prelude::*;
use std::collections::BTreeMap;

use super::*;
use crate::topology::{Core, NumaNode, Topology};

const ID: NodeId = {
    let mut key = [0; 32];
    (key[0], key[1], key[2], key[3]) = (0x82, 0xbf, 0xfb, 0x17);
    NodeId(key)
};

fn node() -> NodeInfo {
    NodeInfo {
        name: "rack1".into(),
        labels: BTreeMap::from([("rack".into(), "r1".into()), ("gen".into(), "10".into())]),
        topology: Topology {
            arch: "x86_64".into(),
            kernel: "6.10.2-amd64".into(),
            os: "debian 12".into(),
            cores: vec![Core::default(); 4],
            numa: vec![NumaNode::default(); 2],
            memory: 4 << 30,
            ..Topology::default()
        },
        version: "0.1.0".into(),
        executor: "systemd".into(),
        ..NodeInfo::default()
    }
}

#[test]
fn conditions_hold_or_do_not() {
    for (text, holds) in [
        ("arch == \"x86_64\"", true),
        ("arch == 'x86_64'", true),
        ("arch==x86_64", true),
        ("arch != x86_64", false),
        ("name == rack1", true),
        ("name == rack1-82bffb17", true),
        ("name == rack1-82bffb18", false),
        ("name == rack2-82bffb17", false),
        ("name != rack1", false),
        ("name != rack1-82bffb17", false),
        ("name != rack1-82bffb18", true),
        ("name == 82bffb17", false),
        ("name < rack2", true),
        ("os == \"debian 12\"", true),
        ("executor == systemd", true),
        ("kernel >= 6.9", true),
        ("kernel > 6.10.2", true),
        ("kernel < 6.9", false),
        ("kernel < 7", true),
        ("version >= 0.1", true),
        ("cores == 4", true),
        ("cores > 4", false),
        ("cores <= 4", true),
        ("numa >= 2", true),
        ("memory >= 4GiB", true),
        ("memory > \"4GiB\"", false),
        ("labels.rack == r1", true),
        ("labels.rack != r1", false),
        ("labels.gen > 9", true),
        ("labels.none == x", false),
        ("labels.none != x", true),
        ("labels.none < x", false),
    ] {
        let constraint: Constraint = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(constraint.holds(ID, &node()), holds, "{text}");
    }
}

#[test]
fn what_is_no_condition_is_refused_with_advice() {
    for (text, message) in [
        ("", "\"\" compares nothing: write ATTRIBUTE == \"VALUE\" (or != < <= > >=)"),
        (
            "arch = x",
            "\"arch = x\" compares nothing: write ATTRIBUTE == \"VALUE\" (or != < <= > >=)",
        ),
        ("arhc == x", "a node has no attribute \"arhc\": did you mean \"arch\"?"),
        (
            "disk > 5",
            "a node has no attribute \"disk\": use name, arch, kernel, os, version, executor, cores, memory, numa, labels.NAME or devices.CLASS",
        ),
        (
            "labels. == x",
            "\"\" is not the name of a label: use letters, digits, '-', '_', '.' and '/'",
        ),
        (
            "labels.a b == x",
            "\"a b\" is not the name of a label: use letters, digits, '-', '_', '.' and '/'",
        ),
        (
            "devices.GPU >= 1",
            "\"GPU\" is not a class of devices: use lower-case letters, digits and '-', as in devices.gpu",
        ),
        ("devices.gpu >= some", "devices.gpu is a number, \"some\" is not"),
        ("cores >= many", "cores is a number, \"many\" is not"),
    ] {
        assert_eq!(text.parse::<Constraint>().unwrap_err().to_string(), message);
    }
}

#[test]
fn a_value_that_could_be_read_in_two_ways_is_refused() {
    for text in [
        "arch == \"a\" && os == \"b\"",
        "arch == a && os == b",
        "os == debian 12",
        "arch == \"a",
        "arch == \"a'",
        "arch == 'a\"b'",
        "arch ==",
        "arch === a",
    ] {
        let error = text.parse::<Constraint>().expect_err(text);
        assert!(matches!(error, ConstraintError::NotAValue(_)), "{text}: {error}");
    }
}

#[test]
fn devices_are_counted_by_class() {
    let mut node = node();
    let device = |number: u32, class: &str| crate::topology::Device {
        path: format!("/dev/d{number}"),
        class: class.into(),
        ..Default::default()
    };
    node.topology.devices = vec![device(0, "gpu"), device(1, "tty"), device(2, "gpu")];
    for (text, holds) in [
        ("devices.gpu >= 2", true),
        ("devices.gpu > 2", false),
        ("devices.tty == 1", true),
        ("devices.video == 0", true),
        ("devices.video != 0", false),
    ] {
        let constraint: Constraint = text.parse().unwrap();
        assert_eq!(constraint.holds(ID, &node), holds, "{text}");
        assert_eq!(constraint.to_string().parse(), Ok(constraint), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_condition_that_reads_back_or_is_refused(text in "(arch|labels.a|cores|memory|\\PC{0,4}) ?(==|!=|<|<=|>=|>|=) ?[\"']?(\\PC{0,8}|[0-9]{1,3}|[0-9]{1,3}GiB)[\"']?") {
        if let Ok(constraint) = text.parse::<Constraint>() {
            let again: Constraint = constraint.to_string().parse().unwrap();
            prop_assert_eq!(&again, &constraint);
            prop_assert_eq!(again.holds(ID, &node()), constraint.holds(ID, &node()));
        }
    }

    #[test]
    fn versions_are_totally_ordered(a in "[0-9a.]{0,6}", b in "[0-9a.]{0,6}", c in "[0-9a.]{0,6}") {
        prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
        prop_assert_eq!(compare_versions(&a, &a), Ordering::Equal);
        if compare_versions(&a, &b).is_le() && compare_versions(&b, &c).is_le() {
            prop_assert!(compare_versions(&a, &c).is_le(), "{a} {b} {c}");
        }
    }
}
