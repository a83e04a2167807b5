use super::*;
use serde_json::{Value, json};

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn with(config: Value) -> Result<Config, ManifestError> {
    let document = json!({
        "os": "linux", "architecture": "arm64", "variant": "v8", "created": "2026-01-01T00:00:00Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [DIGEST] },
        "history": [
            { "created_by": "ADD file", "created": "2026-01-01T00:00:00Z" },
            { "created_by": "CMD [\"x\"]", "empty_layer": true, "comment": null },
        ],
    });
    Config::read(document.to_string().as_bytes())
}

#[test]
fn what_a_launch_needs_is_there() {
    let config = with(json!({
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["redis-server", "--port", "1"],
        "Env": ["PATH=/usr/bin:/bin", "EMPTY=", "BARE", "A=b=c"],
        "User": "redis:redis",
        "WorkingDir": "data/./x/",
        "StopSignal": "SIGINT",
        "ExposedPorts": { "6379/tcp": {}, "53/UDP": {}, "80": {} },
        "Volumes": { "/data": {}, "/var//lib/x/": {} },
        "Healthcheck": { "Test": ["CMD-SHELL", "redis-cli ping"], "Interval": 30_000_000_000_u64, "Timeout": 0, "Retries": 3 },
        "Labels": { "a": "b" },
        "OnBuild": null,
    }));
    let config = config.expect("a configuration");
    assert_eq!(config.platform.to_string(), "linux/arm64");
    let launch = &config.launch;
    assert_eq!(launch.words(), ["docker-entrypoint.sh", "redis-server", "--port", "1"]);
    assert_eq!(launch.variable("PATH"), Some("/usr/bin:/bin"));
    assert_eq!(launch.variable("EMPTY"), Some(""));
    assert_eq!(launch.variable("BARE"), Some(""));
    assert_eq!(launch.variable("A"), Some("b=c"));
    assert_eq!(launch.variable("B"), None);
    assert_eq!(launch.user, "redis:redis");
    assert_eq!(launch.working_dir, "/data/x");
    assert_eq!(launch.stop_signal.map(Signal::number), Some(2));
    let ports: Vec<String> = launch.exposed_ports.iter().map(|port| port.to_string()).collect();
    assert_eq!(ports, ["53/udp", "6379/tcp", "80/tcp"]);
    assert_eq!(launch.volumes, ["/data", "/var/lib/x"]);
    assert_eq!(launch.health_command().unwrap_or_default(), ["/bin/sh", "-c", "redis-cli ping"]);
    let health = launch.healthcheck.as_ref().expect("a check");
    assert_eq!((health.interval, health.timeout), (Some(Duration::from_secs(30)), None));
    assert_eq!(health.retries, Some(3));
    assert_eq!(launch.labels["a"], "b");
    let steps = config.steps().expect("they fit");
    assert_eq!(steps.iter().map(|step| step.1).collect::<Vec<_>>(), [Some(0), None]);
    assert!(config.fits(1).is_ok());
    let error = config.fits(2).expect_err("one more").to_string();
    assert_eq!(error, "rootfs.diff_ids: are 1, and the manifest has 2 layers");
}

#[test]
fn docker_writes_null_for_what_is_not_there() {
    let nulls = json!({
        "Entrypoint": null, "Cmd": null, "Env": null, "User": "", "WorkingDir": "", "ExposedPorts": null,
        "Volumes": null, "Healthcheck": null, "Labels": null, "StopSignal": null, "Shell": null,
    });
    for config in [nulls, json!({}), Value::Null] {
        let config = with(config).expect("a configuration");
        assert_eq!(config.launch, Launch { working_dir: "/".into(), ..Launch::default() });
        assert_eq!(config.launch.health_command(), None);
    }
    // A single word instead of a list; a check that is switched off; a shell of its own.
    let config = with(json!({ "Entrypoint": "/run", "Healthcheck": { "Test": ["NONE"] } }));
    let launch = config.expect("a configuration").launch;
    assert_eq!((launch.words(), launch.health_command()), (vec!["/run".to_owned()], None));
    let check =
        json!({ "Shell": ["/bin/ash", "-ec"], "Healthcheck": { "Test": ["CMD-SHELL", "x"] } });
    let launch = with(check).expect("a configuration").launch;
    assert_eq!(launch.health_command().unwrap_or_default(), ["/bin/ash", "-ec", "x"]);
    let inherited = with(json!({ "Healthcheck": { "Test": [], "Interval": 5 } }));
    assert_eq!(inherited.expect("a configuration").launch.healthcheck, None);
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    #[rustfmt::skip]
    let table = [
        (json!({ "Env": ["A=1", "=x"] }), "config.Env[1]: \"=x\" has no name"),
        (json!({ "Env": ["A=\u{0}"] }), "config.Env[0]: has a zero byte in it"),
        (json!({ "Cmd": ["a", "\u{0}"] }), "config.Cmd[1]: has a zero byte in it"),
        (json!({ "User": "a\u{0}" }), "config.User: has a zero byte in it"),
        (json!({ "WorkingDir": "/a/../.." }), "config.WorkingDir: \"/a/../..\" has .. in it"),
        (json!({ "Volumes": { "../x": {} } }), "config.Volumes: \"../x\" has .. in it"),
        (json!({ "StopSignal": "SIGFOO" }), "config.StopSignal: \"SIGFOO\" is no signal"),
        (json!({ "ExposedPorts": { "0/tcp": {} } }), "config.ExposedPorts: \"0/tcp\" is no port"),
        (json!({ "ExposedPorts": { "+8/tcp": {} } }), "config.ExposedPorts: \"+8/tcp\" is no port"),
        (json!({ "ExposedPorts": { "8/icmp": {} } }), "config.ExposedPorts: \"8/icmp\" is no port"),
        (json!({ "Healthcheck": { "Test": ["CMD"] } }), "config.Healthcheck.Test: \"CMD\" with 0 words"),
        (json!({ "Healthcheck": { "Test": ["RUN", "x"] } }), "config.Healthcheck.Test: \"RUN\" with 1 words"),
        (json!({ "Healthcheck": { "Test": ["CMD", "x"], "Timeout": -1 } }), "config.Healthcheck.Timeout: is below 0"),
        (json!({ "Env": vec!["A=1"; limits::CONFIG_ITEMS_MAX + 1] }), "config.Env: are 4097, and 4096 are allowed"),
    ];
    for (config, wanted) in table {
        let error = with(config).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, not {wanted}");
    }
    #[rustfmt::skip]
    let table = [
        (json!({ "architecture": "amd64" }), "os: is missing"),
        (json!({ "os": "linux" }), "architecture: is missing"),
        (json!({ "os": "linux", "architecture": "amd64" }), "rootfs: is missing"),
        (json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "x" } }), "rootfs.type: is \"x\", and only"),
        (json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": ["x"] } }), "rootfs.diff_ids[0]: \"x\": a digest is"),
    ];
    for (document, wanted) in table {
        let error = Config::read(document.to_string().as_bytes()).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, not {wanted}");
    }
}

#[test]
fn a_history_that_does_not_fit_is_not_shown() {
    let document = json!({
        "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [DIGEST] },
        "history": [{}, {}],
    });
    let config = Config::read(document.to_string().as_bytes()).expect("it still runs");
    assert_eq!(config.history.len(), 2);
    assert_eq!(config.steps(), None);
}

#[test]
fn signals_have_names_and_numbers() {
    #[rustfmt::skip]
    let table = [
        ("SIGTERM", 15, "SIGTERM"), ("term", 15, "SIGTERM"), ("15", 15, "SIGTERM"), ("SIGQUIT", 3, "SIGQUIT"), ("9", 9, "SIGKILL"),
        ("SIGRTMIN+3", 37, "SIGRTMIN+3"), ("RTMIN", 34, "SIGRTMIN"), ("SIGRTMAX", 64, "SIGRTMIN+30"), ("SIGRTMAX-2", 62, "SIGRTMIN+28"),
        ("33", 33, "33"), ("SIGIOT", 6, "SIGABRT"), ("SIGWINCH", 28, "SIGWINCH"),
    ];
    for (text, number, name) in table {
        let signal: Signal = text.parse().expect(text);
        assert_eq!((signal.number(), signal.to_string().as_str()), (number, name), "{text}");
        assert_eq!(name.parse(), Ok(signal));
    }
    for text in ["", "0", "65", "-1", "SIG", "SIGRTMIN+31", "SIGRTMIN-1", "SIGRTMAX+1", "256", "+9"]
    {
        assert!(text.parse::<Signal>().is_err(), "{text}");
    }
}
