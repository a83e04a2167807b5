//! How the source is cut: files of a crate do not import each other in circles, no struct has so many fields that nobody
//! knows them all, and no function is so long that it is read in two sittings. Each list of exceptions says exactly what
//! there is, so that it can only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::root;

const CRATES: [&str; 11] = [
    "agent",
    "cli",
    "discovery",
    "ebpf",
    "fabric",
    "fabric/model",
    "fabric/sim",
    "helper",
    "hw-tests",
    "metrics",
    "oci",
];

/// Named fields of a struct.
const FIELDS_MAX: usize = 20;

/// Lines of a function, from its name to its last bracket.
const FUNCTION_LINES_MAX: usize = 100;

/// Files that import each other. A circle may lose files; one that is gone leaves the list.
const CIRCLES: &[&str] = &[
    "agent: observe::families observe::probing",
    "agent: quic::peers quic::request quic::serve",
    "cli: apply jobs nodes streams watch",
    // Invariants look at the world, and the world has them look whenever something happens.
    "fabric/sim: book invariants invariants::deletions invariants::leases invariants::levels invariants::rollouts \
     invariants::settled invariants::sharing invariants::time world",
    "hw-tests: machine switch workshop",
];

/// Structs with more fields, and how many they may have. One of them is the kernel's.
const WIDE_STRUCTS: &[(&str, usize)] =
    &[("agent: host::ata::Request", 22), ("fabric/sim: book::Book", 24)];

/// Functions with more lines, and how many they may have.
const LONG_FUNCTIONS: &[(&str, usize)] = &[
    ("fabric/model: voters::next_state", 106),
    ("fabric/sim: scenario::disturb", 106),
    ("fabric: node::views::plan", 116),
    ("hw-tests: stories::pins_hold::tell", 102),
];

/// The files of a crate by module, without those of tests.
fn modules_of(source: &str) -> BTreeMap<String, String> {
    fn collect(folder: &Path, module: &str, files: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of source") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|it| it.to_str()).expect("a name").to_owned();
            let inner = match (module, &name[..]) {
                ("", "lib" | "main") => String::new(),
                ("", name) => name.to_owned(),
                (module, name) => format!("{module}::{name}"),
            };
            if name == "tests" {
                continue;
            } else if path.is_dir() {
                collect(&path, &inner, files);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = std::fs::read_to_string(&path).expect("source is text");
                // `lib.rs` and `main.rs` are both the root.
                files.entry(inner).or_default().push_str(&without_tests(&text));
            }
        }
    }
    let mut files = BTreeMap::new();
    collect(&root().join(source), "", &mut files);
    files
}

/// Source without comments, and without what comes after the first inline module of tests: that is the last thing in a file.
fn without_tests(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The paths that a file imports, those in brackets one by one.
fn imports(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("use ") {
        let before = rest[..at].lines().next_back().unwrap_or_default().trim_start();
        let starts = at == 0 || rest[..at].ends_with(char::is_whitespace);
        let is_import =
            starts && (before.is_empty() || before.starts_with("pub") && !before.contains("fn"));
        rest = &rest[at + 4..];
        if let Some((import, after)) = rest.split_once(';').filter(|_| is_import) {
            spread("", import, &mut paths);
            rest = after;
        }
    }
    paths
}

fn spread(prefix: &str, import: &str, paths: &mut Vec<String>) {
    let import = import.trim();
    let Some((head, inner)) = import.split_once('{') else {
        let path = import.split(" as ").next().unwrap_or_default();
        paths.push(format!("{prefix}{path}"));
        return;
    };
    let prefix = format!("{prefix}{head}");
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let (mut depth, mut from) = (0, 0);
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[from..at].trim().is_empty() {
                    spread(&prefix, &inner[from..at], paths);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// The file of the crate that a path leads to from a module; `None`: to something of another crate.
fn file_of(path: &str, from: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let mut module: Vec<&str> = from.split("::").filter(|part| !part.is_empty()).collect();
    let mut parts = path.split("::").peekable();
    match parts.peek() {
        Some(&"crate") => {
            module.clear();
            parts.next();
        }
        Some(&"self") => {
            parts.next();
        }
        Some(&"super") => {
            while parts.next_if_eq(&"super").is_some() {
                module.pop();
            }
        }
        Some(first) => {
            let inner: Vec<&str> = module.iter().copied().chain([*first]).collect();
            if !files.contains_key(&inner.join("::")) {
                return None;
            }
        }
        None => return None,
    }
    module.extend(parts);
    (0..=module.len()).rev().map(|n| module[..n].join("::")).find(|it| files.contains_key(it))
}

/// Whether one of two modules is in the other.
fn are_family(one: &str, other: &str) -> bool {
    let holds = |outer: &str, inner: &str| {
        outer.is_empty() || inner == outer || inner.starts_with(&format!("{outer}::"))
    };
    holds(one, other) || holds(other, one)
}

fn reached_from<'i>(
    file: &str,
    imports: &'i BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<&'i str> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(file) = next.pop() {
        for to in &imports[file] {
            if seen.insert(to.as_str()) {
                next.push(to);
            }
        }
    }
    seen
}

/// Groups of files each of which can be reached from each other by imports. A module and what is in it know each other by
/// right.
fn circles(files: &BTreeMap<String, String>) -> Vec<Vec<String>> {
    let imported = |(from, text): (&String, &String)| {
        let reached = imports(text).into_iter().filter_map(|path| file_of(&path, from, files));
        let reached: BTreeSet<String> = reached.filter(|to| !are_family(from, to)).collect();
        (from.clone(), reached)
    };
    let imports: BTreeMap<String, BTreeSet<String>> = files.iter().map(imported).collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        files.keys().map(|file| (file.as_str(), reached_from(file, &imports))).collect();
    let mut groups: Vec<Vec<String>> = Vec::new();
    for (file, there) in &reached {
        if there.contains(file) && !groups.iter().any(|group| group.iter().any(|it| it == file)) {
            let back = there.iter().filter(|other| reached[**other].contains(file));
            groups.push(back.map(|other| (*other).to_owned()).collect());
        }
    }
    groups
}

fn indent_of(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// The word after a keyword, in a line that declares something by it.
fn declared<'l>(line: &'l str, keyword: &str) -> Option<&'l str> {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub")
            || word.ends_with(')')
            || ["async", "const", "unsafe"].contains(word)
    });
    let name = (words.next()? == keyword).then(|| words.next())??;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// What is declared by a keyword over several lines: its name, and the lines up to its bracket, as rustfmt sets it.
fn declarations<'t>(text: &'t str, keyword: &str) -> Vec<(&'t str, Vec<&'t str>)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = declared(line, keyword).filter(|_| !line.ends_with([';', '}'])) else {
            continue;
        };
        let end = format!("{}}}", indent_of(line));
        if let Some(length) = lines[at..].iter().position(|line| *line == end) {
            found.push((name, lines[at..=at + length].to_vec()));
        }
    }
    found
}

fn fields_of(declaration: &[&str]) -> usize {
    let indent = format!("{}    ", indent_of(declaration[0]));
    let is_field = |line: &&&str| {
        let field = line.strip_prefix(&indent[..]).filter(|it| !it.starts_with([' ', '#']));
        field.is_some_and(|field| field.contains(": "))
    };
    declaration.iter().skip(1).filter(is_field).count()
}

/// What is found in the files of each crate.
fn in_all_crates<T>(find: impl Fn(&BTreeMap<String, String>) -> Vec<T>) -> Vec<(&'static str, T)> {
    let mut found = Vec::new();
    for name in CRATES {
        let files = modules_of(&format!("{name}/src"));
        assert!(files.contains_key(""), "{name} has a root");
        found.extend(find(&files).into_iter().map(|it| (name, it)));
    }
    found
}

/// Declarations in all crates that are larger than `max`, as `crate: file::name`, and how large they are.
fn large(keyword: &str, size: impl Fn(&[&str]) -> usize, max: usize) -> Vec<(String, usize)> {
    let found = in_all_crates(|files| {
        let mut large = Vec::new();
        for (file, text) in files {
            let all = declarations(text, keyword).into_iter();
            let all = all.map(|(name, lines)| (format!("{file}::{name}"), size(&lines)));
            large.extend(all.filter(|(_, size)| *size > max));
        }
        large
    });
    found.into_iter().map(|(of, (name, size))| (format!("{of}: {name}"), size)).collect()
}

/// What is wrong with these: those that are new or have grown, and those of the list that are no more.
fn faults_of_sizes(found: &[(String, usize)], known: &[(&str, usize)]) -> Vec<String> {
    let allowed = |name: &str| known.iter().find(|it| it.0 == name).map_or(0, |it| it.1);
    let grown = found.iter().filter(|(name, size)| *size > allowed(name));
    let grown = grown.map(|(name, size)| format!("{name} has {size}"));
    let is_there = |name: &str| found.iter().any(|it| it.0 == name);
    let gone = known.iter().filter(|(name, _)| !is_there(name));
    grown.chain(gone.map(|(name, _)| format!("{name} is no more: it leaves the list"))).collect()
}

/// The same of circles.
fn faults_of_circles(found: &[String], known: &[&str]) -> Vec<String> {
    let is_part = |part: &str, whole: &str| {
        let (of, files) = part.split_once(": ").expect("a crate and its files");
        let whole = whole.split_once(": ").filter(|whole| whole.0 == of);
        whole.is_some_and(|(_, whole)| files.split(' ').all(|it| whole.split(' ').any(|w| w == it)))
    };
    let new = found.iter().filter(|it| !known.iter().any(|whole| is_part(it, whole)));
    let gone = known.iter().filter(|whole| !found.iter().any(|it| is_part(it, whole)));
    let gone = gone.map(|it| format!("{it}: is no more, and leaves the list"));
    new.cloned().chain(gone).collect()
}

#[test]
fn files_import_each_other_in_no_circles() {
    let found = in_all_crates(circles);
    let found = found.into_iter().map(|(of, circle)| format!("{of}: {}", circle.join(" ")));
    let faults = faults_of_circles(&found.collect::<Vec<_>>(), CIRCLES);
    assert!(faults.is_empty(), "one of them should not know the others:\n{}", faults.join("\n"));

    // And what it should find, it finds.
    let file = |name: &str, text: &str| (name.to_owned(), without_tests(text));
    let files = |texts: &[(&str, &str)]| -> BTreeMap<String, String> {
        texts.iter().map(|(name, text)| file(name, text)).collect()
    };
    let round = files(&[
        ("", "use a::A;\nmod a;\nmod b;\n"),
        ("a", "use std::fmt;\nuse crate::{\n    b::{self, B as Other},\n    c,\n};\nmod d;\n"),
        ("a::d", "fn f() {\n    pub(super) use super::super::c::C;\n}\n"),
        ("b", "pub use crate::a::d::D;\n"),
        ("c", "// use crate::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n"),
    ]);
    assert!(circles(&round).is_empty(), "{:?}", circles(&round));
    let mut round = round;
    round.insert("c".into(), "use crate::b::B;\n".into());
    assert_eq!(circles(&round), [["a::d", "b", "c"]]);
    let found = ["x: b c".to_owned()];
    assert!(faults_of_circles(&found, &["x: a b c"]).is_empty(), "it has shrunk");
    for known in [&[][..], &["y: b c"], &["x: a b"], &["x: b c", "x: d e"]] {
        assert!(!faults_of_circles(&found, known).is_empty(), "{known:?}");
    }
}

#[test]
fn no_struct_has_too_many_fields() {
    let found = large("struct", fields_of, FIELDS_MAX);
    let faults = faults_of_sizes(&found, WIDE_STRUCTS);
    assert!(faults.is_empty(), "which fields change together?\n{}", faults.join("\n"));

    let text = "    pub(crate) struct Wide<T> {\n        /// A: b.\n        #[serde(a: b)]\n        pub a: T,\n        b: u8,\n    }\n";
    let text = without_tests(text);
    let wide = declarations(&text, "struct");
    assert_eq!((wide.len(), wide[0].0, fields_of(&wide[0].1)), (1, "Wide", 2));
}

#[test]
fn no_function_has_too_many_lines() {
    let found = large("fn", |lines| lines.len(), FUNCTION_LINES_MAX);
    let faults = faults_of_sizes(&found, LONG_FUNCTIONS);
    assert!(faults.is_empty(), "without comments:\n{}", faults.join("\n"));

    let body = "    a();\n".repeat(3);
    let text = format!("pub async fn long(\n    a: A,\n) {{\n{body}}}\nfn short() {{}}\n");
    let long = declarations(&text, "fn");
    assert_eq!((long.len(), long[0].0, long[0].1.len()), (1, "long", 7));
    let found = [("x: long".to_owned(), 7)];
    for (known, is_fine) in
        [(("x: long", 7), true), (("x: long", 6), false), (("y: long", 7), false)]
    {
        assert_eq!(faults_of_sizes(&found, &[known]).is_empty(), is_fine, "{known:?}");
    }
}
