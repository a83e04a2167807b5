//! What goes over a wire: datagrams as somebody on the same switch hears them, and noise.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const ETHERNET_BYTES: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const UDP: u8 = 17;
/// `ETH_P_ALL`, in network order: packet(7).
const EVERYTHING: i32 = 0x0300;

/// Payloads of `count` different datagrams to this address and port, as they pass. Call it inside the
/// namespace of the switch.
pub fn listen(address: &str, port: u16, count: usize) -> Vec<Vec<u8>> {
    let wanted: Ipv4Addr = address.parse().expect("an address");
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERYTHING)));
    let mut socket = socket.expect("a packet socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let deadline = Instant::now() + super::netns::PATIENCE;
    let mut heard: Vec<Vec<u8>> = Vec::new();
    let mut frame = [0; 2048];
    while heard.len() < count {
        assert!(Instant::now() < deadline, "{} datagrams heard, {count} wanted", heard.len());
        let Ok(length) = socket.read(&mut frame) else { continue };
        let Some(payload) = datagram(&frame[..length], wanted, port) else { continue };
        // Each passes two ports of the switch.
        if !heard.iter().any(|known| known == payload) {
            heard.push(payload.to_vec());
        }
    }
    heard
}

/// Hears every UDP datagram that passes a switch, as a hub or a mirror port would show it.
pub struct Tap {
    socket: Socket,
    frame: Vec<u8>,
}

impl Tap {
    /// Call it inside the namespace of the switch.
    pub fn new() -> Self {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERYTHING)));
        let socket = socket.expect("a packet socket");
        socket.set_nonblocking(true).expect("it need not wait");
        Self { socket, frame: vec![0; 2048] }
    }

    /// The next one that is there: the port that it goes to, and what is in it. Each may be heard twice.
    pub fn next(&mut self) -> Option<(u16, Vec<u8>)> {
        loop {
            let length = self.socket.read(&mut self.frame).ok()?;
            if let Some(heard) = any_datagram(&self.frame[..length]) {
                return Some(heard);
            }
        }
    }
}

fn any_datagram(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    let (protocol, header) = match frame.get(12..14)? {
        kind if kind == IPV4 => (*packet.get(9)?, usize::from(packet.first()? & 0x0f) * 4),
        kind if kind == IPV6 => (*packet.get(6)?, 40),
        _ => return None,
    };
    let segment = packet.get(header..).filter(|_| protocol == UDP)?;
    let number = |at: usize| Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?]));
    Some((number(2)?, segment.get(8..usize::from(number(4)?))?.to_vec()))
}

fn datagram(frame: &[u8], address: Ipv4Addr, port: u16) -> Option<&[u8]> {
    if frame.get(12..14)? != IPV4 {
        return None;
    }
    let packet = frame.get(ETHERNET_BYTES..)?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if *packet.get(9)? != UDP || packet.get(16..20)? != address.octets() {
        return None;
    }
    let segment = packet.get(header..)?;
    if segment.get(2..4)? != port.to_be_bytes() {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([*segment.get(4)?, *segment.get(5)?]));
    segment.get(8..length)
}

/// Bytes without sense, the same ones for the same seed (xorshift64, Marsaglia 2003).
pub struct Noise(u64);

impl Noise {
    /// `seed` is not 0.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// That many.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                self.0 as u8
            })
            .collect()
    }
}
