//! Against sockets of this very process, which is no unit.

use super::*;
use std::net::{TcpListener, TcpStream, UdpSocket};

fn stretch(first: u16, last: u16, by: &str) -> PortsUsed {
    PortsUsed { first, last, by: by.into() }
}

/// Nobody has a unit there.
fn on_its_own() -> Listeners {
    Listeners::new(Some(PathBuf::from("/no/such/folder")))
}

#[test]
fn a_stranger_is_named_and_is_in_the_way_where_tasks_listen() {
    let listeners = on_its_own();
    let usual = TcpListener::bind("127.0.0.1:0").unwrap();
    let aside = TcpListener::bind("127.0.0.53:0").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let ports = [usual.local_addr(), aside.local_addr(), udp.local_addr()];
    let ports = ports.map(|address| address.unwrap().port());
    let [usual_port, aside_port, udp_port] = ports;
    // By number, and by itself.
    let all = Wanted { dynamic: 1..=u16::MAX, fixed: BTreeSet::new() };
    let strangers = listeners.strangers(&all).unwrap();
    for port in ports {
        let by = strangers.get(&port).unwrap_or_else(|| panic!("{port}: {strangers:?}"));
        assert!(by.ends_with(&format!(" (pid {})", std::process::id())), "{by}");
    }
    let claim = |port| BTreeMap::from([("http".to_owned(), port)]);
    let taken = listeners.in_the_way(&claim(usual_port)).expect("somebody is there");
    assert_eq!(taken.0, usual_port);
    assert_eq!(listeners.in_the_way(&claim(aside_port)), None);
    assert_eq!(listeners.in_the_way(&claim(udp_port)), None);
    drop(usual);
    assert_eq!(listeners.in_the_way(&claim(usual_port)), None, "it is gone");
}

#[test]
fn ports_of_one_program_are_told_together() {
    let ports = [
        (9090, "nginx (pid 812)"),
        (20_001, "dns (pid 4)"),
        (20_002, "dns (pid 4)"),
        (20_003, "a (pid 5)"),
    ];
    let strangers = ports.map(|(port, by)| (port, by.to_owned())).into();
    assert_eq!(
        used(strangers, &(20_000..=20_099)),
        [
            stretch(9090, 9090, "nginx (pid 812)"),
            stretch(20_001, 20_002, "dns (pid 4)"),
            stretch(20_003, 20_003, "a (pid 5)"),
        ]
    );
    let everything = (1..=u16::MAX).map(|port| (port, "one".to_owned())).collect();
    assert_eq!(used(everything, &(1..=u16::MAX)), [stretch(1, u16::MAX, "one")]);
}

#[test]
fn what_is_told_is_bounded_and_never_says_less_than_there_is_of_dynamic_ports() {
    // Every other port of a large range, and a gap.
    let ports = (20_000..30_000).step_by(2).filter(|port| !(25_000..26_000).contains(port));
    let strangers: BTreeMap<u16, String> =
        ports.map(|port| (port, format!("program-{port}"))).collect();
    let told = used(strangers.clone(), &(20_000..=29_999));
    assert!(told.len() <= limits::PORTS_USED_MAX, "{}", told.len());
    let is_told = |port: u16| told.iter().any(|one| (one.first..=one.last).contains(&port));
    assert!(strangers.keys().all(|port| is_told(*port)));
    assert!((25_000..26_000).all(|port| !is_told(port)), "the largest gap stays");
    assert!(told.iter().any(|one| one.by == SEVERAL));
}

#[test]
fn a_connection_leads_to_whoever_is_bound_closest() {
    let here: IpAddr = "127.0.0.1".parse().unwrap();
    let six: IpAddr = "::1".parse().unwrap();
    let at = |address: &str, inode, only_ipv6| Listener {
        is_udp: false,
        address: address.parse().unwrap(),
        port: 80,
        inode,
        cgroup: None,
        only_ipv6,
    };
    let all = || {
        vec![
            at("0.0.0.0", 1, false),
            at("127.0.0.1", 2, false),
            at("::", 3, false),
            at("10.0.0.1", 4, false),
        ]
    };
    let to = |sockets: Vec<Listener>, address| {
        addressed(sockets, address).iter().map(|one| one.inode).collect::<Vec<_>>()
    };
    assert_eq!(to(all(), here), [2]);
    assert_eq!(to(all(), six), [3]);
    assert_eq!(to(vec![at("::", 3, false)], here), [3], "it takes both families");
    assert_eq!(to(vec![at("::", 3, true)], here), [0u64; 0]);
    assert_eq!(to(vec![at("0.0.0.0", 1, false), at("0.0.0.0", 5, false)], here), [1, 5]);
}

#[test]
fn a_connection_to_a_stranger_says_so_and_one_to_the_task_does_not() {
    let listeners = Listeners::new(None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap();
    let stream = TcpStream::connect(peer).unwrap();
    let own = stream.local_addr().unwrap();
    let mut known = None;
    let me = Holder { cgroup: None, pid: std::process::id() };
    assert!(!listeners.leads_straight_to(&me, own, peer), "only cgroups tell that quickly");
    assert_eq!(listeners.leads_to(&me, peer, &mut known), Ok(()));
    assert!(known.is_some(), "so that it need not be looked for again");
    let mut sleeper = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let other = Holder { cgroup: None, pid: sleeper.id() };
    let said = listeners.leads_to(&other, peer, &mut None);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let by = said.unwrap_err();
    assert!(by.ends_with(&format!("(pid {})", std::process::id())), "{by}");
}
