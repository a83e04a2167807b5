//! Where a job may run, and what it runs there.

use super::*;

const MIXED: &str = include_str!("../../../../../docs/examples/mixed.toml");

#[test]
fn the_mixed_example_says_what_it_means() {
    let spec = parse(MIXED).unwrap();
    let placement = &spec.placement;
    let levels: Vec<_> = placement.spread.iter().map(ToString::to_string).collect();
    assert_eq!(levels, ["labels.rack", "name"]);
    let weights: Vec<_> = placement.affinity.iter().map(|affinity| affinity.weight).collect();
    assert_eq!(weights, [10, 30, -50]);
    assert_eq!(placement.anti_affinity[0].as_str(), "database");
    assert!(placement.sticky);
    assert!(spec.task.command.is_empty());
    assert!(spec.task.runs_on("aarch64") && spec.task.runs_on("x86_64"));
    assert!(!spec.task.runs_on("riscv64"));
    let small = spec.task.on_arch("aarch64");
    assert_eq!(small.command[0], "/opt/index/aarch64/indexer");
    assert_eq!((small.env["THREADS"].as_str(), small.env["MODE"].as_str()), ("2", "index"));
    assert!(small.arch.is_empty());
}

#[test]
fn a_task_for_an_architecture_replaces_what_it_names_and_nothing_else() {
    let text = "name = \"a\"\n[task]\ncommand = [\"/bin/a\"]\nenv = { A = \"1\", B = \"2\" }\n\
        user = \"nobody\"\nfiles = [{ path = \"/x\", content = \"1\" }, { path = \"/y\", content = \"1\" }]\n\
        [task.arch.aarch64]\nenv = { B = \"3\" }\nworking_dir = \"/srv\"\n\
        files = [{ path = \"/y\", content = \"2\" }]\n";
    let task = parse(text).unwrap().task;
    assert!(task.runs_on("riscv64"), "the task itself has a command");
    let there = task.on_arch("riscv64");
    assert_eq!(*there, task);
    let here = task.on_arch("aarch64");
    assert_eq!(here.command, ["/bin/a"]);
    assert_eq!((here.env["A"].as_str(), here.env["B"].as_str()), ("1", "3"));
    assert_eq!(here.user.as_deref(), Some("nobody"));
    assert_eq!(here.working_dir.as_deref(), Some("/srv"));
    let files: Vec<_> =
        here.files.iter().map(|file| (file.path.as_str(), file.content.as_str())).collect();
    assert_eq!(files, [("/x", "1"), ("/y", "2")]);
}

#[test]
fn old_and_new_forms_of_placement_read_back_from_json_and_from_the_table() {
    for placement in [
        "",
        "spread = \"labels.rack\"",
        "spread = [\"labels.rack\"]",
        "spread = [\"labels.rack\", \"name\"]",
        "affinity = ['os == \"debian 12\"', { if = 'labels.disk == ssd', weight = -100 }]",
        "anti_affinity = [\"db\", \"a\"]\nsticky = true\nconstraints = ['devices.gpu >= 1']",
    ] {
        let spec = parse(&format!("{SMALLEST}[placement]\n{placement}\n")).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&json).unwrap(), spec, "{json}");
        let bytes = postcard::to_stdvec(&spec).unwrap();
        assert_eq!(postcard::from_bytes::<JobSpec>(&bytes).unwrap(), spec, "{placement}");
    }
    // What clients of an earlier agent send.
    let old = r#"{"constraints": [], "affinity": ["os == \"debian 12\""], "spread": null, "strategy": "best-fit"}"#;
    let placement: crate::job::Placement = serde_json::from_str(old).unwrap();
    assert_eq!(placement.affinity[0].weight, 10);
    let json = serde_json::to_value(&placement).unwrap();
    assert_eq!(json["affinity"][0], "os == \"debian 12\"");
    assert_eq!(json["spread"], serde_json::Value::Null);
}
