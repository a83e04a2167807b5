use super::*;

const EXAMPLE: &str = include_str!("../../weftd.toml");

#[test]
fn the_example_shows_every_key_with_its_default() {
    assert_eq!(Config::parse(EXAMPLE).unwrap(), Config::default());
    let document = toml::de::DeTable::parse(EXAMPLE).unwrap();
    let document = document.get_ref();
    for (table, keys) in KEYS {
        for key in *keys {
            let shown = if table.is_empty() {
                document.contains_key(*key)
            } else {
                let inner = document.get(*table).and_then(|inner| inner.get_ref().as_table());
                inner.is_some_and(|inner| inner.contains_key(*key))
            };
            assert!(shown, "the example does not show {table}.{key}");
        }
    }
}

#[test]
fn every_known_key_is_read_and_no_other() {
    // Were a key in KEYS but not in the structures (or the other way round), a file with all of them
    // would be refused or a file with one of them would.
    let mut text = String::new();
    for (table, keys) in KEYS {
        for key in *keys {
            let wrong = if table.is_empty() {
                format!("{key} = {{ a = 1 }}\n")
            } else {
                format!("[{table}]\n{key} = {{ a = [] }}\n")
            };
            let error = Config::parse(&wrong).unwrap_err().to_string();
            assert!(
                !error.contains("unknown key") && !error.contains("unknown field"),
                "{wrong}: {error}"
            );
        }
    }
    text.push_str("[node]\nnmae = \"a\"\n");
    assert!(Config::parse(&text).is_err());
}

#[test]
fn an_empty_file_means_all_defaults() {
    assert_eq!(Config::parse("").unwrap(), Config::default());
}

#[test]
fn a_missing_file_is_fine_unless_it_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weftd.toml");
    assert_eq!(Config::load(&path, false).unwrap(), Config::default());
    let error = Config::load(&path, true).unwrap_err();
    assert!(error.to_string().contains("weftd.toml"), "{error}");
}

#[test]
fn an_endless_file_is_refused() {
    let error = Config::load(Path::new("/dev/zero"), true).unwrap_err();
    assert!(matches!(error, ConfigError::TooLong(_)), "{error}");
}

#[test]
fn values_are_taken_over() {
    let config = Config::parse(
        r#"
        state = "/tmp/state"
        [node]
        name = "a"
        labels = { rack = "r1" }
        witness = true
        [listen]
        address = "127.0.0.1"
        port = 7500
        advertise = ["10.0.0.1:7500", "[fe80::1%2]:7500"]
        [resources]
        cpus = "0-1"
        housekeeping = ""
        memory = "64MiB"
        disk = "0B"
        ports = "30000-30100"
        devices = []
        [discovery]
        mdns = false
        seeds = ["a.example:7400"]
        [executor]
        kind = "direct"
        [metrics]
        remote_write = "http://[::1]:9090/api/v1/write?tenant=a"
        remote_write_every = "1m30s"
        "#,
    )
    .unwrap();
    assert_eq!(
        config.share().unwrap(),
        Share {
            cpus: Some("0-1".parse().unwrap()),
            housekeeping: Some(CpuSet::new()),
            memory: Some(64 << 20),
            disk: Some(0),
            ports: Some((30000, 30100)),
            devices: Some(Vec::new()),
        }
    );
    assert_eq!(config.gossip_address(), "127.0.0.1:7500".parse().unwrap());
    assert_eq!(config.name(), "a");
    assert_eq!(config.executor.kind, Preference::Direct);
    assert_eq!(config.node.labels["rack"], "r1");
    assert!(config.node.witness);
    let receiver = config.metrics.remote_write().unwrap();
    assert_eq!(receiver.to_string(), "http://[::1]:9090/api/v1/write?tenant=a");
    assert_eq!(config.metrics.remote_write_every(), std::time::Duration::from_secs(90));
}

/// Text, and what the complaint must contain.
#[test]
fn what_makes_no_sense_is_refused_with_place_and_advice() {
    let rows = [
        ("[node]\nnmae = \"a\"", "2:1: unknown key \"nmae\" in [node]: did you mean \"name\"?"),
        ("lag = \"info\"", "1:1: unknown key \"lag\": did you mean \"log\"?"),
        (
            "\n[resorces]\ncpus = \"0\"",
            "2:2: unknown key \"resorces\": did you mean \"resources\"?",
        ),
        ("[listen]\nport = \"a\"", "2:8"),
        ("[listen]\nport = 70000", "2:8"),
        ("[listen]\nport = 65535", "next port"),
        ("[node]\nlevel = 9", "node.level"),
        ("node = 3", "1:8"),
        ("[node\n", "1:6"),
        ("[resources]\ncpus = \"a-b\"", "resources.cpus"),
        ("[resources]\nmemory = \"many\"", "resources.memory"),
        ("[resources]\nmemory = \"0B\"", "resources.memory"),
        ("[resources]\ndisk = \"all\"", "resources.disk: \"all\" is no size"),
        ("[resources]\nports = \"5-4\"", "resources.ports"),
        ("[discovery]\nseeds = [\"host\"]", "has no port"),
        ("[executor]\nkind = \"docker\"", "2:8"),
        ("state = \"relative\"", "absolute"),
        ("[metrics]\nremote_write = \"https://a/b\"", "https is not spoken here"),
        ("[metrics]\nremote_write = \"a:9090\"", "write http://HOST:PORT/PATH"),
        ("[metrics]\nremote_write = \"http://me:secret@a/b\"", "are not sent"),
        ("[metrics]\nenabled = false\nremote_write = \"http://a/b\"", "remove one"),
        ("[metrics]\nremote_write_every = \"10ms\"", "from 1s to 4m"),
        ("[metrics]\nremote_write_every = \"often\"", "from 1s to 4m"),
    ];
    for (text, wanted) in rows {
        let error = Config::parse(text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text:?}: {error:?} does not contain {wanted:?}");
    }
}
