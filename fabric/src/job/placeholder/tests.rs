use proptest::prelude::*;

use super::*;
use crate::id::JobName;

fn with_values<T>(run: impl FnOnce(&Placeholders<'_>) -> T) -> T {
    let alloc = AllocId::new(JobName::new("web").unwrap(), 2, 7);
    let cpus = "0-3,8".parse().unwrap();
    let ports = BTreeMap::from([("http".to_owned(), 20_000), ("admin".to_owned(), 9)]);
    run(&Placeholders { alloc: &alloc, node: "rack1", cpus: &cpus, ports: &ports })
}

#[test]
fn each_placeholder_is_replaced() {
    for (text, replaced) in [
        ("", ""),
        ("plain", "plain"),
        ("${port.http}", "20000"),
        (":${port.http}/${port.admin}", ":20000/9"),
        ("${job}-${slot}@${epoch}", "web-2@7"),
        ("${node}:${cpus}", "rack1:0-3,8"),
        ("$HOME $ $$ {} }", "$HOME $ $$ {} }"),
        ("$${job}", "${job}"),
        ("a$${job}b${job}", "a${job}bweb"),
        ("$$${job}", "$${job}"),
        ("$${", "${"),
        ("größe ${slot}ß", "größe 2ß"),
    ] {
        assert_eq!(
            with_values(|values| substitute(text, values)).as_deref(),
            Ok(replaced),
            "{text}"
        );
    }
}

#[test]
fn replaced_text_is_not_looked_at_again() {
    let alloc = AllocId::new(JobName::new("a").unwrap(), 0, 1);
    let (cpus, ports) = (CpuSet::new(), BTreeMap::new());
    let values = Placeholders { alloc: &alloc, node: "${slot}", cpus: &cpus, ports: &ports };
    assert_eq!(substitute("${node}", &values).unwrap(), "${slot}");
}

#[test]
fn what_is_no_placeholder_is_refused_with_a_hint() {
    for (text, message) in [
        (
            "${jbo}",
            "there is no ${jbo}: did you mean ${job}?; for a plain \"${jbo}\" write $${jbo}",
        ),
        ("a ${slot", "\"${\" is never closed: write ${NAME}, or $${ for a plain \"${\""),
        ("${port.htp}", "${port.htp}: the job has no port \"htp\": did you mean \"http\"?"),
        ("${port.}", "${port.}: the job has no port \"\": add [[port]] with that name"),
    ] {
        let error = with_values(|values| substitute(text, values)).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(check(text, ["http", "admin"].into_iter()), Err(error));
    }
}

#[test]
fn a_task_and_its_check_are_replaced_where_the_job_file_says_so() {
    let mut task = Task::new(vec!["/bin/a".into(), "${port.http}".into()]);
    task.env.insert("NODE".into(), "${node}".into());
    task.working_dir = Some("/${job}".into());
    let health = Health::new(Check::Command { command: vec!["/bin/c".into(), "${slot}".into()] });
    let (task, health) = with_values(|values| (task.substitute(values), health.substitute(values)));
    let task = task.unwrap();
    assert_eq!(task.command, ["/bin/a", "20000"]);
    assert_eq!(task.env["NODE"], "rack1");
    assert_eq!(task.working_dir.as_deref(), Some("/${job}"));
    assert_eq!(
        health.unwrap().check,
        Check::Command { command: vec!["/bin/c".into(), "2".into()] }
    );
}

proptest! {
    #[test]
    fn what_passes_the_check_can_be_replaced(text in "([$]{0,3}[{]?(port.http|port.x|job|node|slots|é)?[}]?){0,6}") {
        let checked = check(&text, ["http", "admin"].into_iter());
        let replaced = with_values(|values| substitute(&text, values));
        prop_assert_eq!(checked.is_ok(), replaced.is_ok(), "{}", text);
    }
}
