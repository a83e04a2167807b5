use super::*;
use crate::job::{JobSpec, parse_with};

/// A job with one key in one section: the shortest file in which it may stand.
fn file(section: &KeyTable, key: &str, value: &str) -> String {
    let command = "command = [\"/usr/bin/web\"]\n";
    let task = format!("[task]\n{command}");
    let line = format!("{key} = {value}\n");
    let beside = match (section.head, key) {
        ("", "task") => return format!("name = \"web\"\n{line}"),
        ("", "name") => return format!("{line}{task}"),
        ("", _) => return format!("name = \"web\"\n{line}{task}"),
        ("[task]", "command") => return format!("name = \"web\"\n[task]\n{line}"),
        ("[task]", _) => return format!("name = \"web\"\n{task}{line}"),
        ("[[task.files]]", "path") => "content = \"\"\n",
        ("[[task.files]]", _) => "path = \"/etc/a\"\n",
        ("[resources]", "smt") => "cores = 1\n",
        ("[health]", "http" | "tcp" | "command") => "",
        ("[health]", "port" | _) => "tcp = true\n",
        ("[[port]]", "static") => "name = \"http\"\n",
        ("placement.affinity", _) => {
            let condition = if key == "if" { "" } else { "if = \"cores > 1\", " };
            return format!(
                "name = \"web\"\n{task}[placement]\naffinity = [{{ {condition}{key} = {value} }}]\n"
            );
        }
        _ => "",
    };
    let port = match (section.head, key) {
        // Which of them has to be said.
        ("[health]", "port") => "[[port]]\nname = \"http\"\n[[port]]\nname = \"other\"\n",
        ("[health]", _) => "[[port]]\nname = \"http\"\n",
        _ => "",
    };
    let head = section.head.replace("NAME", "aarch64");
    format!("name = \"web\"\n{task}{port}{head}\n{beside}{line}")
}

/// The file without that key: it stands on a line of its own, or between braces.
fn left_out(text: &str, key: &str, value: &str) -> String {
    let alone = format!("{key} = {value}");
    let ways = [format!("{alone}\n"), format!(", {alone}"), alone];
    let way = ways.iter().find(|way| text.contains(way.as_str())).expect("it is there");
    text.replacen(way.as_str(), "", 1)
}

fn read(text: &str) -> JobSpec {
    parse_with(text, &mut |_| Ok("a = 1".into())).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn every_example_is_read_and_says_something() {
    for section in TABLES {
        for Key { name, example, default, .. } in section.keys {
            let text = file(section, name, example);
            let spec = read(&text);
            // Required ones and those whose absence is an error aside: it makes a difference.
            let without = left_out(&text, name, example);
            if let Ok(without) = parse_with(&without, &mut |_| Ok("a = 1".into())) {
                assert_ne!(spec, without, "{} {name}: {text}", section.head);
            }
            assert_ne!(Some(example), default.as_ref(), "{} {name}", section.head);
        }
    }
}

#[test]
fn what_is_called_a_default_is_one() {
    let mut looked_at = 0;
    for section in TABLES {
        for Key { name, default, .. } in section.keys {
            let Some(default) = default else { continue };
            let text = file(section, name, default);
            let without = left_out(&text, name, default);
            assert_eq!(read(&text), read(&without), "{} {name} is not {default}", section.head);
            looked_at += 1;
        }
    }
    assert!(looked_at > 40, "{looked_at}");
}

/// Compares a file that is made of the table with it, or makes it anew.
fn is_made_of_the_table(path: &str, made: &str) {
    let whole = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("WEFT_REWRITE").is_some() {
        std::fs::write(&whole, made).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let written = std::fs::read_to_string(&whole).unwrap_or_default();
    assert!(written == made, "{path} is not what the table says: WEFT_REWRITE=1 cargo test");
}

#[test]
fn the_reference_is_made_of_the_table() {
    is_made_of_the_table("docs/JOBFILE.md", &reference());
}

#[test]
fn the_page_for_man_is_made_of_the_table_and_has_every_key() {
    let page = manual();
    is_made_of_the_table("docs/weft-job.5", &page);
    for section in TABLES {
        assert!(page.contains(&format!(".SH \"{}\"", section.head)) || section.head.is_empty());
        for key in section.keys {
            assert!(page.contains(&format!("\\fB{}\\fR = ", plain(key.name))), "{}", key.name);
        }
    }
    for line in page.lines() {
        assert!(!line.contains('`') && !line.contains("**") && !line.contains("]("), "{line}");
        let order = line.starts_with('.') || line.starts_with('\'');
        let known = [".SH", ".TH", ".TP", ".BR", ".\\\""].iter().any(|it| line.starts_with(it));
        assert!(!order || known, "{line}");
    }
}
