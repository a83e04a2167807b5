use super::*;
use crate::outlet::Cable;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A board that is a thread: while its switch is on, which is a file, it shows a screen on its cable.
fn run(folder: &Path, name: &str, ended: &AtomicBool, screen: impl Fn(u32) -> String) {
    let mut cable = Cable::new(&folder.join(format!("{name}.tty"))).expect("there are terminals");
    let (mut starts, mut is_on) = (0, false);
    while !ended.load(Ordering::Relaxed) {
        let now = folder.join(format!("{name}.on")).exists();
        if now && !is_on {
            starts += 1;
            cable.send(b"Booting\r\n");
            cable.send(screen(starts).as_bytes());
        }
        is_on = now;
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn screen(name: &str, key: u32, fabric: &str) -> String {
    format!(
        "\x1b[?25l\x1b[Hweft 0.1.0  weft-{name}\x1b[K\r\n\r\nnode          weft-{name}\x1b[K\r\n\
         fingerprint   3f3f-3f3f-3f3f-3f3f-{key:04}\x1b[K\r\naddresses     192.0.2.7:7400\r\n\r\n\
         fabric        {fabric}\x1b[K\r\n\x1b[J"
    )
}

fn entry(name: &str, more: &str) -> String {
    format!(
        "[board.{name}]\narch = \"aarch64\"\nserial = \"{name}.tty\"\nsettle = 1\n{more}\n\
         [board.{name}.power]\non = [\"touch\", \"{name}.on\"]\noff = [\"rm\", \"-f\", \"{name}.on\"]\n"
    )
}

const WAITS: &str = "waiting to be approved: on a member run";
const MEMBER: &str = "home\r\n              key abab-abab-abab-abab-abab\r\nnodes         3 alive";

#[test]
fn who_fails_is_told_and_the_others_are_told_of() {
    let folder = std::env::temp_dir().join(format!("weft-boards-{}", std::process::id()));
    let bench = Bench::in_folder(&folder).expect("there is room");
    let ended = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        for (name, screens) in [
            // A member before and after.
            ("good", Box::new(|_| screen("good", 1, MEMBER)) as Box<dyn Fn(u32) -> String + Send>),
            // One whose card forgets, and one that may.
            ("forgets", Box::new(|start| screen("forgets", start, WAITS))),
            ("netboots", Box::new(|start| screen("netboots", start, WAITS))),
            // Found another fabric after its power was cut.
            (
                "strays",
                Box::new(|start| {
                    screen(
                        "strays",
                        1,
                        &MEMBER
                            .replace("abab-abab", ["", "0000-0000", "1111-1111"][start as usize]),
                    )
                }),
            ),
            ("lost", Box::new(|_| screen("lost", 1, "none yet: weft init, or weft join TOKEN"))),
            ("stuck", Box::new(|_| String::new())),
        ] {
            let (folder, ended) = (&folder, &ended);
            scope.spawn(move || run(folder, name, ended, screens));
        }
        let text = [
            entry("good", ""),
            entry("forgets", ""),
            entry("netboots", "starts_from = \"network\""),
            entry("strays", ""),
            entry("lost", "up_within = 8"),
            entry("stuck", "").replace("\"touch\"", "\"false\""),
        ];
        fs::write(folder.join("lab.toml"), text.concat()).expect("ours");
        let lab = Lab::read(&folder.join("lab.toml")).expect("it is good");
        let said = of_boards(&bench, &lab, None);
        ended.store(true, Ordering::Relaxed);
        format!("{:#}", said.expect_err("four of them fail"))
    });
    assert!(said.starts_with("4 of 6 boards: "), "{said}");
    for wanted in [
        "forgets: it was weft-forgets, fingerprint 3f3f-3f3f-3f3f-3f3f-0001",
        "came back as weft-forgets, fingerprint 3f3f-3f3f-3f3f-3f3f-0002",
        "strays: it came back into another fabric: weft-strays",
        "lost: not within 8 s: it has found its place; it shows Screen",
        "stuck: `false stuck.on`: exit status: 1",
    ] {
        assert!(said.contains(wanted), "{said} does not say {wanted}");
    }
    for fine in ["good: ", "netboots: "] {
        assert!(!said.contains(fine), "{said}");
    }
    assert!(folder.join("good.on").exists(), "boards keep their power");
    bench.clear();
}
