//! Asks the agent on this machine, or on one that `ssh` leads to: HTTP/1.1 with JSON over its Unix socket, one connection per
//! request.

use bytes::Bytes;
use fabric::api::Problem;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::context::Way;
use crate::exit::{Exit, Failure};
use crate::remote;

/// An agent that says nothing for so long is not coming back: joining and submitting wait for other
/// nodes, and those waits are shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of one answer: 16,384 nodes at 4 KiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The way to the agent.
#[derive(Clone)]
pub struct Client {
    way: Way,
    /// Says what it asks.
    verbose: bool,
}

impl Client {
    /// The agent that `way` leads to. Connects when asked for something.
    pub fn new(way: Way) -> Self {
        Self { way, verbose: false }
    }

    /// The same, and with `verbose` it says on stderr what it asks, and how long the answer takes.
    pub fn verbose(self, verbose: bool) -> Self {
        Self { verbose, ..self }
    }

    /// `GET path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.answer(Method::GET, path, Bytes::new()).await?;
        read(path, &answer)
    }

    /// `method path` with `body` as JSON; reads the answer.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let answer = self.answer(method, path, json(body)?).await?;
        read(path, &answer)
    }

    /// `PUT path` with `body` as it is; reads the answer.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T, Failure> {
        let answer = self.answer(Method::PUT, path, body).await?;
        read(path, &answer)
    }

    /// `GET path`: the answer as it is, with its status, also when it says that something is wrong.
    pub async fn exchange(&self, path: &str) -> Result<(u16, Bytes), Failure> {
        let answer = async {
            let response = self.request(Method::GET, path, Bytes::new()).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            body.map(|body| (status, body.to_bytes()))
                .map_err(|error| self.unreachable(&format!("broke off its answer: {error}")))
        };
        within(answer).await.unwrap_or_else(|| Err(self.silent()))
    }

    /// `POST path` with `body` as JSON; the answer says no more than that it was done.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        self.answer(Method::POST, path, json(body)?).await.map(drop)
    }

    /// `method path` with `body` as JSON; the answer says no more than that it was done.
    pub async fn tell(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), Failure> {
        self.answer(method, path, json(body)?).await.map(drop)
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.answer(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    /// `GET path`, whose answer comes piece by piece and may never end.
    pub async fn stream(&self, path: &str) -> Result<Stream, Failure> {
        let response = self.respond(Method::GET, path, Bytes::new()).await?;
        Ok(Stream { body: response.into_body() })
    }

    /// `POST path` with `body` as JSON, whose answer comes piece by piece.
    pub async fn post_stream(&self, path: &str, body: &impl Serialize) -> Result<Stream, Failure> {
        let response = self.respond(Method::POST, path, json(body)?).await?;
        Ok(Stream { body: response.into_body() })
    }

    async fn answer(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        let answer = async {
            let response = self.respond(method, path, body).await?;
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            body.map(|body| body.to_bytes())
                .map_err(|error| self.unreachable(&format!("broke off its answer: {error}")))
        };
        within(answer).await.unwrap_or_else(|| Err(self.silent()))
    }

    /// Sends the request; an answer that is an error becomes a [`Failure`].
    async fn respond(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let response = within(self.request(method, path, body)).await;
        let response = response.unwrap_or_else(|| Err(self.silent()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = within(body).await.and_then(Result::ok).map(|body| body.to_bytes());
        Err(match body.as_deref().and_then(|body| serde_json::from_slice::<Problem>(body).ok()) {
            Some(problem) => problem.into(),
            None => Failure::failed(format!("the agent refuses {path} with status {status}")),
        })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect().await?;
        let broken = |error: hyper::Error| match &self.way {
            Way::Socket(_) => self.unreachable(&format!("does not answer: {error}")),
            Way::Host(host) => {
                let typed = host.arguments().join(" ");
                self.unreachable(&format!(
                    "does not answer: what does `ssh {typed} weft version` say? It needs weft and weftd there, and a user who \
                     may use them"
                ))
            }
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let (asked, began) = (format!("{method} {path}"), tokio::time::Instant::now());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "weft")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Failure::usage(format!("{path} cannot be asked for: {error}")))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if self.verbose {
            let (status, took) = (response.status().as_u16(), began.elapsed().as_millis());
            eprintln!("{asked}: {status} after {took} ms");
        }
        Ok(response)
    }

    async fn connect(&self) -> Result<Box<dyn Both>, Failure> {
        match &self.way {
            Way::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => {
                    let advice = match error.kind() {
                        io::ErrorKind::PermissionDenied => {
                            "only root and members of the group weft may use it: sudo weft ..., or `usermod -aG weft USER` and log in again"
                        }
                        _ => "is weftd running? Another socket: --socket or WEFT_SOCKET",
                    };
                    Err(self.unreachable(&format!("cannot be reached: {error}; {advice}")))
                }
            },
            Way::Host(host) => {
                let bridge = remote::bridge(host).map_err(|error| {
                    self.unreachable(&format!("cannot be reached: ssh does not start: {error}"))
                })?;
                Ok(Box::new(bridge))
            }
        }
    }

    fn unreachable(&self, what: &str) -> Failure {
        let message = format!("the agent at {} {what}", self.way);
        Failure::Said(Exit::Unreachable, message)
    }

    fn silent(&self) -> Failure {
        self.unreachable(&format!("did not answer within {} s", ANSWER_WITHIN.as_secs()))
    }
}

/// Bytes in both directions.
trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// An answer that comes piece by piece.
pub struct Stream {
    body: Incoming,
}

impl Stream {
    /// The next bytes; `None` when the agent has closed the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    let message = format!("the agent broke off the stream: {error}");
                    return Err(Failure::Said(Exit::Unreachable, message));
                }
            }
        }
    }
}

async fn within<T>(answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(ANSWER_WITHIN, answer).await.ok()
}

fn json(body: &impl Serialize) -> Result<Bytes, Failure> {
    let body = serde_json::to_vec(body);
    body.map(Bytes::from).map_err(|error| Failure::failed(format!("cannot be sent: {error}")))
}

fn read<T: DeserializeOwned>(path: &str, answer: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer).map_err(|error| {
        Failure::failed(format!(
            "the agent's answer to {path} makes no sense ({error}): weft and weftd must have the same version"
        ))
    })
}

/// `text` as one part of a path or a query: everything that means something there is escaped.
pub fn escape(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_reach_another_path() {
        assert_eq!(super::escape("rack-1.a_b~c"), "rack-1.a_b~c");
        assert_eq!(super::escape("../a?b=c&d /é%"), "..%2Fa%3Fb%3Dc%26d%20%2F%C3%A9%25");
    }
}
