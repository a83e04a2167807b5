use super::*;
use crate::status::Entry;
use fabric::api::Status;
use fabric::id::NodeId;
use std::collections::BTreeMap;

fn agent() -> AgentStatus {
    let fabric = FabricStatus {
        name: "home".into(),
        key: NodeId([0xab; 32]),
        nodes: BTreeMap::from([(NodeState::Alive, 3)]),
        jobs: 2,
        wanted: 5,
        healthy: 5,
        unplaceable: 0,
        fingerprint: "00ff".into(),
        local_health: 0,
        level: 2,
        held_back_by: Vec::new(),
        voters: Default::default(),
        stopped_agents: Vec::new(),
        left_to_them: 0,
        removed: false,
    };
    let status = Status {
        version: "0.1.0".into(),
        node: NodeId([0x3f; 32]),
        name: "weft-1d2e3f".into(),
        fabric: Some(fabric),
        executor: "systemd".into(),
        executor_reason: "it is PID 1".into(),
        addresses: vec!["192.0.2.7:7400".parse().unwrap(), "[2001:db8::7]:7400".parse().unwrap()],
        warnings: Vec::new(),
    };
    let fingerprint = "3f3f-3f3f-3f3f-3f3f-3f3f".into();
    AgentStatus { status, fingerprint, network: true, entry: None }
}

fn waiting(way: Way, trouble: Option<&str>) -> AgentStatus {
    let mut agent = agent();
    agent.status.fabric = None;
    agent.status.warnings = trouble.map(str::to_owned).into_iter().collect();
    agent.entry = Some(Entry { way, trouble: trouble.map(str::to_owned) });
    agent
}

fn shown(view: &View) -> String {
    text(&lines(view, SIZE))
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|(text, _)| format!("{text}\n")).collect()
}

fn of(agent: AgentStatus) -> View {
    View::Agent(Box::new(agent))
}

#[test]
fn a_member_shows_who_it_is_whose_it_is_and_how_it_is() {
    assert_eq!(
        shown(&of(agent())),
        "\
weft 0.1.0                                                           weft-1d2e3f

node          weft-1d2e3f
fingerprint   3f3f-3f3f-3f3f-3f3f-3f3f
addresses     192.0.2.7:7400
              [2001:db8::7]:7400

fabric        home
              key abab-abab-abab-abab-abab
nodes         3 alive
jobs          2: 5 of 5 slots healthy

state         all is well
"
    );
}

#[test]
fn a_node_that_waits_says_what_is_to_be_done() {
    assert_eq!(
        shown(&of(waiting(Way::Approval, Some("credential weft.token: it is empty")))),
        "\
weft 0.1.0                                                           weft-1d2e3f

node          weft-1d2e3f
fingerprint   3f3f-3f3f-3f3f-3f3f-3f3f
addresses     192.0.2.7:7400
              [2001:db8::7]:7400

fabric        waiting to be approved: on a member run
              weft node approve weft-1d2e3f
              after comparing the fingerprint above with what that asks

! credential weft.token: it is empty
"
    );
    assert!(shown(&of(waiting(Way::Token, None))).contains("joining with the token"));
    assert!(shown(&of(waiting(Way::ByHand, None))).contains("weft init, or weft join TOKEN"));
}

/// What is wrong, and what the screen says of it.
#[test]
fn each_trouble_is_shown() {
    type Break = fn(&mut AgentStatus);
    let rows: &[(Break, &str)] = &[
        (|agent| agent.network = false, "network       none: no cable, or no address yet"),
        (
            |agent| {
                let fabric = agent.status.fabric.as_mut().unwrap();
                fabric.nodes.insert(NodeState::Dead, 1);
            },
            "nodes         3 alive, 1 dead\n",
        ),
        (
            |agent| {
                let fabric = agent.status.fabric.as_mut().unwrap();
                (fabric.healthy, fabric.unplaceable) = (3, 1);
            },
            "jobs          2: 3 of 5 slots healthy, 1 without a place\n",
        ),
        (
            |agent| {
                let fabric = agent.status.fabric.as_mut().unwrap();
                (fabric.healthy, fabric.unplaceable) = (3, 0);
            },
            "state         2 slots not healthy",
        ),
        (|agent| agent.status.warnings = vec!["the disk refuses".into()], "! the disk refuses\n"),
    ];
    for (break_it, wanted) in rows {
        let mut agent = agent();
        break_it(&mut agent);
        let shown = shown(&of(agent));
        assert!(shown.contains(wanted), "{wanted} is not in\n{shown}");
    }
    let reason = "the agent at /run/weft/weft.sock cannot be reached".to_owned();
    let down = shown(&View::Down { machine: "weft-1d2e3f".into(), reason });
    assert!(down.contains("agent         does not answer"), "{down}");
    assert!(down.contains("! the agent at /run/weft/weft.sock cannot be reached"), "{down}");
}

#[test]
fn nothing_leaves_the_screen_and_nothing_drives_it() {
    let mut agent = waiting(Way::Approval, Some("\u{1b}[2J\u{7}umläut"));
    agent.status.name = "n".repeat(300);
    agent.status.warnings =
        (0..40).map(|index| format!("{index} {}", "word ".repeat(200))).collect();
    agent.status.warnings.push("x".repeat(1000));
    agent.status.addresses = vec!["192.0.2.7:7400".parse().unwrap(); 40];
    for view in
        [of(agent.clone()), View::Down { machine: "m".repeat(300), reason: "r ".repeat(900) }]
    {
        for size in [SIZE, (40, 10), (20, 5), (1, 1), (0, 0)] {
            let lines = lines(&view, size);
            assert!(lines.len() <= size.1, "{size:?}: {} lines", lines.len());
            for (line, _) in &lines {
                assert!(line.len() <= size.0, "{size:?}: {line:?}");
                assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
            }
        }
    }
    agent.status.warnings.truncate(1);
    agent.entry = None;
    let shown = shown(&of(agent));
    assert!(shown.contains("and 36 more"), "{shown}");
    assert!(shown.contains(" ..."), "{shown}");
}
