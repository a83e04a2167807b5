use super::*;
use crate::digest::Digest;
use crate::manifest::ACCEPTED;
use std::collections::BTreeMap;

/// An index with a manifest for each, `-` for none that is said.
fn index(platforms: &[&str]) -> Index {
    let manifests = platforms.iter().enumerate().map(|(at, text)| {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let platform = Platform { os: next(), architecture: next(), variant: next() };
        Descriptor {
            media_type: ACCEPTED[2].to_owned(),
            digest: Digest::of(&[at as u8]),
            size: 1,
            platform: (*text != "-").then(|| platform.normal()),
            annotations: BTreeMap::new(),
        }
    });
    Index { manifests: manifests.collect() }
}

#[test]
fn the_best_image_that_a_machine_runs_is_chosen() {
    let arms = &["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/amd64"];
    let levels = &["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4"];
    let usual = &["linux/amd64", "linux/arm64", "linux/arm", "linux/386", "windows/amd64"];
    // Machine, what there is, and the number of what it takes.
    #[rustfmt::skip]
    let table: &[(&str, &str, &[&str], Option<usize>)] = &[
        ("armv7l", "", arms, Some(2)),
        ("armv6l", "", arms, Some(1)),
        ("armv5tel", "", arms, Some(0)),
        ("arm", "v6", arms, Some(1)),
        ("arm", "6", arms, Some(1)),
        ("arm", "", arms, Some(2)),
        ("aarch64", "", arms, Some(3)),
        ("x86_64", "", arms, Some(4)),
        ("riscv64", "", arms, None),
        // What says nothing of its variant is v7, which older ones do not run.
        ("armv6l", "", usual, None),
        ("armv7l", "", usual, Some(2)),
        ("armv6l", "", &["linux/arm/v7"], None),
        ("armv7l", "", &["linux/arm/v6"], Some(0)),
        ("armv7l", "", &["linux/arm/v8"], None),
        ("aarch64", "", &["linux/arm/v7"], None),
        ("aarch64", "", &["linux/arm64/v9", "linux/arm64"], Some(1)),
        ("aarch64", "v9", &["linux/arm64/v9", "linux/arm64"], Some(0)),
        ("aarch64", "v8.2", &["linux/arm64", "linux/arm64/v8.1", "linux/arm64/v8.5"], Some(1)),
        ("x86_64", "", levels, Some(0)),
        ("x86_64", "v3", levels, Some(2)),
        ("amd64", "v4", levels, Some(3)),
        ("amd64", "v3", &["linux/amd64/v4"], None),
        ("x86_64", "", &["linux/x86_64"], Some(0)),
        ("x86_64", "", &["linux/aarch64", "linux/x86-64"], Some(1)),
        ("armv7l", "", &["linux/armhf"], Some(0)),
        ("i686", "", usual, Some(3)),
        // The first of equals; nothing of another system.
        ("x86_64", "", &["windows/amd64", "linux/amd64", "linux/amd64"], Some(1)),
        ("x86_64", "", &["windows/amd64"], None),
        // Those that say nothing are taken when there is no choice.
        ("x86_64", "", &["-"], Some(0)),
        ("x86_64", "", &["-", "unknown/unknown"], Some(0)),
        ("x86_64", "", &["-", "-"], None),
        ("x86_64", "", &["-", "linux/amd64"], Some(1)),
        ("x86_64", "", &[], None),
        ("s390x", "", &["linux/s390x"], Some(0)),
        ("ppc64le", "", &["linux/ppc64le/power9"], None),
        ("ppc64le", "power9", &["linux/ppc64le/power9"], Some(0)),
    ];
    for (architecture, variant, offered, wanted) in table {
        let machine = Machine::linux(architecture, variant);
        let index = index(offered);
        let chosen = choose(&index, &machine).ok();
        let at = chosen
            .and_then(|chosen| index.manifests.iter().position(|it| std::ptr::eq(it, chosen)));
        assert_eq!(at, *wanted, "{architecture} {variant} of {offered:?}");
        if let Some(platform) = chosen.and_then(|it| it.platform.as_ref()) {
            assert!(machine.runs(platform));
        }
    }
}

#[test]
fn a_refusal_names_what_there_is() {
    let machine = Machine::linux("aarch64", "");
    let index = index(&["linux/amd64", "linux/arm/v7", "unknown/unknown"]);
    let error = choose(&index, &machine).expect_err("not for it").to_string();
    assert_eq!(error, "it has no image for linux/arm64, only for linux/amd64, linux/arm");
    let none = Index { manifests: Vec::new() };
    let error = choose(&none, &machine).expect_err("empty").to_string();
    assert_eq!(error, "it has no image for linux/arm64");
}
