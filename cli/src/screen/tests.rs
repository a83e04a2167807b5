use super::*;

fn table() -> Table {
    let mut table = Table::new(&["NAME", "STATE", "WHY"]);
    table.row(["a".into(), Cell::new("alive", Tone::Good), "".into()]);
    table.row(["größer".into(), Cell::new("dead", Tone::Bad), "gone".into()]);
    table
}

#[test]
fn columns_are_aligned_and_nothing_trails() {
    assert_eq!(table().render(false), "NAME    STATE  WHY\na       alive\ngrößer  dead   gone\n");
}

#[test]
fn columns_are_left_out_where_there_is_no_room_the_least_important_first() {
    let table = table().without(&["WHY", "STATE"]);
    let in_room = |room| table.fitted(room).map(|table| table.render(false));
    assert_eq!(in_room(19), None, "it fits");
    assert_eq!(in_room(18).as_deref(), Some("NAME    STATE\na       alive\ngrößer  dead\n"));
    assert_eq!(in_room(12).as_deref(), Some("NAME\na\ngrößer\n"));
    assert_eq!(in_room(1), in_room(12), "what has to be there is");
}

#[test]
fn colour_adds_to_the_words_and_changes_no_width() {
    let plain: String = table()
        .render(true)
        .split('\x1b')
        .map(|part| {
            part.split_once('m')
                .filter(|(code, _)| code.starts_with('['))
                .map_or(part, |(_, rest)| rest)
        })
        .collect();
    assert_eq!(plain, table().render(false));
    assert!(table().render(true).contains("\x1b[31mdead\x1b[0m"));
}

#[test]
fn names_from_afar_cannot_drive_the_terminal() {
    let mut table = Table::new(&[]);
    table.row(["a\x1b[2Jb\nc".into()]);
    assert_eq!(table.render(false), "a [2Jb c\n");
}

#[test]
fn yaml_says_what_json_says_and_no_text_becomes_something_else() {
    let value = serde_json::json!({
        "a": ["no", "1.0", "x: y", "", "~", "null", "12:30:45"],
        "b": "two\nlines\n",
        "c": [{ "yes": true, "x": null }],
        "d": [],
    });
    let text = "a:\n- \"no\"\n- \"1.0\"\n- \"x: y\"\n- \"\"\n- \"~\"\n- \"null\"\n- \"12:30:45\"\n\
                b: |\n  two\n  lines\nc:\n- x: null\n  \"yes\": true\nd: []\n";
    let Ok(written) = yaml(&value) else { panic!("it can be written") };
    assert_eq!(written, text);
}
