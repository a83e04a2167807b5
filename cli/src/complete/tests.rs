use super::*;

#[test]
fn every_argument_that_names_something_is_there() {
    // Panics for one that is not.
    command().debug_assert();
    for (verb, argument, _) in NAMED {
        let command = command();
        let verb = command.find_subcommand(verb).expect(verb);
        assert!(verb.get_arguments().any(|it| it.get_id() == argument), "{argument}");
    }
}

#[test]
fn names_are_found_in_an_answer_and_in_nothing_else() {
    let answer = |status: &str, body: &str| format!("HTTP/1.0 {status} X\r\na: b\r\n\r\n{body}");
    let of = |text: String| named(text.as_bytes());
    let names = of(answer("200", r#"[{"name":"web"},{"name":"a b\u001b"},{"other":1}]"#));
    assert_eq!(names, Some(vec!["web".to_owned()]));
    assert_eq!(of(answer("503", "[]")), None);
    assert_eq!(of(answer("200", "{}")), None);
    assert_eq!(of("nonsense".into()), None);
    assert_eq!(of(String::new()), None);
}

#[test]
fn an_agent_that_is_not_there_or_says_nothing_costs_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let silent = folder.path().join("silent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    for socket in [folder.path().join("none.sock"), silent] {
        assert_eq!(ask(socket, "/v1/jobs"), None);
    }
}
