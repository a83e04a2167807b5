use super::*;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

#[test]
fn an_answer_has_a_status_and_perhaps_text() {
    let said = parse(" 3 YQpi").expect("well formed");
    assert_eq!((said.status, &said.text[..]), (3, "a\nb"));
    let said = parse(" 0").expect("well formed");
    assert_eq!((said.status, &said.text[..]), (0, ""));
    for bad in ["", " x YQ==", " 0 !"] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

/// The machine's side is the script that machines really run, with a socket for a serial port.
#[test]
fn what_a_script_says_is_not_taken_for_its_end() {
    let folder = std::env::temp_dir().join(format!("weft-serial-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("there is room");
    let socket = folder.join("port");
    let listener = UnixListener::bind(&socket).expect("a free name");
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/shell.sh"))
        .expect("it lies there")
        .replace("stty raw -echo", "")
        .replace("/run/", &format!("{}/", folder.display()));
    let machine = std::thread::spawn(move || {
        let (port, _) = listener.accept().expect("the test connects");
        let mut child = Command::new("sh")
            .args(["-c", &text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let (mut to, from) =
            (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut back = port.try_clone().expect("a socket");
        let said = std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if writeln!(back, "noise of a kernel\r\n{line}\r").is_err() {
                    break;
                }
            }
        });
        for line in BufReader::new(port).lines().map_while(Result::ok) {
            if writeln!(to, "{line}").is_err() {
                break;
            }
        }
        child.kill().expect("it is ours");
        child.wait().expect("it has ended");
        said.join().expect("its pipe is closed");
    });
    let patience = Duration::from_secs(60);
    let mut shell = Shell::wait(&socket, patience, || Ok(false)).expect("it says that it is ready");
    let said = shell.run("echo script-1 0; echo 'shell ready'; echo oops >&2; exit 7", patience);
    let said = said.expect("it answers");
    assert_eq!((said.status, &said.text[..]), (7, "script-1 0\nshell ready\noops\n"));
    assert_eq!(shell.run("true", patience).expect("it answers").text, "");
    let late = shell.run("sleep 5", Duration::from_millis(300)).expect_err("it sleeps longer");
    assert!(late.to_string().contains("not done within"), "{late}");
    drop(shell);
    machine.join().expect("it ends with the port");
    std::fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn a_machine_that_hangs_is_not_waited_for() {
    let socket = std::env::temp_dir().join(format!("weft-hangs-{}", std::process::id()));
    let _listener = UnixListener::bind(&socket).expect("a free name");
    let never = Duration::from_secs(3600);
    let Err(error) = Shell::wait(&socket, never, || Ok(true)) else { panic!("nobody answered") };
    assert_eq!(format!("{error:#}"), "its kernel hangs");
    std::fs::remove_file(&socket).expect("ours");
}
