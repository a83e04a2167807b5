use super::*;

const OURS: &str = "aaaaaaaaaaaaaaaa";
const THEIRS: &str = "bbbbbbbbbbbbbbbb";

fn link() -> Scope {
    (Source::Mdns, String::new())
}

fn known(fabric: Option<&str>) -> Known {
    Known::new("me".into(), fabric.map(Into::into))
}

fn node(name: &str, fabric: Option<&str>) -> Found {
    Found {
        source: Source::Mdns,
        name: name.into(),
        node: Some(name.into()),
        fabric: fabric.map(Into::into),
        addresses: vec!["10.0.0.1:7".parse().expect("an address")],
    }
}

fn lost_names(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Lost(lost) => Some(lost.name.as_str()),
            Event::Found(_) => None,
        })
        .collect()
}

#[test]
fn an_instance_is_told_about_when_it_changes_and_only_then() {
    let mut known = known(Some(OURS));
    let mut found = node("a", Some(OURS));
    assert_eq!(known.see(&link(), found.clone()), [Event::Found(found.clone())]);
    assert_eq!(known.see(&link(), found.clone()), []);
    found.addresses.push("10.0.0.2:7".parse().expect("an address"));
    assert_eq!(known.see(&link(), found.clone()), [Event::Found(found)]);
    assert!(matches!(known.gone(&link(), "a"), Some(Event::Lost(_))));
    assert_eq!(known.gone(&link(), "a"), None);
}

#[test]
fn who_is_not_heard_again_is_forgotten() {
    let mut known = known(Some(OURS));
    for name in ["a", "b", "c"] {
        known.see(&link(), node(name, Some(OURS)));
    }
    let elsewhere = (Source::Mdns, "elsewhere".to_owned());
    known.see(&elsewhere, node("d", Some(OURS)));
    let mark = known.mark();
    assert_eq!(known.see(&link(), node("b", Some(OURS))), []);
    assert_eq!(lost_names(&known.forget_unheard(&link(), mark)), ["a", "c"]);
    assert_eq!(known.forget_unheard(&link(), mark), []);
    assert_eq!(known.gone(&link(), "a"), None);
    assert!(known.gone(&link(), "b").is_some());
}

#[test]
fn neither_this_node_nor_other_fabrics_are_told_about() {
    let mut known = known(Some(OURS));
    assert_eq!(known.see(&link(), node("me", Some(OURS))), []);
    assert_eq!(known.see(&link(), node("b", Some(THEIRS))), []);
    assert_eq!(known.gone(&link(), "me"), None);
    assert_eq!(known.gone(&link(), "b"), None);
}

#[test]
fn a_node_that_changes_its_fabric_comes_and_goes() {
    let mut known = known(Some(OURS));
    assert_eq!(known.see(&link(), node("a", None)).len(), 1);
    assert_eq!(lost_names(&known.see(&link(), node("a", Some(THEIRS)))), ["a"]);
    assert_eq!(known.see(&link(), node("a", Some(THEIRS))), []);
    assert_eq!(known.see(&link(), node("a", Some(OURS))).len(), 1);
}

#[test]
fn joining_a_fabric_sorts_the_others() {
    let mut known = known(None);
    for found in [node("a", Some(OURS)), node("b", Some(THEIRS)), node("c", None)] {
        assert_eq!(known.see(&link(), found.clone()), [Event::Found(found)]);
    }
    assert_eq!(lost_names(&known.set_fabric(Some(OURS.into()))), ["b"]);
    assert_eq!(known.set_fabric(Some(OURS.into())), []);
    assert_eq!(known.set_fabric(None), [Event::Found(node("b", Some(THEIRS)))]);
}

#[test]
fn what_a_domain_does_not_list_any_more_is_gone() {
    let mut known = known(Some(OURS));
    let domain = (Source::Dns, "example.org".to_owned());
    known.see(&link(), node("a", Some(OURS)));
    assert_eq!(known.replace(&domain, vec![node("a", None), node("b", None)]).len(), 2);
    let events = known.replace(&domain, vec![node("b", None), node("c", None)]);
    assert_eq!(lost_names(&events), ["a"]);
    assert_eq!(events.last(), Some(&Event::Found(node("c", None))));
    assert_eq!(lost_names(&known.replace(&domain, Vec::new())), ["b", "c"]);
    assert!(known.gone(&link(), "a").is_some(), "the link saw it for itself");
}

#[test]
fn strangers_make_room_and_our_own_do_not() {
    let mut known = known(Some(OURS));
    known.instances_max = 2;
    known.see(&link(), node("a", Some(OURS)));
    known.see(&link(), node("x", Some(THEIRS)));
    known.see(&link(), node("y", None));
    assert_eq!(known.count, 2);
    let events = known.see(&link(), node("b", Some(OURS)));
    assert_eq!(lost_names(&events), ["y"]);
    assert_eq!(known.see(&link(), node("c", Some(OURS))), []);
    assert_eq!(known.see(&link(), node("z", None)), []);
    assert_eq!(known.count, 2);
    for flood in 0..1000 {
        known.see(&link(), node(&flood.to_string(), Some(THEIRS)));
    }
    assert_eq!(known.count, 2);
    assert!(known.gone(&link(), "a").is_some() && known.gone(&link(), "b").is_some());
    assert_eq!(known.count, 0);
}
