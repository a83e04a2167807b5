//! HTTP/1.1 over a Unix socket, as little of it as the agent's API needs.

use fabric::api::Problem;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for an answer; a join takes some time when nobody is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Why there was no answer.
#[derive(Debug)]
pub enum Refused {
    /// The agent says no.
    Problem(Box<Problem>),
    /// The agent is not there, or does not speak its own protocol.
    Broken(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Problem(problem) => problem.fmt(f),
            Refused::Broken(why) => f.write_str(why),
        }
    }
}

impl Refused {
    /// The agent's own words.
    pub fn problem(self) -> Problem {
        match self {
            Refused::Problem(problem) => *problem,
            Refused::Broken(why) => panic!("no answer: {why}"),
        }
    }
}

/// Calls the API. An empty answer reads as `null`.
pub fn call<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<T, Refused> {
    let (status, body) = exchange(socket, method, path, body).map_err(Refused::Broken)?;
    let broken = |error: serde_json::Error| {
        Refused::Broken(format!("{method} {path} answered {status} with {body:?}: {error}"))
    };
    if !(200..300).contains(&status) {
        return Err(Refused::Problem(serde_json::from_str(&body).map_err(broken)?));
    }
    serde_json::from_str(if body.is_empty() { "null" } else { &body }).map_err(broken)
}

/// The text at `path`.
pub fn text(socket: &Path, path: &str) -> Result<String, String> {
    match exchange(socket, "GET", path, None)? {
        (200, body) => Ok(body),
        (status, body) => Err(format!("{path} answered {status}: {body}")),
    }
}

/// Status and body of the answer to one request.
pub fn exchange(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<(u16, String), String> {
    let said = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut stream = UnixStream::connect(socket).map_err(said("connect"))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(said("timeout"))?;
    let body = body.unwrap_or_default();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(said("send"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(said("receive"))?;
    let answer = String::from_utf8(answer).map_err(|error| error.to_string())?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| format!("cut off: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("no status: {head:?}"))?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunked(body)? } else { body.to_owned() }))
}

/// RFC 9112, section 7.1, without trailers.
fn unchunked(mut rest: &str) -> Result<String, String> {
    let mut body = String::new();
    loop {
        let (size, tail) = rest.split_once("\r\n").ok_or("a chunk without a size")?;
        let size = usize::from_str_radix(size, 16).map_err(|error| error.to_string())?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(tail.get(..size).ok_or("a chunk that is cut off")?);
        rest = tail.get(size + 2..).ok_or("a chunk without an end")?;
    }
}
