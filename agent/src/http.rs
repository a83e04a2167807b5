//! The API's socket: HTTP/1.1 with JSON bodies on a Unix socket. And, where the configuration says so, what only
//! tells (Prometheus's API, `/metrics`, `/healthz`, `/readyz`) on TCP.
//!
//! The kernel decides who may connect: the socket's mode is 0660 and its group the configured one, so
//! root and the members of that group may do everything, and nobody else may do anything, since specs
//! can hold secrets. Who it was is read from the peer's credentials and goes into the record.
//!
//! Nothing is unbounded: connections, header bytes, body bytes, and the time a caller may take.

use bytes::Bytes;
use fabric::api::{Problem, ProblemKind};
use futures_util::stream::poll_fn;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::answer::{Answer, ErrorType};
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::api::given::invalid;
use crate::api::{Call, Came, Found, Operation, Reader, Reply, Role, Route, find};

pub mod accounts;

/// Connections at a time, streams included. Past it a caller is turned away at once.
pub const CONNECTIONS_MAX: usize = 128;
/// Connections over TCP at a time: scrapers and dashboards.
pub const READERS_MAX: usize = 64;
/// Said without waiting for a request: whoever holds the other connections may be doing so on purpose.
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n";
/// Bytes of a request's body: a job's JSON may be larger than its file by what JSON escapes.
pub const BODY_BYTES_MAX: usize = 4 * fabric::limits::JOB_FILE_BYTES_MAX;
/// Bytes buffered of a request's head; also the largest head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A caller that has not sent its head by then is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A caller that has not sent its body by then is cut off.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Binds the socket, in place of a stale one.
///
/// # Errors
/// When another agent answers on it, or the directory does not allow it.
pub async fn bind(path: &Path, group: &str) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another agent answers on {}: stop it, or set api.socket", path.display()),
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Closed to everyone else from its first moment on, whatever the umask was.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let listener = bound?;
    match accounts::group_id(group) {
        Some(gid) => match std::os::unix::fs::chown(path, None, Some(gid)) {
            Ok(()) => std::fs::set_permissions(path, PermissionsExt::from_mode(0o660))?,
            Err(error) => tracing::warn!(
                %error, group, "the socket stays closed to the group: only this user can connect"
            ),
        },
        None => tracing::debug!(group, "no such group: only this user and root can connect"),
    }
    Ok(listener)
}

/// Serves callers until the driver is gone.
pub async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(stream) = accepted(|| listener.accept(), &calls).await {
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            let _ = stream.try_write(TURNED_AWAY);
            continue;
        };
        let by = match stream.peer_cred() {
            Ok(credentials) => accounts::user_name(credentials.uid()),
            Err(error) => {
                tracing::debug!(%error, "a caller without credentials");
                continue;
            }
        };
        let calls = calls.clone();
        tokio::spawn(async move {
            connection(Box::new(stream), calls, by, Role::Own).await;
            drop(permit);
        });
    }
}

/// Serves those who scrape and ask, over TCP, until the driver is gone. Who they are is not known: they may
/// only look at what is measured.
pub async fn serve_readers(listener: TcpListener, calls: mpsc::Sender<Call>) {
    let permits = Arc::new(Semaphore::new(READERS_MAX));
    while let Some(stream) = accepted(|| listener.accept(), &calls).await {
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            let _ = stream.try_write(TURNED_AWAY);
            continue;
        };
        let by = stream.peer_addr().map_or("somebody".to_owned(), |address| address.to_string());
        let calls = calls.clone();
        tokio::spawn(async move {
            connection(Box::new(stream), calls, by, Role::Measure).await;
            drop(permit);
        });
    }
}

/// The next caller; `None` when the driver is gone.
async fn accepted<S, A, F: Future<Output = io::Result<(S, A)>>>(
    accept: impl Fn() -> F,
    calls: &mpsc::Sender<Call>,
) -> Option<S> {
    loop {
        tokio::select! {
            accepted = accept() => match accepted {
                Ok((stream, _)) => return Some(stream),
                Err(error) => {
                    // Out of file descriptors, most likely: those in use must end first.
                    tracing::warn!(%error, "cannot accept a caller");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            () = calls.closed() => return None,
        }
    }
}

/// A connection, whichever: HTTP is there once, and not once for each kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl Stream for UnixStream {}
impl Stream for TcpStream {}
#[cfg(any(test, fuzzing))]
impl Stream for tokio::io::DuplexStream {}

pub(crate) async fn connection(
    stream: Box<dyn Stream>,
    calls: mpsc::Sender<Call>,
    by: String,
    role: Role,
) {
    let service = service_fn(|request| {
        let (calls, by) = (calls.clone(), by.clone());
        async move { Ok::<_, Infallible>(respond(request, calls, by, role).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a caller's connection ended");
    }
}

async fn respond(
    request: Request<Incoming>,
    calls: mpsc::Sender<Call>,
    by: String,
    role: Role,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let outcome = match find(head.method.as_str(), head.uri.path()) {
        Found::Route(route, _) if role < route.role => Err(Problem::new(
            ProblemKind::Forbidden,
            "not over this port",
            "it only tells what is measured: ask over the Unix socket",
        )),
        Found::Route(route, name) => answer(route, name, &head, body, calls, by).await,
        Found::OtherMethods(methods) => return method_not_allowed(&head.method, &methods),
        Found::Nothing(near) => Err(Problem::new(
            ProblemKind::NotFound,
            "no such path",
            match near {
                Some(near) => format!("{}: did you mean {near}?", shortened(head.uri.path())),
                None => format!("{}: see /v1/openapi.json", shortened(head.uri.path())),
            },
        )),
    };
    match outcome {
        Ok(reply) => success(reply),
        Err(problem) => failure(&problem),
    }
}

/// Reads what came, and has it answered.
async fn answer(
    route: &Route,
    name: Option<String>,
    head: &Parts,
    body: Incoming,
    calls: mpsc::Sender<Call>,
    by: String,
) -> Result<Reply, Problem> {
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(problem) => return in_form(route, ErrorType::BadData, problem),
    };
    let accept = head.headers.get(ACCEPT).and_then(|text| text.to_str().ok());
    let operation = route.read(&Came {
        name: name.as_deref(),
        query: head.uri.query().unwrap_or_default(),
        body: &body,
        accept: accept.unwrap_or_default(),
        now_ms: crate::observe::now_ms(),
    });
    match ask(operation?, calls, by).await {
        Ok(reply) => Ok(reply),
        Err(problem) => in_form(route, ErrorType::Timeout, problem),
    }
}

/// A problem in the form that the route's callers read.
fn in_form(route: &Route, kind: ErrorType, problem: Problem) -> Result<Reply, Problem> {
    match route.reader {
        Reader::Weft(_) => Err(problem),
        Reader::Prometheus(_) => Ok(Reply::prometheus(&Answer::error(kind, problem.to_string()))),
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, Problem> {
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(
            ProblemKind::TooLarge,
            "the body is too large",
            format!("more than {BODY_BYTES_MAX} bytes: put large files on the nodes instead"),
        )),
        Ok(Err(error)) => Err(invalid("the body did not arrive", error.to_string())),
        Err(_) => Err(invalid(
            "the body did not arrive",
            format!("it took longer than {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}

async fn ask(
    operation: Operation,
    calls: mpsc::Sender<Call>,
    by: String,
) -> Result<Reply, Problem> {
    if let Operation::Known(reply) = operation {
        return Ok(reply);
    }
    let stopping = || Problem::new(ProblemKind::Unavailable, "the agent is stopping", "try again");
    let (answer, answered) = oneshot::channel();
    calls.send(Call { operation, by, answer }).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?
}

fn success(reply: Reply) -> Response<Body> {
    match reply {
        Reply::Prometheus(status, json) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            whole(status, "application/json", json.into())
        }
        Reply::Json(json) => whole(StatusCode::OK, "application/json", json.into()),
        Reply::Text(media, text) => whole(StatusCode::OK, media, text),
        Reply::Done => {
            let mut response = whole(StatusCode::NO_CONTENT, "text/plain", Bytes::new());
            response.headers_mut().remove(CONTENT_TYPE);
            response
        }
        Reply::Stream(media, mut chunks) => {
            let frames = poll_fn(move |context| {
                chunks.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
            });
            let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
    }
}

fn failure(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = serde_json::to_vec(problem).unwrap_or_default();
    whole(status, "application/problem+json", json.into())
}

fn method_not_allowed(method: &hyper::Method, allowed: &[&str]) -> Response<Body> {
    let mut problem = invalid(
        "not with this method",
        format!("{} is not one of {}", shortened(method.as_str()), allowed.join(", ")),
    );
    problem.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    let mut response = failure(&problem);
    if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn whole(status: StatusCode, media: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Enough of `text` to recognise it: what a stranger sent need not come back whole.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
