use super::*;

fn told(index: u32, name: &str, kind: &str, master: Option<u32>) -> Told {
    Told { index, name: name.into(), loopback: name == "lo", kind: kind.into(), master }
}

#[test]
fn a_link_is_what_it_may_lead_to() {
    use LinkKind::*;
    let rows = [
        (told(1, "lo", "", None), Loopback),
        (told(2, "enp1s0", "", None), Wire),
        (told(3, "wlan0", "", None), Wire),
        // Docker: a bridge without a port, one with a container, and the container's cable.
        (told(4, "docker0", "bridge", None), Inner),
        (told(5, "br-4f2a", "bridge", None), Inner),
        (told(6, "veth12", "veth", Some(5)), Inner),
        // A host of virtual machines: its own address is on the bridge that its card is a port of.
        (told(7, "br0", "bridge", None), Wire),
        (told(8, "enp2s0", "", Some(7)), Wire),
        (told(9, "vnet0", "tun", Some(7)), Inner),
        // In a container.
        (told(10, "eth0", "veth", None), Veth),
        (told(11, "wg0", "wireguard", None), Tunnel),
        (told(12, "flannel.1", "vxlan", None), Tunnel),
        (told(13, "bond0", "bond", None), Wire),
        (told(14, "enp1s0.5", "vlan", None), Wire),
        (told(15, "dummy0", "dummy", None), Inner),
        (told(16, "new0", "kind of next year", None), Wire),
        // A veth in a VRF is a link like others.
        (told(17, "red", "vrf", None), Wire),
        (told(18, "eth1", "veth", Some(17)), Veth),
    ];
    let links: Vec<Told> = rows.iter().map(|(link, _)| link.clone()).collect();
    for ((link, wanted), kind) in rows.iter().zip(kinds(&links)) {
        assert_eq!(kind, *wanted, "{link:?}");
    }
}

/// A message as the kernel writes it.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + body.len()) as u32;
    let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
    let mut bytes = [&header, body].concat();
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

fn new_link(index: u32, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let head = [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
    message(RTM_NEWLINK, &[head, attributes.concat()].concat())
}

#[test]
fn the_kernels_answer_is_read() {
    let info = attribute(IFLA_INFO_KIND, b"veth\0");
    let answer = [
        new_link(1, IFF_LOOPBACK, &[attribute(IFLA_IFNAME, b"lo\0")]),
        new_link(
            7,
            0,
            &[
                attribute(IFLA_IFNAME, b"veth12\0"),
                attribute(4, &[0; 5]),
                attribute(IFLA_MASTER, &5_u32.to_ne_bytes()),
                // Nested, and says so.
                attribute(IFLA_LINKINFO | 0x8000, &info),
            ],
        ),
    ]
    .concat();
    let mut links = Vec::new();
    assert!(!read(&answer, &mut links).unwrap());
    assert_eq!(links, [told(1, "lo", "", None), told(7, "veth12", "veth", Some(5))]);
    assert!(read(&message(NLMSG_DONE, &[0; 4]), &mut links).unwrap());
    let refusal = message(NLMSG_ERROR, &(-1_i32).to_ne_bytes());
    assert_eq!(read(&refusal, &mut links).unwrap_err().raw_os_error(), Some(1));
}

#[test]
fn an_answer_that_is_cut_off_anywhere_is_an_error_or_shorter() {
    let answer = new_link(7, 0, &[attribute(IFLA_IFNAME, b"eth0\0")]);
    for length in 1..answer.len() {
        let mut links = Vec::new();
        assert!(read(&answer[..length], &mut links).is_err(), "{length}");
    }
    // A message of no length would be read for ever.
    assert!(read(&[0; 64], &mut Vec::new()).is_err());
}

#[test]
fn this_machine_has_a_loopback() {
    let links = links().unwrap();
    let loopback = links.iter().find(|link| link.kind == LinkKind::Loopback);
    assert_eq!(loopback.map(|link| link.name.as_str()), Some("lo"), "{links:?}");
}
