//! A real weftd in a directory of its own on loopback, and a small HTTP client for its socket.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "tests wait in real time")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes nearly as long, unless it never happens.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One agent. Ends with its units when dropped.
pub struct Agent {
    directory: tempfile::TempDir,
    name: String,
    pub port: u16,
    child: Child,
}

impl Agent {
    /// Starts an agent called `name` and waits until it answers.
    pub fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    /// The same, with more in its environment.
    pub fn start_with(name: &str, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for _ in 0..20 {
            let port = free_ports();
            std::fs::write(
                directory.path().join("weftd.toml"),
                config(directory.path(), name, port),
            )
            .expect("the configuration is written");
            // It fails when somebody took the port in between.
            if let Some(child) = launch(directory.path(), environment) {
                return Self { directory, name: name.to_owned(), port, child };
            }
        }
        panic!("weftd does not start:\n{}", read(&directory.path().join("log")));
    }

    /// The same, with a fabric of its own.
    pub fn found(name: &str) -> Self {
        let agent = Self::start(name);
        agent.call("POST", "/v1/fabric/init", None).expect(200);
        agent
    }

    /// Ends the agent at once, as a crash would. Its units run on.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is there");
        self.child.wait().expect("it is ours");
    }

    /// Asks the agent to end, and waits. True: it ended well.
    pub fn stop(&mut self) -> bool {
        self.terminate();
        self.child.wait().expect("it is ours").success()
    }

    fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }

    /// Starts it again after [`Agent::kill`] or [`Agent::stop`].
    pub fn restart(&mut self) {
        self.child = launch(self.directory.path(), &[])
            .unwrap_or_else(|| panic!("weftd does not start again:\n{}", self.log()));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("weft.sock")
    }

    pub fn log(&self) -> String {
        read(&self.directory.path().join("log"))
    }

    pub fn connect(&self) -> UnixStream {
        connect(&self.socket()).expect("the agent's socket")
    }

    /// One request on a connection of its own.
    pub fn call(&self, method: &str, target: &str, body: Option<&Value>) -> Response {
        let body = body.map(Value::to_string).unwrap_or_default();
        request(self.connect(), method, target, body.as_bytes())
            .unwrap_or_else(|error| panic!("{method} {target}: {error}\n{}", self.log()))
    }

    pub fn get(&self, target: &str) -> Value {
        self.call("GET", target, None).expect(200).json()
    }

    /// Asks until the answer is as wanted.
    pub fn wait(&self, target: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(target);
            if wanted(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < until,
                "{}: never {what}: {target} says {answer:#}\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Submits a job and waits until all of its slots are healthy.
    pub fn run(&self, spec: &Value) {
        let name = spec["name"].as_str().expect("a name");
        self.call("PUT", &format!("/v1/jobs/{name}"), Some(spec)).expect(200);
        self.wait(&format!("/v1/jobs/{name}"), "healthy", |job| job["state"] == "healthy");
    }

    /// Stops a job and waits until nothing of it is left.
    pub fn stop_job(&self, name: &str) {
        self.call("DELETE", &format!("/v1/jobs/{name}"), None).expect(200);
        self.wait(&format!("/v1/allocs?job={name}"), "stopped", |allocs| allocs == &json!([]));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What a failed test has left running. Each unit is a session of its own.
        for entry in std::fs::read_dir(self.state().join("alloc")).into_iter().flatten().flatten() {
            let record: Value =
                serde_json::from_str(&read(&entry.path().join("unit.json"))).unwrap_or_default();
            if let (Some(pid), Value::Null) = (record["process"][0].as_i64(), &record["ended"]) {
                let group = nix::unistd::Pid::from_raw(pid as i32);
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// A job that runs `command` in one slot on any node.
pub fn job(name: &str, command: &[&str]) -> Value {
    json!({
        "name": name,
        "task": {
            "command": command, "user": "root", "stop_timeout": "5s", "sandbox": {"enabled": false}
        },
        "resources": {"memory": 33_554_432},
        "update": {"min_healthy": "100ms", "deadline": "60s"},
        "restart": {"delay": "100ms"}
    })
}

/// An answer.
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// Checks the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One request; the answer is read to its end.
pub fn request(
    mut stream: UnixStream,
    method: &str,
    target: &str,
    body: &[u8],
) -> std::io::Result<Response> {
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    // The agent may answer and close before it has read all of a body that is too large.
    let _ = stream.write_all(body);
    read_response(BufReader::new(stream))
}

/// Reads an answer to its end.
pub fn read_response(mut stream: impl BufRead) -> std::io::Result<Response> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head)? > 0 {}
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("not an answer: {head:?}")))?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let mut body = Vec::new();
    if chunked {
        while let Some(chunk) = read_chunk(&mut stream)? {
            body.extend(chunk);
        }
    } else {
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
        });
        stream.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body)?;
    }
    Ok(Response { status, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// One chunk (RFC 9112, section 7.1); `None`: the last one came.
pub fn read_chunk(stream: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let length = usize::from_str_radix(line.trim(), 16)
        .map_err(|_| std::io::Error::other(format!("not a chunk: {line:?}")))?;
    let mut chunk = vec![0; length + 2];
    stream.read_exact(&mut chunk)?;
    chunk.truncate(length);
    Ok((length > 0).then_some(chunk))
}

fn config(directory: &Path, name: &str, port: u16) -> String {
    // Agents of one machine must not give the same port twice.
    let first = 20_000 + u32::from(port) % 300 * 40;
    format!(
        "state = \"{at}/state\"\nlog = \"debug\"\n\
         [node]\nname = \"{name}\"\nlabels = {{ rack = \"r1\" }}\n\
         [listen]\naddress = \"127.0.0.1\"\nport = {port}\n\
         [resources]\nports = \"{first}-{last}\"\n\
         [discovery]\nmdns = false\n\
         [api]\nsocket = \"{at}/weft.sock\"\n\
         [executor]\nkind = \"direct\"\n\
         [metrics]\nprobes = []\n",
        at = directory.display(),
        last = first + 39,
    )
}

/// `None`: it ended again.
fn launch(directory: &Path, environment: &[(&str, &str)]) -> Option<Child> {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_weftd"))
        .arg("--config")
        .arg(directory.join("weftd.toml"))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stderr(log.expect("the log is made"))
        .spawn()
        .expect("weftd is there");
    let until = Instant::now() + PATIENCE;
    let socket = directory.join("weft.sock");
    loop {
        let healthy = connect(&socket)
            .and_then(|stream| request(stream, "GET", "/healthz", b""))
            .is_ok_and(|response| response.status == 200);
        if healthy {
            return Some(child);
        }
        if child.try_wait().expect("it is ours").is_some() {
            return None;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("weftd does not answer:\n{}", read(&directory.join("log")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A UDP port that is free, as is the next one.
fn free_ports() -> u16 {
    for _ in 0..100 {
        let first = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = first.local_addr().expect("its number").port();
        if port < u16::MAX && UdpSocket::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
    panic!("no two neighbouring UDP ports are free");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
