use super::*;

/// As `weft console` draws it, with the paint that it may have, through a terminal that ends lines in its own way.
fn drawn(lines: &str) -> String {
    let lines: Vec<String> =
        lines.lines().map(|line| format!("\x1b[32m{line}\x1b[0m\x1b[K")).collect();
    format!("\x1b[?25l\x1b[H{}\x1b[J", lines.join("\r\r\n"))
}

const WAITS: &str = "\
weft 0.1.0                                                           weft-1d2e3f

node          weft-1d2e3f
fingerprint   3f3f-3f3f-3f3f-3f3f-3f3f
addresses     192.0.2.7:7400
              [2001:db8::7]:7400

fabric        waiting to be approved: on a member run
              weft node approve weft-1d2e3f
              after comparing the fingerprint above with what that asks

! credential weft.token: it is empty, and this sentence is too long for
  one line
";

const MEMBER: &str = "\
weft 0.1.0                                                           weft-1d2e3f

node          weft-1d2e3f
fingerprint   3f3f-3f3f-3f3f-3f3f-3f3f
addresses     192.0.2.7:7400

fabric        home
              key abab-abab-abab-abab-abab
nodes         3 alive, 1 dead
jobs          2: 5 of 5 slots healthy

state         1 node is dead
";

const DOWN: &str = "\
weft                                                                 weft-1d2e3f

node          weft-1d2e3f

agent         does not answer
              It may be starting. If this stays: systemctl status weftd
! the agent at /run/weft/weft.sock cannot be reached
";

fn last(heard: &str) -> Option<Screen> {
    Screen::last(heard.as_bytes())
}

#[test]
fn a_node_that_waits() {
    let screen = last(&drawn(WAITS)).expect("it is whole");
    assert_eq!(screen.node, "weft-1d2e3f");
    assert_eq!(screen.fingerprint, "3f3f-3f3f-3f3f-3f3f-3f3f");
    assert_eq!(screen.addresses, ["192.0.2.7:7400", "[2001:db8::7]:7400"]);
    assert_eq!(screen.standing, Standing::Waiting);
    let warning = "credential weft.token: it is empty, and this sentence is too long for one line";
    assert_eq!(screen.says, [warning]);
    assert!(screen.is_settled());
    let network = "network       none: no cable, or no address yet";
    let alone = WAITS.replace("addresses     192.0.2.7:7400\n", &format!("{network}\n"));
    assert!(!last(&drawn(&alone)).expect("it is whole").is_settled());
}

#[test]
fn a_member() {
    let screen = last(&drawn(MEMBER)).expect("it is whole");
    let key = "abab-abab-abab-abab-abab".into();
    assert_eq!(screen.standing, Standing::Member { fabric: "home".into(), key, alive: 3 });
    assert_eq!(screen.says, ["1 node is dead"]);
    assert!(screen.is_settled());
    // A fabric may be called anything.
    let odd = MEMBER.replace("home", "waiting to be approved");
    assert!(matches!(last(&drawn(&odd)).expect("whole").standing, Standing::Member { .. }));
}

#[test]
fn a_node_on_its_way_is_nowhere_yet() {
    let joins = "none yet: joining with the token that it was given";
    let text = MEMBER.split("fabric").next().expect("the lines above").to_owned();
    let screen = last(&drawn(&format!("{text}fabric        {joins}\n"))).expect("it is whole");
    assert_eq!(screen.standing, Standing::Nowhere(joins.into()));
    assert!(!screen.is_settled());
}

#[test]
fn the_last_that_is_whole_counts() {
    let (waits, member, down) = (drawn(WAITS), drawn(MEMBER), drawn(DOWN));
    let boot = "\x1b[2J\x1b[H\x1b[01;01HBdsDxe: starting Boot0001\r\n\x1b[0;32m  OK  \x1b[0m\r\n";
    assert_eq!(last(&format!("{boot}{down}{waits}{member}")), last(&member));
    assert_eq!(last(&format!("{member}{}", &waits[..waits.len() - 3])), last(&member));
    // An agent that has gone meanwhile.
    assert_eq!(last(&format!("{member}{down}")), None);
    assert_eq!(last(boot), None);
    assert_eq!(last(""), None);
    // The kernel wrote into a line of it, or between two.
    for (from, to) in [
        ("3f3f-3f3f\x1b", "3f3f-3[   17.4] usb 1-1: new device\x1b"),
        ("home\x1b[0m\x1b[K\r\r\n", "home\x1b[0m\x1b[K\r\r\n[   17.4] usb 1-1: new device\r\n"),
        ("3 alive", "[   17.4] usb"),
    ] {
        let spoilt = member.replacen(from, to, 1);
        assert_ne!(spoilt, member);
        assert_eq!(last(&format!("{waits}{spoilt}")), last(&waits), "{spoilt}");
    }
}

#[test]
fn bytes_of_any_kind_are_read_to_their_end() {
    let member = drawn(MEMBER).into_bytes();
    for (at, byte) in (0..member.len()).flat_map(|at| [0, 0x1b, b'[', 0xff].map(|byte| (at, byte)))
    {
        let mut spoilt = member.clone();
        spoilt[at] = byte;
        let _read = Screen::last(&spoilt);
        let _cut = Screen::last(&spoilt[at..]);
    }
    assert_eq!(without_escapes("a\x1b[1;31mb\x1b[Kc\x1b["), "abc");
}
