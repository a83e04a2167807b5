use super::*;
use crate::job::parse;

const WEB: &str = include_str!("../../../../docs/examples/web.toml");

fn shown(before: Option<&str>, after: &str) -> Vec<String> {
    let before = before.map(|text| parse(text).unwrap());
    JobSpec::changes(before.as_ref(), &parse(after).unwrap())
        .into_iter()
        .map(|change| {
            let side = |side: Option<String>| side.unwrap_or_else(|| "-".into());
            format!("{}: {} > {}", change.path, side(change.before), side(change.after))
        })
        .collect()
}

#[test]
fn equal_specs_do_not_differ() {
    assert_eq!(shown(Some(WEB), WEB), [""; 0]);
}

#[test]
fn a_change_is_told_in_the_words_of_the_job_file() {
    for (from, to, lines) in [
        ("count = 3", "count = 5", vec!["count: 3 > 5"]),
        ("\"64MiB\"", "\"1.5GiB\"", vec!["resources.memory: \"64MiB\" > \"1.5GiB\""]),
        ("\"64MiB\"", "67108865", vec!["resources.memory: \"64MiB\" > 67108865"]),
        ("disk   = 0", "disk = \"2GiB\"", vec!["resources.disk: \"0B\" > \"2GiB\""]),
        (
            "cores  = 1",
            "cpu = 0.5",
            vec![
                "resources.cores: 1 > -",
                "resources.cpu: - > 0.5",
                "resources.cpu_hard: - > false",
                "resources.smt: \"whole\" > -",
            ],
        ),
        ("\"hello\"", "\"bye\"", vec!["task.env.GREETING: \"hello\" > \"bye\""]),
        ("name = \"http\" ", "static = 80\nname = \"http\"", vec!["port[0].static: - > 80"]),
        ("interval = \"2s\"", "interval = \"1m30s\"", vec!["health.interval: \"2s\" > \"1m30s\""]),
        ("http     = \"/\"", "tcp = true", vec!["health.http: \"/\" > -", "health.tcp: - > true"]),
        (
            "spread   = \"arch\"",
            "constraints = ['cores >= 2']",
            vec![
                "placement.constraints: - > [\"cores >= \\\"2\\\"\"]",
                "placement.spread: \"arch\" > -",
            ],
        ),
        (
            "[resources]",
            "[resources]\nhugepages = { \"2MiB\" = 3 }",
            vec!["resources.hugepages.2MiB: - > 3"],
        ),
        ("type  = \"service\"", "", vec![]),
    ] {
        assert!(WEB.contains(from), "{from}");
        assert_eq!(shown(Some(WEB), &WEB.replacen(from, to, 1)), lines);
    }
}

#[test]
fn a_new_job_is_told_in_full_without_what_is_empty() {
    let lines = shown(None, "name = \"a\"\n[task]\ncommand = [\"/bin/true\"]");
    assert!(lines.contains(&"name: - > \"a\"".into()), "{lines:#?}");
    assert!(lines.contains(&"type: - > \"service\"".into()), "{lines:#?}");
    assert!(lines.contains(&"resources.cpu: - > 0.1".into()), "{lines:#?}");
    assert!(
        !lines.iter().any(|line| line.starts_with("port") || line.contains("[]")),
        "{lines:#?}"
    );
}
