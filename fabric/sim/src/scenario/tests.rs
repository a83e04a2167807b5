use super::*;
use std::path::Path;

#[test]
fn every_scenario_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(files.len() >= 14, "scenarios are missing: {files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        match play(&text) {
            Ok(result) if result == text => {}
            Ok(result) if rewrites() => std::fs::write(&file, result).unwrap(),
            Ok(result) => wrong.push(format!("{name}, {}", difference(&text, &result))),
            Err(error) => wrong.push(format!("{name}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "WEFT_REWRITE=1 writes new traces down\n{}", wrong.join("\n"));
}

#[test]
fn nonsense_names_its_line() {
    for (text, line) in [("nodes 2\nfly\n", 2), ("run 5s\n", 1), ("nodes many\n", 1)] {
        let error = format!("{:#}", play(text).unwrap_err());
        assert!(error.starts_with(&format!("line {line}: ")), "{error}");
    }
}

#[test]
fn an_expectation_that_does_not_hold_is_an_error() {
    let error = play("nodes 2\nrun 5s\nexpect web running=1\n").unwrap_err();
    assert!(format!("{error:#}").contains("not running=1"), "{error:#}");
}
