//! Settings that make no sense are refused, with words that help.

use discovery::{Discovery, Error, Settings};

fn fine() -> Settings {
    Settings { machine: "board".into(), node: "0a".repeat(32), port: 7000, ..Settings::default() }
}

#[tokio::test]
async fn settings_are_checked_before_anything_starts() {
    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = fine();
        change(&mut settings);
        Discovery::start(settings).err().expect("a refusal")
    };
    assert!(matches!(refused(&|settings| settings.node = "0a".into()), Error::BadNode(_)));
    assert!(matches!(refused(&|settings| settings.port = 0), Error::BadPort));
    let bad_fabric = |settings: &mut Settings| settings.fabric = Some("x".repeat(16));
    assert!(matches!(refused(&bad_fabric), Error::BadFabric(_)));
    let bad_domain = |settings: &mut Settings| settings.domains = vec!["a..b".into()];
    assert!(matches!(refused(&bad_domain), Error::BadDomain(_)));
    let domains = |settings: &mut Settings| settings.domains = vec!["a.test".into(); 9];
    assert!(matches!(refused(&domains), Error::TooManyDomains(9)));
    let seeds = |settings: &mut Settings| settings.seeds = vec!["a:1".into(); 65];
    assert!(matches!(refused(&seeds), Error::TooManySeeds(65)));
    let error = refused(&|settings| settings.seeds = vec!["just-a-name".into()]);
    assert_eq!(
        error.to_string(),
        "\"just-a-name\" is not a seed: write \"host:port\", \"192.0.2.1:port\" or \"[2001:db8::1]:port\""
    );
}

#[tokio::test]
async fn a_fabric_that_is_none_is_refused_and_changes_nothing() {
    let mut discovery = Discovery::start(fine()).expect("it starts");
    assert!(matches!(discovery.set_fabric(Some("no".into())), Err(Error::BadFabric(_))));
    discovery.set_fabric(Some("A".repeat(16))).expect("upper case will do");
    discovery.shutdown().await;
}
