//! Connections that are begun and never finished: QUIC packets as anybody can make them, without any key.
//!
//! The keys of a first packet follow from its connection id (RFC 9001, section 5.2). It carries the first
//! bytes of a ClientHello, so that the server waits for the rest. A Retry is answered.

use ring::aead::quic::{AES_128, HeaderProtectionKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac::{HMAC_SHA256, Key, sign};
use ring::rand::{SecureRandom, SystemRandom};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// RFC 9001, section 5.2.
const SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
/// A client pads its first packet to this.
const PACKET_BYTES: usize = 1200;
const PACKET_NUMBER: [u8; 4] = [0; 4];
const TAG_BYTES: usize = 16;
const CLIENT_HELLO_BYTES: usize = 512;
/// A Retry: long header, type 3.
const RETRY: u8 = 0xf0;

/// Connections begun, and packets sent for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begun {
    pub connections: u64,
    pub retries: u64,
}

/// Begins connections from each of `sources` in turn to each of `targets`, so many in a second all in all, until
/// told to stop. Call it inside the stranger's namespace.
pub fn begin_connections(
    sources: &[String],
    targets: &[SocketAddr],
    per_second: u32,
    stop: &AtomicBool,
) -> Begun {
    let random = SystemRandom::new();
    let fresh = || {
        let mut id = [0; 8];
        random.fill(&mut id).expect("random numbers");
        id
    };
    let sockets: Vec<UdpSocket> = sources
        .iter()
        .map(|source| {
            let socket = UdpSocket::bind((source.as_str(), 0)).expect("a socket");
            socket.set_nonblocking(true).expect("it need not wait");
            socket
        })
        .collect();
    let mut begun = Begun::default();
    let mut answer = [0; 2048];
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        while begun.connections < due {
            let turn = begun.connections as usize;
            let target = targets[turn % targets.len()];
            let socket = &sockets[(turn / targets.len()) % sockets.len()];
            // A full queue is as good as a lost packet.
            let _ = socket.send_to(&initial(&fresh(), &fresh(), &[]), target);
            begun.connections += 1;
        }
        for socket in &sockets {
            while let Ok((length, from)) = socket.recv_from(&mut answer) {
                if let Some((server, client, token)) = retry(&answer[..length]) {
                    let _ = socket.send_to(&initial(server, client, token), from);
                    begun.retries += 1;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    begun
}

/// The ids of server and client, and the token.
fn retry(packet: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    if packet.first()? & RETRY != RETRY {
        return None;
    }
    let (length, rest) = packet.get(5..)?.split_first()?;
    let (client, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first()?;
    let (server, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((server, client, rest.get(..rest.len().checked_sub(TAG_BYTES)?)?))
}

fn initial(server: &[u8], client: &[u8], token: &[u8]) -> Vec<u8> {
    let secret = sign(&Key::new(HMAC_SHA256, &SALT), server);
    let secret = expand(secret.as_ref(), "client in", 32);
    let (key, iv, mask) = (
        expand(&secret, "quic key", 16),
        expand(&secret, "quic iv", 12),
        expand(&secret, "quic hp", 16),
    );
    let mut header = vec![0xc3, 0, 0, 0, 1];
    for id in [server, client] {
        header.push(id.len() as u8);
        header.extend_from_slice(id);
    }
    header.extend_from_slice(&variable(token.len()));
    header.extend_from_slice(token);
    // Version 1.2 and 32 bytes of randomness, of a message of 512 bytes.
    let mut hello = vec![1, 0, (CLIENT_HELLO_BYTES >> 8) as u8, 0, 3, 3];
    hello.extend_from_slice(&[7; 32]);
    let mut payload = vec![6, 0];
    payload.extend_from_slice(&variable(hello.len()));
    payload.extend_from_slice(&hello);
    let number = header.len() + 2;
    payload.resize(PACKET_BYTES - number - PACKET_NUMBER.len() - TAG_BYTES, 0);
    header.extend_from_slice(&variable(PACKET_NUMBER.len() + payload.len() + TAG_BYTES));
    header.extend_from_slice(&PACKET_NUMBER);

    let cipher = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("a key"));
    let nonce = Nonce::try_assume_unique_for_key(&iv).expect("12 bytes");
    cipher.seal_in_place_append_tag(nonce, Aad::from(&header), &mut payload).expect("sealed");
    let protection = HeaderProtectionKey::new(&AES_128, &mask).expect("a key");
    let mask = protection.new_mask(&payload[..16]).expect("a sample");
    header[0] ^= mask[0] & 0x0f;
    for (byte, mask) in header[number..].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
    header.extend_from_slice(&payload);
    header
}

/// HKDF-Expand-Label (RFC 8446, section 7.1), for up to 32 bytes.
fn expand(secret: &[u8], label: &str, bytes: usize) -> Vec<u8> {
    let label = format!("tls13 {label}");
    let mut info = vec![0, bytes as u8, label.len() as u8];
    info.extend_from_slice(label.as_bytes());
    info.extend_from_slice(&[0, 1]);
    sign(&Key::new(HMAC_SHA256, secret), &info).as_ref()[..bytes].to_vec()
}

/// A variable-length integer of two bytes (RFC 9000, section 16).
fn variable(number: usize) -> [u8; 2] {
    (0x4000 | number as u16).to_be_bytes()
}
