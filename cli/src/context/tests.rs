use super::*;

#[test]
fn a_host_is_read_as_it_is_written_and_can_be_no_option() {
    let arguments = |text: &str| text.parse::<Host>().map(|host| host.arguments().join(" "));
    for (text, expected) in [
        ("ssh://pine", "-T -- pine"),
        ("ssh://root@pine", "-T -- root@pine"),
        ("ssh://root@pine.example.org:2222", "-T -p 2222 -- root@pine.example.org"),
        ("ssh://[fd00::7]:22", "-T -p 22 -- fd00::7"),
        ("ssh://[fe80::1%eth0]", "-T -- fe80::1%eth0"),
    ] {
        assert_eq!(arguments(text).as_deref(), Ok(expected), "{text}");
        assert_eq!(text.parse::<Host>().unwrap().to_string(), text);
    }
    for wrong in [
        "pine",
        "ssh://",
        "ssh://@pine",
        "ssh://-oProxyCommand=x",
        "ssh://-l@pine",
        "ssh://pine:0",
        "ssh://pine:70000",
        "ssh://pine:",
        "ssh://pine/path",
        "ssh://a b",
        "ssh://a;b",
        "ssh://$(x)@pine",
        "ssh://[fd00::7",
        "ssh://[fd00::7]x",
        "http://pine",
    ] {
        assert!(arguments(wrong).unwrap_err().contains("write ssh://"), "{wrong}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let contexts = [("home", "ssh://root@pine"), ("lab_2", "ssh://[fd00::7]:22")];
    let contexts = contexts.map(|(name, host)| (name.to_owned(), host.parse::<Host>().unwrap()));
    let kept = Kept { current: Some("home".into()), contexts: contexts.into() };
    assert_eq!(toml::from_str::<Kept>(&kept.text()).unwrap(), kept);
    assert_eq!(toml::from_str::<Kept>(&Kept::default().text()).unwrap(), Kept::default());
    for wrong in ["", "a b", "a.b", "é", "x=\"\""] {
        assert!(name(wrong).is_err(), "{wrong}");
    }
}
