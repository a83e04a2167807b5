use super::*;
use std::path::PathBuf;

const LIMIT: Duration = Duration::from_secs(60);

struct Desk(PathBuf);

impl Desk {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weft-power-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("there is room");
        Self(folder)
    }

    fn switch(&self, words: &[&str], limit: Duration) -> Result<()> {
        let words = words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let words = Words::try_from(words).expect("a program");
        switch(&words, &self.0, &self.0.join("log"), limit)
    }

    fn fails(&self, words: &[&str], limit: Duration) -> String {
        format!("{:#}", self.switch(words, limit).expect_err("it fails"))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_command_that_fails_is_quoted() {
    let desk = Desk::new("fails");
    desk.switch(&["sh", "-c", "echo all is well"], LIMIT).expect("it succeeds");
    let said = desk.fails(&["sh", "-c", "echo no relay there >&2; echo sorry; exit 3"], LIMIT);
    assert!(said.contains("exit status: 3: it said \"no relay there | sorry\""), "{said}");
    assert!(said.contains("try it by hand in "), "{said}");
    assert!(!said.contains("all is well"), "what another one said: {said}");
    let said = desk.fails(&["false"], LIMIT);
    assert!(said.contains("`false`: exit status: 1: it said nothing"), "{said}");
    let said = desk.fails(&["weft-no-such-relay", "on"], LIMIT);
    assert!(said.contains("`weft-no-such-relay on` cannot be started: is it installed"), "{said}");
    assert!(said.contains("No such file"), "{said}");
    let said = desk.fails(&["sh", "-c", "kill -9 $$"], LIMIT);
    assert!(said.contains("signal: 9"), "{said}");
}

#[test]
fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let desk = Desk::new("hangs");
    let started = Instant::now();
    let script = "sleep 1000 & echo $! >child; echo waiting for the hub >&2; wait";
    let said = desk.fails(&["sh", "-c", script], Duration::from_secs(2));
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    assert!(said.contains("has not ended within 2 s: it said \"waiting for the hub\""), "{said}");
    let child = fs::read_to_string(desk.0.join("child")).expect("it runs in the lab's folder");
    let stat = format!("/proc/{}/stat", child.trim());
    // It is nobody's child now, and whoever adopts it may take a moment to see that it has ended.
    let gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    while !gone() {
        assert!(started.elapsed() < LIMIT, "it still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_command_that_leaves_somebody_behind_is_not_waited_for() {
    let desk = Desk::new("leaves");
    let started = Instant::now();
    desk.switch(&["sh", "-c", "sleep 5 & echo done"], LIMIT).expect("it succeeds");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_program_with_a_slash_lies_beside_the_lab() {
    let desk = Desk::new("beside");
    std::os::unix::fs::symlink("/bin/true", desk.0.join("relay")).expect("ours");
    desk.switch(&["./relay", "on"], LIMIT).expect("it succeeds");
}
