use super::*;
use fabric::job::JobSpec;

fn version(version: u64, in_force: bool, count: u32) -> JobVersion {
    let mut spec = JobSpec::service(JobName::new("web").unwrap(), vec!["/bin/web".into()]);
    spec.count = count;
    JobVersion { version, in_force, spec }
}

#[track_caller]
fn chosen(versions: &[JobVersion], to: Option<u64>) -> Result<u64, String> {
    let job = JobName::new("web").unwrap();
    match choose(&job, versions, to) {
        Ok(version) => Ok(version.version),
        Err(Failure::Said(exit, text)) => Err(format!("{} {text}", exit as u8)),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn the_version_before_the_one_in_force_is_chosen_and_what_is_not_known_is_refused() {
    let both = [version(5, true, 1), version(3, false, 2)];
    assert_eq!(chosen(&both, None), Ok(3));
    assert_eq!(chosen(&both, Some(3)), Ok(3));
    let failed = [version(5, false, 1), version(4, true, 2)];
    assert_eq!(chosen(&failed, Some(5)), Ok(5), "what was taken back can be tried again");
    let restarted = [version(5, true, 1), version(4, false, 1)];
    for (versions, to, said) in [
        (
            &both[..],
            Some(4),
            "4 web: version 4 is not known any more, or never was: version 5 is in force, and besides it, version 3 is known",
        ),
        (&both, Some(5), "1 web: version 5 is in force already; besides it, version 3 is known"),
        (
            &both[..1],
            None,
            "1 web has nothing to go back to: version 5 is in force, and no version before it was ever healthy",
        ),
        (
            &both[..1],
            Some(4),
            "4 web: version 4 is not known any more, or never was: version 5 is in force, and no other is known",
        ),
        (
            &failed,
            None,
            "1 web has nothing to go back to: version 4 is in force, and version 5 failed and was taken back already",
        ),
        (&restarted, None, "1 web: version 4 says the same as version 5"),
        (&[], None, "1 web: no version is in force"),
    ] {
        let refusal = chosen(versions, to).unwrap_err();
        assert!(refusal.starts_with(said), "{refusal}");
    }
}
