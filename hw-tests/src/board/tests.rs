use super::*;
use crate::screen::Standing;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;

const SCREEN: &str = "\x1b[?25l\x1b[Hweft 0.1.0  weft-1d2e3f\x1b[K\r\nnode          weft-1d2e3f\r\n\
                      fingerprint   3f3f-3f3f-3f3f-3f3f-3f3f\r\n\
                      fabric        waiting to be approved: on a member run\r\n\x1b[J";

struct Desk {
    bench: Bench,
    lab: Lab,
}

impl Desk {
    /// A lab of one board, whose commands write down that they ran, and which has these keys more.
    fn new(test: &str, more: &str, power: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weft-board-{test}-{}", std::process::id()));
        let bench = Bench::in_folder(&folder).expect("there is room");
        let file = bench.path("lab.toml");
        let text = format!(
            "[board.birch]\narch = \"aarch64\"\nserial = \"port\"\nsettle = 1\n{more}\n\
             [board.birch.power]\n\
             on = [\"sh\", \"-c\", \"echo on >>switched\"]\n\
             off = [\"sh\", \"-c\", \"echo off >>switched\"]\n{power}\n"
        );
        fs::write(&file, text).expect("ours");
        Self { lab: Lab::read(&file).expect("it is good"), bench }
    }

    fn board(&self) -> Board {
        let (name, spec) = self.lab.boards.first_key_value().expect("there is one");
        Board::new(&self.lab, name, spec, &self.bench).expect("there is room")
    }

    fn switched(&self) -> String {
        fs::read_to_string(self.bench.path("switched")).unwrap_or_default()
    }

    fn says_at_last(&self, board: &Board) -> String {
        let late = |error: anyhow::Error| format!("{error:#}");
        board.look("it is up", Screen::is_settled).map_or_else(late, |shown| format!("{shown:?}"))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.bench.clear();
    }
}

#[test]
fn what_was_shown_before_a_power_cut_does_not_count_after_it() {
    let desk = Desk::new("cut", "", "");
    let port = UnixListener::bind(desk.bench.path("port")).expect("a free name");
    let mut board = desk.board();
    assert_eq!(desk.switched(), "", "nothing is switched before it is wanted");
    let (mut wire, _) = port.accept().expect("it is followed");
    wire.write_all(SCREEN.as_bytes()).expect("it is read");
    while board.console.heard().expect("ours") < SCREEN.len() as u64 {
        std::thread::sleep(Duration::from_millis(10));
    }
    board.switch_on().expect("its commands succeed");
    assert_eq!(desk.switched(), "off\non\n");
    assert_eq!(board.look("it is up", Screen::is_settled).expect("not late"), None);
    wire.write_all(SCREEN.as_bytes()).expect("it is read");
    let shown = board.wait("it is up", Screen::is_settled).expect("not late");
    assert_eq!((&shown.node[..], shown.standing), ("weft-1d2e3f", Standing::Waiting));
    board.cut_power().expect("its commands succeed");
    assert_eq!(desk.switched(), "off\non\noff\non\n");
    assert_eq!(board.look("it is up", Screen::is_settled).expect("not late"), None);
}

#[test]
fn a_switch_that_can_cycle_is_left_to_do_it() {
    let cycle = "cycle = [\"sh\", \"-c\", \"echo cycled >>switched\"]";
    let desk = Desk::new("cycle", "", cycle);
    let mut board = desk.board();
    board.switch_on().expect("its commands succeed");
    board.cut_power().expect("its command succeeds");
    assert_eq!(desk.switched(), "off\non\ncycled\n");
}

#[test]
fn a_switch_that_fails_names_its_board_and_gives_no_power() {
    let mut desk = Desk::new("fails", "", "");
    let text = fs::read_to_string(&desk.lab.file).expect("ours");
    let broken = text.replace("echo off >>switched", "echo no such relay >&2; exit 1");
    fs::write(&desk.lab.file, broken).expect("ours");
    desk.lab = Lab::read(&desk.lab.file).expect("it is good");
    let said = format!("{:#}", desk.board().switch_on().expect_err("it cannot"));
    assert!(said.starts_with("birch: `sh -c "), "{said}");
    assert!(said.contains("it said \"no such relay\""), "{said}");
    assert_eq!(desk.switched(), "", "it must not be switched on");
}

/// What comes, and what is said of it when the time is over.
#[test]
fn who_is_late_is_told_what_to_look_at() {
    let garbage: Vec<u8> = (0..400).map(|at| (at * 37 % 256) as u8 | 0x80).collect();
    let no_network = SCREEN.replace("fabric", "network       none: no cable\r\nfabric");
    let rows: [(&[u8], &str); 4] = [
        (b"", "nothing came from its serial port"),
        (&garbage, "no text: is that its baud rate?"),
        (
            b"\r\nU-Boot 2024.01\r\nNo bootable device\r\n=> ",
            "U-Boot 2024.01 | No bootable device | =>",
        ),
        (no_network.as_bytes(), "has_network: false"),
    ];
    for (said, wanted) in rows {
        let desk = Desk::new("late", "up_within = 100", "");
        let port = UnixListener::bind(desk.bench.path("port")).expect("a free name");
        let mut board = desk.board();
        let (mut wire, _) = port.accept().expect("it is followed");
        board.switch_on().expect("its commands succeed");
        wire.write_all(said).expect("it is read");
        while board.console.heard().expect("ours") < said.len() as u64 {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(desk.says_at_last(&board), "None", "there is time");
        board.powered.1 -= Duration::from_secs(101);
        let told = desk.says_at_last(&board);
        assert!(told.starts_with("birch: not within 100 s: it is up; "), "{told}");
        assert!(told.contains(wanted), "{told} does not say {wanted}");
    }
}

#[test]
fn a_port_that_is_not_there_is_told_before_the_board_is_late() {
    for (more, within) in [("", PORT_WITHIN), ("up_within = 30", Duration::from_secs(30))] {
        let desk = Desk::new("port", more, "");
        let mut board = desk.board();
        board.switch_on().expect("its commands succeed");
        assert_eq!(desk.says_at_last(&board), "None", "it may be powered by the board");
        board.powered.1 -= within + Duration::from_secs(1);
        let told = desk.says_at_last(&board);
        assert!(told.starts_with("birch: serial port port: No such file"), "{told}");
        assert!(told.contains("ls -l /dev/serial/by-id"), "{told}");
    }
}
