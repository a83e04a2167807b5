//! Prometheus remote-write 1.0: what this node measures goes to a receiver by itself, where the configuration names
//! one.
//!
//! Every so often the thread `observe` gives the newest sample of each series to the [`Outbox`], in compressed
//! messages (`metrics::remote_write`). One more thread, `remote-write`, sends them, in order, each over a connection
//! of its own. Between the two is the one lock of this module, which nobody holds while anything waits: whatever
//! the receiver does delays neither samples nor gossip.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderMap};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use metrics::remote_write::newest;
use metrics::store::Store;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::now_ms;
use super::sink::{Collector, Metric, Sink};
use crate::clock::BootTime;
use crate::config::Receiver;
pub use outbox::{Books, Trouble};
use outbox::{Outbox, Outcome, Step};

mod outbox;

/// Its name among the collectors, whose costs are told.
pub const NAME: &str = "remote-write";
/// A receiver that has not answered by then is not going to: Prometheus's own limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Characters of what a receiver says that are told.
const REASON_CHARACTERS_MAX: usize = 200;
/// Stack of the thread. Nothing deep runs there.
const STACK_BYTES: usize = 512 << 10;
/// The thread that looks up the receiver's name ends after this much idleness.
const LOOKUP_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How sending is going.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// To whom.
    pub receiver: String,
    /// What was counted.
    pub books: Books,
}

/// The end that the thread `observe` has. The thread `remote-write` ends with it.
pub struct Remote {
    receiver: Receiver,
    every: Duration,
    next: BootTime,
    /// The samples until then are in the outbox, or were.
    taken_to_ms: i64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    outbox: Mutex<Outbox>,
    pushed: Notify,
}

impl Shared {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote {
    /// Starts the thread `remote-write`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(receiver: Receiver, every: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_keep_alive(LOOKUP_KEEP_ALIVE)
            .thread_stack_size(STACK_BYTES)
            .thread_name("lookup")
            .build()?;
        let (ours, to) = (shared.clone(), receiver.clone());
        std::thread::Builder::new()
            .name(NAME.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || runtime.block_on(send_all(&ours, &to)))?;
        let next = BootTime::now() + every;
        Ok(Self { receiver, every, next, taken_to_ms: 0, shared })
    }

    /// What counts the samples.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(Counted(self.shared.clone()))
    }

    /// Takes what is new, when it is time.
    pub fn round(&mut self, now: BootTime, store: &Store) {
        if now < self.next {
            return;
        }
        self.next = (self.next + self.every).max(now);
        let now_ms = now_ms();
        // When the wall clock was set back, what is new has earlier times than what was taken.
        let since_ms = self.taken_to_ms.min(now_ms);
        newest(store, since_ms, |batch| self.shared.outbox().push(batch));
        self.taken_to_ms = now_ms;
        self.shared.pushed.notify_one();
    }

    /// How it is going.
    pub fn report(&self) -> Sending {
        Sending { receiver: self.receiver.to_string(), books: self.shared.outbox().books() }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.shared.outbox().close();
        self.shared.pushed.notify_one();
    }
}

/// What the thread does.
async fn send_all(shared: &Shared, receiver: &Receiver) {
    let mut works = true;
    loop {
        let step = shared.outbox().step(BootTime::now());
        match step {
            Step::End => return,
            Step::Wait(None) => shared.pushed.notified().await,
            Step::Wait(Some(pause)) => {
                let _ = tokio::time::timeout(pause, shared.pushed.notified()).await;
            }
            Step::Send(body) => {
                let outcome = send(receiver, body).await;
                match &outcome {
                    Outcome::Taken if !works => {
                        tracing::info!(%receiver, "samples are taken again")
                    }
                    Outcome::Refused(reason) | Outcome::Failed { reason, .. } if works => {
                        tracing::warn!(%receiver, reason, "samples are not taken");
                    }
                    _ => {}
                }
                works = outcome == Outcome::Taken;
                shared.outbox().settle(BootTime::now(), outcome);
            }
        }
    }
}

async fn send(receiver: &Receiver, body: Bytes) -> Outcome {
    let failed = |reason: String| Outcome::Failed { reason, pause: None };
    match tokio::time::timeout(REQUEST_TIMEOUT, post(receiver, body)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(reason)) => failed(reason),
        Err(_) => failed(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())),
    }
}

async fn post(receiver: &Receiver, body: Bytes) -> Result<Outcome, String> {
    let stream = TcpStream::connect((receiver.host.as_str(), receiver.port))
        .await
        .map_err(|error| error.to_string())?;
    let broken = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::post(&receiver.path)
        .header(header::HOST, &receiver.authority)
        .header(header::USER_AGENT, concat!("weft/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::CONTENT_ENCODING, "snappy")
        .header("x-prometheus-remote-write-version", "0.1.0")
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let mut response = sender.send_request(request).await.map_err(broken)?;
        // The first piece of it has the reason; the rest is not read.
        let text = match response.status().is_success() {
            true => None,
            false => response.body_mut().frame().await.and_then(Result::ok),
        };
        let text = text.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
        Ok(judge(response.status(), response.headers(), &text))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(broken(error)),
        },
    }
}

/// What an answer means. The specification: no second time after a 4xx, apart from 429, which says when.
fn judge(status: StatusCode, headers: &HeaderMap, text: &[u8]) -> Outcome {
    if status.is_success() {
        return Outcome::Taken;
    }
    let text = String::from_utf8_lossy(text);
    let line = text.lines().next().unwrap_or_default();
    let said: String =
        line.chars().filter(|letter| !letter.is_control()).take(REASON_CHARACTERS_MAX).collect();
    let reason = match said.trim() {
        "" => format!("it answers {status}"),
        said => format!("it answers {status}: {said}"),
    };
    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
        return Outcome::Refused(reason);
    }
    // A date is possible, too, and seldom; then the pause is ours.
    let pause =
        headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Outcome::Failed { reason, pause: pause.map(Duration::from_secs) }
}

/// What was sent and what was lost: a metric like any other.
struct Counted(Arc<Shared>);

impl Collector for Counted {
    fn name(&self) -> &'static str {
        NAME
    }

    fn period(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn collect(&mut self, sink: &mut Sink<'_>) {
        const SAMPLES: Metric<'_> = Metric::counter(
            "weft_remote_write_samples_total",
            "Samples for the receiver of remote-write: those that it has (sent), that it refused (failed), and that gave way to newer ones (dropped).",
        );
        const WAITING: Metric<'_> = Metric::gauge(
            "weft_remote_write_waiting_samples",
            "Samples that wait for the receiver of remote-write.",
        );
        const RETRIES: Metric<'_> = Metric::counter(
            "weft_remote_write_retries_total",
            "Requests to the receiver of remote-write that failed and are made again.",
        );
        let books = self.0.outbox().books();
        for (outcome, samples) in
            [("sent", books.sent), ("failed", books.failed), ("dropped", books.dropped)]
        {
            sink.put(&SAMPLES, &[("outcome", outcome)], samples as f64);
        }
        sink.put(&WAITING, &[], books.waiting as f64);
        sink.put(&RETRIES, &[], books.retries as f64);
    }
}

#[cfg(test)]
mod tests;
