use proptest::prelude::*;

use super::*;

#[test]
fn a_job_name_is_a_dns_label() {
    for name in ["a", "web", "web-2", "0", "a--b", &"x".repeat(63)] {
        assert_eq!(JobName::new(name).unwrap().as_str(), name);
    }
    for name in ["", "-a", "a-", "Web", "a_b", "a.b", "a b", "ä", &"x".repeat(64)] {
        assert_eq!(JobName::new(name), Err(IdError::NotAJobName(name.into())));
    }
}

#[test]
fn a_namespace_is_a_dns_label() {
    assert_eq!(Namespace::default(), Namespace::new("default").unwrap());
    for name in ["a", "team-7", &"x".repeat(63)] {
        assert_eq!(name.parse::<Namespace>().unwrap().as_str(), name);
    }
    for name in ["", "-a", "Team", "a b", &"x".repeat(64)] {
        assert_eq!(Namespace::new(name), Err(IdError::NotANamespace(name.into())));
    }
    assert!(serde_json::from_str::<Namespace>("\"../etc\"").is_err());
}

#[test]
fn a_node_id_is_64_hex_digits() {
    let id = NodeId([0xab; 32]);
    assert_eq!(id.to_string(), "ab".repeat(32));
    assert_eq!(id.short(), "abababab");
    assert_eq!("AB".repeat(32).parse(), Ok(id));
    for text in [
        "",
        "ab",
        &"ab".repeat(33),
        &"xy".repeat(32),
        &"é".repeat(32),
        &format!("+1{}", "0".repeat(62)),
    ] {
        assert_eq!(text.parse::<NodeId>(), Err(IdError::NotANodeId), "{text}");
    }
}

#[test]
fn names_from_outside_are_checked_on_the_way_in() {
    assert!(serde_json::from_str::<JobName>("\"../etc\"").is_err());
    assert!(serde_json::from_str::<NodeId>("\"12\"").is_err());
    let name = postcard::to_stdvec("No").unwrap();
    assert!(postcard::from_bytes::<JobName>(&name).is_err());
}

#[test]
fn units_that_are_not_ours_are_not_read_as_ours() {
    for unit in [
        "ssh.service",
        "weft-.service",
        "weft-web.service",
        "weft-web-0.service",
        "weft-web-0-1.service",
        "weft-web-0-x-0123abcd.service",
        "weft-web-0-1-0123abc.service",
        "weft-web-0-1-0123abcD.service",
        "weft-web-0-1-+123abcd.service",
        "weft-Web-0-1-0123abcd.service",
        "weft-web-0-1-0123abcd.scope",
        "weft-0-1-0123abcd.service",
    ] {
        assert_eq!(AllocId::from_unit(unit), None, "{unit}");
    }
}

proptest! {
    #[test]
    fn a_unit_name_reads_back(name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", index: u32, epoch: u64, birth: u32) {
        let id = AllocId::new(JobName::new(&name).unwrap(), index, epoch);
        let id = AllocId { birth: Birth(birth), ..id };
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(serde_json::from_str::<AllocId>(&json).unwrap(), id.clone());
        let binary = postcard::to_stdvec(&id).unwrap();
        prop_assert_eq!(postcard::from_bytes::<AllocId>(&binary).unwrap(), id.clone());
        prop_assert_eq!(AllocId::from_unit(&id.unit()), Some(id));
    }

    #[test]
    fn a_node_id_reads_back(bytes: [u8; 32]) {
        let id = NodeId(bytes);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(serde_json::from_str::<NodeId>(&json).unwrap(), id);
        let binary = postcard::to_stdvec(&id).unwrap();
        prop_assert_eq!(binary.len(), 32);
        prop_assert_eq!(postcard::from_bytes::<NodeId>(&binary).unwrap(), id);
    }
}
