use super::*;
use hyper::header::HeaderValue;
use metrics::labels::Labels;
use metrics::limits::STORE_BYTES;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

/// Answers each request with the next of `answers`, and tells its head and its body.
fn receiver(answers: &'static [&'static str]) -> (Receiver, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (tell, told) = mpsc::channel();
    let serve = move || {
        for answer in answers {
            let (stream, _) = listener.accept().expect("a caller");
            let mut reader = BufReader::new(&stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                if line.trim().is_empty() {
                    break;
                }
                if let Some(number) = line.strip_prefix("content-length: ") {
                    length = number.trim().parse().expect("a number");
                }
                head += &line;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            // Whoever waits for an answer finds all of the request told.
            let _ = tell.send((head, body));
            let (status, text) = answer.split_once('|').unwrap_or((answer, ""));
            let length = text.len();
            write!(&stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{text}")
                .expect("it reads");
        }
    };
    std::thread::Builder::new().spawn(serve).expect("a thread");
    (format!("http://{address}/api/v1/write").parse().expect("a receiver"), told)
}

fn store(at_ms: i64) -> Store {
    let mut store = Store::new(STORE_BYTES);
    let labels = Labels::new([("__name__", "m"), ("node", "a")]).expect("labels");
    let id = store.series(&labels, at_ms).expect("room");
    store.append(id, at_ms, 1.0).expect("in order");
    store
}

/// Waits until the books are as wanted.
fn wait(remote: &Remote, wanted: impl Fn(&Books) -> bool) -> Books {
    let until = BootTime::now() + Duration::from_secs(20);
    loop {
        let books = remote.report().books;
        if wanted(&books) {
            return books;
        }
        assert!(BootTime::now() < until, "{books:?}");
        nix::poll::poll(&mut [], 10u16).expect("it waits");
    }
}

#[test]
fn samples_are_sent_as_the_specification_says() {
    let (to, told) = receiver(&["204 No Content"]);
    let mut remote = Remote::start(to, Duration::from_secs(1)).unwrap();
    let store = store(now_ms());
    let now = BootTime::now();
    remote.round(now, &store);
    remote.round(now + Duration::from_secs(2), &store);
    let (head, body) = told.recv_timeout(Duration::from_secs(20)).expect("a request");
    let lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines[0], "POST /api/v1/write HTTP/1.1");
    for wanted in [
        "content-encoding: snappy",
        "content-type: application/x-protobuf",
        "x-prometheus-remote-write-version: 0.1.0",
        concat!("user-agent: weft/", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(lines.contains(&wanted), "{wanted}: {head}");
    }
    let mut wanted = Vec::new();
    newest(&store, 0, |batch| wanted.push(batch.body));
    assert_eq!(wanted, [body]);
    let books = wait(&remote, |books| books.sent > 0);
    assert_eq!(books, Books { sent: 1, ..Books::default() });
    // Nothing is new: nothing is sent.
    remote.round(now + Duration::from_secs(4), &store);
    assert_eq!(remote.report().books.waiting, 0);
}

#[test]
fn what_a_receiver_cannot_take_now_is_sent_again_and_what_it_refuses_is_not() {
    let (to, told) = receiver(&[
        "503 Service Unavailable|starting up",
        "200 OK",
        "400 Bad Request|out of order sample\nand more",
    ]);
    let mut remote = Remote::start(to, Duration::from_secs(1)).unwrap();
    let now = BootTime::now() + Duration::from_secs(2);
    remote.round(now, &store(now_ms()));
    let books = wait(&remote, |books| books.retries == 1);
    let reason = "it answers 503 Service Unavailable: starting up".to_owned();
    assert_eq!(books.trouble, Some(Trouble { reason, again: true }));
    assert_eq!(books.waiting, 1);
    let books = wait(&remote, |books| books.sent == 1);
    assert_eq!(books, Books { sent: 1, retries: 1, ..Books::default() });
    remote.round(now + Duration::from_secs(2), &store(now_ms() + 1_000));
    let books = wait(&remote, |books| books.failed == 1);
    let reason = "it answers 400 Bad Request: out of order sample".to_owned();
    let trouble = Some(Trouble { reason, again: false });
    assert_eq!(books, Books { sent: 1, failed: 1, retries: 1, trouble, ..Books::default() });
    let bodies: Vec<Vec<u8>> = told.try_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies.len(), 3);
    assert_eq!(bodies[0], bodies[1]);
    // Nobody listens any more.
    remote.round(now + Duration::from_secs(4), &store(now_ms() + 2_000));
    wait(&remote, |books| {
        let trouble = books.trouble.as_ref();
        trouble.is_some_and(|trouble| trouble.again && trouble.reason.contains("refused"))
    });
}

/// The status, and whether the same samples are sent again.
#[test]
fn only_what_may_go_better_is_tried_again() {
    let rows = [
        (301, Some(false)),
        (400, Some(false)),
        (401, Some(false)),
        (404, Some(false)),
        (413, Some(false)),
        (429, Some(true)),
        (500, Some(true)),
        (503, Some(true)),
        (200, None),
        (204, None),
    ];
    for (status, again) in rows {
        let status = StatusCode::from_u16(status).unwrap();
        let found = match judge(status, &HeaderMap::new(), b"") {
            Outcome::Taken => None,
            Outcome::Refused(_) => Some(false),
            Outcome::Failed { pause: None, .. } => Some(true),
            Outcome::Failed { .. } => panic!("{status}: it did not say when"),
        };
        assert_eq!(found, again, "{status}");
    }
    for (text, wanted) in [("7", Some(7)), ("Fri, 27 Nov 2026 00:00:00 GMT", None), ("-1", None)] {
        let headers = [(header::RETRY_AFTER, HeaderValue::from_static(text))];
        let headers: HeaderMap = headers.into_iter().collect();
        let Outcome::Failed { pause, .. } = judge(StatusCode::TOO_MANY_REQUESTS, &headers, b"")
        else {
            panic!("{text}")
        };
        assert_eq!(pause, wanted.map(Duration::from_secs), "{text}");
    }
}

#[test]
fn what_a_receiver_says_is_told_in_one_short_line() {
    let long = [b"\x1b[31m".as_slice(), &[b'a'; 5_000], b"\xff"].concat();
    let Outcome::Refused(reason) = judge(StatusCode::BAD_REQUEST, &HeaderMap::new(), &long) else {
        panic!("it is refused")
    };
    assert!(reason.chars().count() < 250 && !reason.contains('\x1b'), "{reason}");
}
