use super::*;

const BOARD: &str = r#"[board.birch]
arch = "aarch64"
serial = "/dev/ttyUSB0"
[board.birch.power]
on = ["relay", "1"]
off = ["relay", "0"]
"#;

#[test]
fn the_example_has_every_key_and_is_what_it_says() {
    let text = include_str!("../../lab.example.toml");
    let boards = parse(text).expect("it is the one that people copy");
    let [birch, cedar, elm] = ["birch", "cedar", "elm"].map(|name| &boards[&Name(name.into())]);
    assert_eq!((birch.arch, cedar.arch), (Arch::Aarch64, Arch::X86_64));
    // What is written there is the default.
    assert_eq!((birch.baud, birch.settle), (cedar.baud, cedar.settle));
    assert_eq!((birch.up_within, birch.starts_from), (cedar.up_within, cedar.starts_from));
    assert_eq!(elm.starts_from, StartsFrom::Network);
    assert_eq!(birch.power.on.split(), ("usbrelay", &["BITFT_1=1".to_owned()][..]));
    assert!(birch.power.cycle.is_none() && elm.power.cycle.is_some());
}

#[test]
fn the_documentation_shows_one_that_is_good() {
    let text = include_str!("../../../docs/TESTING.md");
    let shown = text.lines().skip_while(|line| *line != "    [board.birch]");
    let shown: Vec<&str> = shown.map_while(|line| line.strip_prefix("    ")).collect();
    assert_eq!(parse(&shown.join("\n")).expect("people copy it").len(), 1, "{shown:?}");
}

/// What is changed in a file that is good, and what is said about it.
#[test]
fn what_makes_no_sense_is_refused_with_its_line() {
    assert_eq!(parse(BOARD).expect("good").len(), 1);
    let rows: &[(&str, &str, usize, &str)] = &[
        ("serial", "serail", 3, "unknown field `serail`, expected one of `arch`, `serial`"),
        ("[\"relay\", \"1\"]", "[]", 5, "a command needs a program"),
        ("[\"relay\", \"1\"]", "[\"\"]", 5, "a command needs a program"),
        ("[\"relay\", \"1\"]", "\"relay 1\"", 5, "expected a sequence"),
        ("off = [\"relay\", \"0\"]", "", 4, "missing field `off`"),
        ("off", "of", 6, "unknown field `of`, expected one of `on`, `off`, `cycle`"),
        ("arch = \"aarch64\"", "arch = \"mips\"", 2, "unknown variant `mips`"),
        ("[board.birch.power]", "baud = 1234\n[board.birch.power]", 4, "1234 is no baud rate"),
        ("[board.birch.power]", "settle = 0\n[board.birch.power]", 4, "0 s without power"),
        ("[board.birch.power]", "settle = -1\n[board.birch.power]", 4, "expected u64"),
        ("[board.birch.power]", "up_within = 7200\n[board.birch.power]", 4, "7200 s to come up"),
        (
            "[board.birch.power]",
            "starts_from = \"usb\"\n[board.birch.power]",
            4,
            "unknown variant `usb`",
        ),
        ("[board.birch]", "[board.\"../birch\"]", 1, "is no name of a board"),
        ("[board.", "[boards.", 1, "unknown field `boards`"),
        ("[board.birch.power]", "[board.birch]", 4, "duplicate key"),
        ("\"aarch64\"", "\"aarch64", 2, "invalid basic string"),
    ];
    for (from, to, line, wanted) in rows {
        let text = BOARD.replace(from, to);
        let (at, message) = parse(&text).expect_err(&text);
        assert!(message.contains(wanted), "{message:?} does not say {wanted:?} of\n{text}");
        assert_eq!(at, *line, "{message} of\n{text}");
    }
    let (_, message) = parse("# nothing yet\n").expect_err("it is empty");
    assert!(message.contains("[board.NAME]"), "{message}");
    let many: String =
        (0..=BOARDS_MAX).map(|number| BOARD.replace("birch", &format!("b{number}"))).collect();
    let (_, message) = parse(&many).expect_err("too many");
    assert!(message.contains("17 boards: at most 16"), "{message}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_what_to_do() {
    let missing = Path::new("/nowhere/lab.toml");
    let said = format!("{:#}", Lab::read(missing).expect_err("it is not there"));
    assert!(said.contains("/nowhere/lab.toml: No such file"), "{said}");
    assert!(said.contains("no board was switched; hw-tests/lab.example.toml"), "{said}");
    let folder = tempfolder("lab");
    let file = folder.join("lab.toml");
    fs::write(&file, BOARD.replace("serial", "serail")).expect("ours");
    let said = format!("{:#}", Lab::read(&file).expect_err("a key is mistyped"));
    assert!(said.contains("lab.toml, line 3: unknown field `serail`"), "{said}");
    assert!(said.contains("no board was switched; mend that line"), "{said}");
    fs::remove_dir_all(&folder).expect("ours");
}

fn tempfolder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weft-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("there is room");
    folder
}
