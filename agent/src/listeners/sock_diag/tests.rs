//! Against sockets of this very process.

use super::*;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;

fn inode(socket: &impl AsRawFd) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino()
}

fn find(all: &[Listener], port: u16, is_udp: bool) -> Listener {
    let mut found = all.iter().filter(|one| one.port == port && one.is_udp == is_udp);
    let one = *found.next().unwrap_or_else(|| panic!("nobody on {port}: {all:?}"));
    assert_eq!(found.next(), None);
    one
}

#[test]
fn what_listens_is_listed_with_its_address_and_number() {
    let tcp_socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp_socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect(udp_socket.local_addr().unwrap()).unwrap();
    let all = all().unwrap();
    let one = find(&all, tcp_socket.local_addr().unwrap().port(), false);
    assert_eq!((one.address, one.inode), (Ipv4Addr::LOCALHOST.into(), inode(&tcp_socket)));
    let one = find(&all, udp_socket.local_addr().unwrap().port(), true);
    assert_eq!((one.address, one.inode), (Ipv4Addr::UNSPECIFIED.into(), inode(&udp_socket)));
    let port = connected.local_addr().unwrap().port();
    assert!(all.iter().all(|one| one.port != port), "it talks to one peer only");
    if let Ok(six) = TcpListener::bind("[::1]:0") {
        let port = six.local_addr().unwrap().port();
        assert_eq!(find(&tcp(port).unwrap(), port, false).address, Ipv6Addr::LOCALHOST);
    }
}

#[test]
fn both_sources_say_the_same() {
    let tcp_socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp_socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let six = TcpListener::bind("[::1]:0").ok();
    let mut cases = vec![
        (INET, TCP, LISTEN, tcp_socket.local_addr().unwrap().port()),
        (INET, UDP, UNCONNECTED, udp_socket.local_addr().unwrap().port()),
    ];
    cases.extend(six.as_ref().map(|six| (INET6, TCP, LISTEN, six.local_addr().unwrap().port())));
    for (family, protocol, state, port) in cases {
        let read = read_proc(family, protocol, state, port).unwrap();
        assert_eq!(read.len(), 1, "{read:?}");
        match dump_by_netlink(family, protocol, state, port) {
            Ok(told) => {
                let bare = |one: &Listener| Listener { cgroup: None, only_ipv6: false, ..*one };
                assert_eq!(told.iter().map(bare).collect::<Vec<_>>(), read);
            }
            Err(error) => eprintln!("skipped: this kernel has no sock_diag: {error}"),
        }
    }
}

#[test]
fn the_other_end_of_a_connection_is_in_the_cgroup_of_its_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap();
    let stream = TcpStream::connect(peer).unwrap();
    let Ok(told) = dump_by_netlink(INET, TCP, LISTEN, peer.port()) else {
        return eprintln!("skipped: this kernel has no sock_diag");
    };
    let cgroup = cgroup_of_peer(stream.local_addr().unwrap(), peer).unwrap();
    assert_eq!(cgroup, told[0].cgroup);
    drop((stream, listener));
}

#[test]
fn an_answer_that_is_cut_off_is_an_error_and_not_a_crash() {
    let mut message = vec![0; HEADER + MESSAGE];
    message[0..4].copy_from_slice(&((HEADER + MESSAGE) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    message[HEADER + 1] = LISTEN as u8;
    let mut found = Vec::new();
    assert!(!take_in(&message, TCP, LISTEN, &mut found).unwrap());
    assert_eq!(found.len(), 1);
    for length in 0..message.len() {
        let _ = take_in(&message[..length], TCP, LISTEN, &mut found);
        let mut short = message[..length].to_vec();
        if length >= HEADER {
            short[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
            assert!(!take_in(&short, TCP, LISTEN, &mut found).unwrap());
        }
    }
    // An attribute that claims to be longer than there is room.
    message.extend([200, 0, CGROUP as u8, 0]);
    let length = message.len() as u32;
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    found.clear();
    assert!(!take_in(&message, TCP, LISTEN, &mut found).unwrap());
    assert_eq!(found[0].cgroup, None);
}
