use super::*;

fn said_of(line: &str) -> String {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let mut command = help::command();
    let error = command.try_get_matches_from_mut(std::iter::once("weft").chain(line.split(' ')));
    let error = error.expect_err(line);
    let unknown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    advised(&error.to_string(), &command, &words, unknown.as_deref())
}

#[test]
fn what_cannot_be_read_is_followed_by_an_example_of_the_command_that_was_meant() {
    let said = said_of("apply");
    assert!(
        said.contains("For example: weft apply web.toml\nweft help apply says more.\n"),
        "{said}"
    );
    let said = said_of("token create --lifetime forever");
    assert!(
        said.contains("For example: weft token create --lifetime 10m --label rack=r1\n"),
        "{said}"
    );
    let said = said_of("scale web");
    assert!(said.contains("For example: weft scale web 5\nweft help scale says more.\n"), "{said}");
    let said = said_of("apply web.toml --wait");
    assert!(said.contains("apply waits by itself") && !said.contains("tip:"), "{said}");
    let said = said_of("run sleep 60");
    assert!(said.contains("weft run NAME -- PROGRAM ARGUMENT..."), "{said}");
    let said = said_of("frobnicate");
    assert!(said.ends_with("weft alone shows the commands\nweft help says more.\n"), "{said}");
    for line in ["apply", "scale web", "apply web.toml --wait", "frobnicate"] {
        let said = said_of(line);
        assert!(!said.contains(PARSERS_ADVICE) && !said.contains("\n\n\n"), "{said}");
    }
}
