//! The API's socket: HTTP/1.1 with JSON bodies on a Unix socket.
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
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub mod accounts;
pub mod operation;
pub mod router;

pub use operation::{Call, LogQuery, LogStream, Operation, Reply};
use router::{Found, find};

/// The document that describes the API.
pub const OPENAPI: &str = include_str!("http/openapi.json");

/// Connections at a time, streams included. Past it a caller is turned away at once.
pub const CONNECTIONS_MAX: usize = 128;
/// Bytes of a request's body: a job's JSON may be larger than its file by what JSON escapes.
pub const BODY_BYTES_MAX: usize = 4 * fabric::limits::JOB_FILE_BYTES_MAX;
/// Bytes buffered of a request's head; also the largest head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A caller that has not sent its head by then is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A caller that has not sent its body by then is cut off.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A short text.
pub fn plain(text: &'static str) -> Reply {
    Reply::Text("text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

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
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: those in use must end first.
                    tracing::warn!(%error, "cannot accept a caller");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = calls.closed() => return,
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            turn_away(&stream);
            continue;
        };
        let calls = calls.clone();
        tokio::spawn(async move {
            connection(stream, calls).await;
            drop(permit);
        });
    }
}

/// Says 503 without waiting for a request: whoever holds the other connections may be doing so on purpose.
fn turn_away(stream: &UnixStream) {
    let _ = stream.try_write(
        b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n",
    );
}

async fn connection(stream: UnixStream, calls: mpsc::Sender<Call>) {
    let by = match stream.peer_cred() {
        Ok(credentials) => accounts::user_name(credentials.uid()),
        Err(error) => {
            tracing::debug!(%error, "a caller without credentials");
            return;
        }
    };
    let service = service_fn(|request| {
        let (calls, by) = (calls.clone(), by.clone());
        async move { Ok::<_, Infallible>(respond(request, calls, by).await) }
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
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let outcome = match find(head.method.as_str(), head.uri.path()) {
        Found::Route(route, name) => match read_body(body).await {
            Ok(body) => {
                let query = head.uri.query().unwrap_or_default();
                match operation::read(route, name, query, &body) {
                    Ok(operation) => ask(operation, calls, by).await,
                    Err(problem) => Err(problem),
                }
            }
            Err(problem) => Err(problem),
        },
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

async fn read_body(body: Incoming) -> Result<Bytes, Problem> {
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(
            ProblemKind::TooLarge,
            "the body is too large",
            format!("more than {BODY_BYTES_MAX} bytes: put large files on the nodes instead"),
        )),
        Ok(Err(error)) => Err(operation::invalid("the body did not arrive", error.to_string())),
        Err(_) => Err(operation::invalid(
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
    if operation == Operation::OpenApi {
        return Ok(Reply::Text("application/json", Bytes::from_static(OPENAPI.as_bytes())));
    }
    let stopping = || Problem::new(ProblemKind::Unavailable, "the agent is stopping", "try again");
    let (answer, answered) = oneshot::channel();
    calls.send(Call { operation, by, answer }).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?
}

fn success(reply: Reply) -> Response<Body> {
    match reply {
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
    let mut problem = operation::invalid(
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
