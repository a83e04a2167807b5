use std::path::Path;

/// Begins a job's file in the source of a story.
const BEGINS: &str = "r#\"name = ";

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("our sources") {
        let path = entry.expect("our sources").path();
        if path.is_dir() {
            sources(&path, found);
        } else if !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).expect("our sources");
            found.push((path.display().to_string(), text));
        }
    }
}

/// Most stories take minutes, and are told now and then: a job that weft no longer takes is noticed here.
#[test]
fn the_jobs_of_all_stories_are_valid() {
    let mut found = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut found);
    let mut jobs = 0;
    for (path, text) in &found {
        for after in text.split(BEGINS).skip(1) {
            let (job, _) = after.split_once("\"#").expect("it ends");
            let job = format!("name = {job}")
                .replace("{job}", "job")
                .replace("{does}", "")
                .replace("{wants}", "serial");
            if let Err(error) = fabric::job::parse(&job) {
                panic!("{path}: {error}\n{job}");
            }
            jobs += 1;
        }
    }
    assert!(jobs >= 12, "{jobs} of them were found");
}
