use super::*;
use proptest::prelude::*;

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn parsed(text: &str) -> Reference {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn problem(text: &str) -> Problem {
    match text.parse::<Reference>() {
        Ok(reference) => panic!("{text} is {reference:?}"),
        Err(error) => error.problem,
    }
}

/// Registry as it is written, repository, tag, whether there is a digest, and the text that it has.
type Row = (&'static str, &'static str, &'static str, Option<&'static str>, bool, &'static str);

#[test]
fn references_are_taken_apart_by_dockers_rules() {
    let digest = |text: &str| text.replace("DIGEST", DIGEST);
    #[rustfmt::skip]
    let table: &[Row] = &[
        ("redis", "", "redis", None, false, "redis"),
        ("redis:7", "", "redis", Some("7"), false, "redis:7"),
        ("library/redis:7.2-alpine", "", "library/redis", Some("7.2-alpine"), false, "library/redis:7.2-alpine"),
        ("owner/app", "", "owner/app", None, false, "owner/app"),
        ("docker.io/redis", "docker.io", "library/redis", None, false, "docker.io/library/redis"),
        ("docker.io/owner/app:1", "docker.io", "owner/app", Some("1"), false, "docker.io/owner/app:1"),
        ("index.docker.io/redis", "docker.io", "library/redis", None, false, "docker.io/library/redis"),
        ("ghcr.io/a/b/c:v1", "ghcr.io", "a/b/c", Some("v1"), false, "ghcr.io/a/b/c:v1"),
        ("localhost/app", "localhost", "app", None, false, "localhost/app"),
        ("localhost:5000/app:x", "localhost:5000", "app", Some("x"), false, "localhost:5000/app:x"),
        ("registry:5000/app", "registry:5000", "app", None, false, "registry:5000/app"),
        ("registry/app", "", "registry/app", None, false, "registry/app"),
        ("Registry/app", "Registry", "app", None, false, "Registry/app"),
        ("10.0.0.5:5000/app", "10.0.0.5:5000", "app", None, false, "10.0.0.5:5000/app"),
        ("[fd00::1]:5000/app:1", "[fd00::1]:5000", "app", Some("1"), false, "[fd00::1]:5000/app:1"),
        ("[fd00::1]/app", "[fd00::1]", "app", None, false, "[fd00::1]/app"),
        ("fabric/app:1", "fabric", "app", Some("1"), false, "fabric/app:1"),
        ("fabric/team/app", "fabric", "team/app", None, false, "fabric/team/app"),
        ("fabric", "", "fabric", None, false, "fabric"),
        ("app@DIGEST", "", "app", None, true, "app@DIGEST"),
        ("app:1@DIGEST", "", "app", Some("1"), true, "app:1@DIGEST"),
        ("a__b/c.d/e---f", "", "a__b/c.d/e---f", None, false, "a__b/c.d/e---f"),
        ("app:_", "", "app", Some("_"), false, "app:_"),
    ];
    for (text, registry, repository, tag, has_digest, shown) in table {
        let reference = parsed(&digest(text));
        let named = match reference.registry() {
            Registry::Unnamed => "",
            Registry::Fabric => "fabric",
            Registry::Host(host) => host,
        };
        assert_eq!((named, reference.repository()), (*registry, *repository), "{text}");
        assert_eq!((reference.tag(), reference.digest().is_some()), (*tag, *has_digest), "{text}");
        assert_eq!(reference.to_string(), digest(shown), "{text}");
    }
}

#[test]
fn what_is_no_reference_says_why() {
    let long = "a".repeat(limits::REFERENCE_BYTES_MAX + 1);
    let long_name = format!("ghcr.io/{}", "a".repeat(limits::NAME_BYTES_MAX));
    let long_tag = format!("app:{}", "1".repeat(limits::TAG_BYTES_MAX + 1));
    let component = |text: &str| Problem::Component(text.to_owned());
    let registry = |text: &str| Problem::Registry(text.to_owned());
    let tag = |text: &str| Problem::Tag(text.to_owned());
    let table = [
        ("", Problem::Empty),
        (&long[..], Problem::TooLong(long.len())),
        (&long_name, Problem::NameTooLong(long_name.len())),
        ("https://ghcr.io/app", Problem::Scheme("https://")),
        ("docker://app", Problem::Scheme("docker://")),
        ("Redis:7", Problem::UpperCase("redis".into())),
        ("ghcr.io/Owner/app", Problem::UpperCase("owner/app".into())),
        ("/app", component("")),
        ("app/", component("")),
        ("a//b", component("")),
        ("-app", component("-app")),
        ("app-", component("app-")),
        ("a..b", component("a..b")),
        ("a___b", component("a___b")),
        ("a._b", component("a._b")),
        ("../../etc/passwd", registry("..")),
        ("a b", component("a b")),
        ("app\n", component("app\n")),
        ("äpp", component("äpp")),
        ("ghcr.io/", Problem::NoRepository("ghcr.io".into())),
        ("fabric/", Problem::NoRepository("fabric".into())),
        ("fabric/ghcr.io/app", component("ghcr.io")),
        ("fabric/fabric/app", component("fabric")),
        ("-.io/app", registry("-.io")),
        ("a.:80/app", registry("a.:80")),
        ("host:0/app", registry("host:0")),
        ("host:65536/app", registry("host:65536")),
        ("host:+80/app", registry("host:+80")),
        ("host:/app", registry("host:")),
        ("[fd00::g]/app", registry("[fd00::g]")),
        ("[fd00::1/app", registry("[fd00::1")),
        ("app:", tag("")),
        ("app:.1", tag(".1")),
        ("app:-1", tag("-1")),
        ("app:1:2", tag("1:2")),
        (&long_tag, tag(&long_tag[4..])),
        ("app@", Problem::Digest(DigestError::NoAlgorithm)),
        ("app@sha256:00", Problem::Digest(DigestError::Length(2))),
        (&DIGEST[7..], Problem::Digits),
    ];
    for (text, wanted) in table {
        assert_eq!(problem(text), wanted, "{text}");
    }
    let shown = "Redis".parse::<Reference>().expect_err("upper case").to_string();
    assert_eq!(shown, "image 'Redis': repositories are in lower case: write redis");
    let shown = long.parse::<Reference>().expect_err("too long").to_string();
    assert!(shown.len() < 200, "{shown}");
}

#[test]
fn who_names_no_registry_means_the_fabric_or_the_default() {
    let at = |default: &str, text: &str| {
        let default: DefaultRegistry = default.parse().expect("a registry");
        assert_eq!(default.to_string().parse().as_ref(), Ok(&default));
        let reference = parsed(text).or_at(&default);
        // What it becomes reads back as it is.
        assert_eq!(parsed(&reference.to_string()), reference);
        reference.to_string()
    };
    assert_eq!(at("docker.io", "redis:7"), "docker.io/library/redis:7");
    assert_eq!(at("docker.io", "owner/app"), "docker.io/owner/app");
    assert_eq!(at("registry.lan:5000", "redis"), "registry.lan:5000/redis");
    assert_eq!(at("registry.lan/mirror", "owner/app"), "registry.lan/mirror/owner/app");
    assert_eq!(at("registry.lan", "ghcr.io/app"), "ghcr.io/app");
    assert_eq!(at("registry.lan", "fabric/app"), "fabric/app");
    for text in ["", "registry", "registry.lan/", "registry.lan/A", "fabric", "-.lan"] {
        assert!(text.parse::<DefaultRegistry>().is_err(), "{text}");
    }

    let fabric = |text: &str| parsed(text).in_fabric().map(|it| it.to_string());
    assert_eq!(fabric("app:1").as_deref(), Some("fabric/app:1"));
    assert_eq!(fabric("fabric/app:1").as_deref(), Some("fabric/app:1"));
    assert_eq!(fabric("ghcr.io/app:1"), None);
    assert_eq!(Reference::of_fabric("app:1"), Ok(parsed("fabric/app:1")));
    assert_eq!(Reference::of_fabric("fabric/app:1"), Ok(parsed("fabric/app:1")));
    assert!(Reference::of_fabric("ghcr.io/app:1").is_err());
}

#[test]
fn a_digest_wins_over_a_tag_and_what_moves_is_known() {
    let digest: Digest = DIGEST.parse().expect("one");
    for (text, wanted, moves) in [
        ("app", "latest", true),
        ("app:latest", "latest", true),
        ("app:1", "1", false),
        (&format!("app:latest@{DIGEST}"), DIGEST, false),
    ] {
        let reference = parsed(text);
        assert_eq!((reference.wanted().as_str(), reference.moves()), (wanted, moves), "{text}");
        assert_eq!(reference.at(digest).wanted(), DIGEST);
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics_and_what_is_read_reads_back(
        text in prop_oneof![any::<String>(), "[a-zA-Z0-9._:/@\\[\\]-]{0,40}", "(fabric/|docker.io/|h:5/)?[a-z/]{1,9}(:[a-z.]{1,3})?"]
    ) {
        if let Ok(reference) = text.parse::<Reference>() {
            let again: Reference = reference.to_string().parse().expect("it reads back");
            prop_assert_eq!(&again, &reference);
            prop_assert!(!reference.repository().contains(".."));
        }
    }
}
