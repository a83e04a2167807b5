//! The program itself, at the other end of a socket.

use fabric::api::{Hardware, Problem, ProblemKind, TraceWhat};
use helper::order::{Frame, HEAD_BYTES, Order, Subject, Tried, Verb};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The program, and the socket that orders it.
struct Helper {
    socket: UnixStream,
    child: Child,
}

impl Helper {
    fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_weft-helper"))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { socket, child }
    }

    fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; HEAD_BYTES];
        self.socket.read_exact(&mut head).ok()?;
        let mut body = vec![0; Frame::length(head).unwrap()];
        self.socket.read_exact(&mut body).ok()?;
        Some(Frame::decode(head[0], body).unwrap())
    }

    /// All pieces of the answer; or why there is none.
    fn pieces(&mut self) -> Result<Vec<Vec<u8>>, Problem> {
        let mut pieces = Vec::new();
        loop {
            match self.frame().expect("an end") {
                Frame::Piece(piece) => pieces.push(piece),
                Frame::End => return Ok(pieces),
                Frame::Refused(problem) => return Err(problem),
            }
        }
    }

    fn order(verb: Verb) -> Self {
        let mut helper = Self::start();
        helper.socket.write_all(&Order::new(verb).encode()).unwrap();
        helper
    }

    fn ended(mut self) -> (Option<i32>, String) {
        drop(self.socket);
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

#[test]
fn the_machine_is_listed_with_no_rights_at_all() {
    let mut helper = Helper::order(Verb::Hardware);
    let pieces = helper.pieces().expect("a list");
    let hardware: Hardware = serde_json::from_slice(&pieces[0]).unwrap();
    assert!(hardware.processor.is_some(), "{hardware:?}");
    assert_eq!(helper.ended(), (Some(0), String::new()));
}

/// Without the kernel's leave each says why; nothing is refused because its filter is too narrow.
#[test]
fn every_trace_is_tried() {
    let mut helper = Helper::order(Verb::TryTraces);
    let pieces = helper.pieces().expect("an answer");
    let tried: Tried = serde_json::from_slice(&pieces[0]).unwrap();
    assert_eq!(tried.len(), 6);
    for (what, outcome) in &tried {
        println!("{}: {outcome:?}", what.name());
        if std::env::var("WEFT_MUST").as_deref() == Ok("ebpf") {
            assert_eq!(*outcome, Ok(()), "{}", what.name());
        }
    }
    assert_eq!(helper.ended().0, Some(0));
}

#[test]
fn it_keeps_the_capabilities_of_its_verb_and_may_become_no_other_program() {
    // A trace of a cgroup that is nobody's goes on for a minute: there is time to look at it.
    let subject = Subject {
        node: "here".into(),
        what: TraceWhat::Exec,
        time: Duration::from_secs(60),
        cgroups: BTreeMap::from([(u64::MAX, "web/0".into())]),
    };
    let wanted = Verb::Trace(subject.clone()).rights().capabilities.bits();
    let mut helper = Helper::order(Verb::Trace(subject));
    match helper.frame().expect("a beginning") {
        Frame::Piece(piece) => {
            let text = String::from_utf8(piece).unwrap();
            assert!(text.contains("started") && text.contains("web/0"), "{text}");
        }
        Frame::Refused(problem) => {
            assert_eq!(problem.kind, ProblemKind::Unavailable, "{problem}");
            eprintln!("skipped: {problem}");
            assert!(std::env::var("WEFT_MUST").as_deref() != Ok("ebpf"), "{problem}");
            return;
        }
        Frame::End => panic!("it ends before it begins"),
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", helper.child.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().to_owned()
    };
    let bits = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
    assert!(bits & !wanted == 0, "{bits:x} is more than {wanted:x}");
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()));
    // Whoever asked goes, and it with him, long before its minute is over.
    let (status, said) = helper.ended();
    assert_eq!((status, said.as_str()), (Some(0), ""));
}

#[test]
fn who_gives_no_order_is_told_so() {
    let without = Command::new(env!("CARGO_BIN_EXE_weft-helper")).stdin(Stdio::null()).output();
    let without = without.unwrap();
    assert_eq!(without.status.code(), Some(2));
    let said = String::from_utf8(without.stderr).unwrap();
    assert!(said.contains("standard input is no socket") && said.contains("--help"), "{said}");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"o\xff\xff\xff\xff{}", b"o\x02\0\0\0{]", b""] {
        let mut helper = Helper::start();
        helper.socket.write_all(bytes).unwrap();
        let (status, said) = helper.ended();
        assert_eq!(status, Some(2), "{bytes:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn an_agent_of_another_version_is_told_what_to_do() {
    let mut helper = Helper::start();
    let body = br#"{"level":99,"verb":"hardware"}"#;
    let mut order = vec![b'o'];
    order.extend((body.len() as u32).to_le_bytes());
    order.extend(body);
    helper.socket.write_all(&order).unwrap();
    let problem = helper.pieces().expect_err("of another level");
    assert!(problem.detail.contains("restart weftd"), "{problem}");
}
