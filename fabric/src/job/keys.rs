//! Every key of a job file: what the parser knows, and what the reference says (`docs/JOBFILE.md` is made of it).

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// A value of it.
    pub example: &'static str,
    /// The value that it has when it is left out; `None`: it has none.
    pub default: Option<&'static str>,
    /// What it means, in Markdown.
    pub meaning: &'static str,
}

/// Keys that stand together.
#[derive(Clone, Copy, Debug)]
pub struct KeyTable {
    /// Its head, as it is written; empty for the keys at the top.
    pub head: &'static str,
    /// What it is about, in Markdown.
    pub about: &'static str,
    /// In the order in which a person would write them.
    pub keys: &'static [Key],
}

const fn key(name: &'static str, example: &'static str, meaning: &'static str) -> Key {
    Key { name, example, default: None, meaning }
}

const fn with(
    name: &'static str,
    default: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, example, default: Some(default), meaning }
}

pub(super) const JOB: KeyTable = KeyTable {
    head: "",
    about: "These stand above the first section.",
    keys: &[
        key(
            "name",
            "\"web\"",
            "The job's name: lower-case letters, digits and `-`, 63 at most. **Required.**",
        ),
        with(
            "type",
            "\"service\"",
            "\"system\"",
            "`service`: `count` copies, wherever they fit. `system`: one copy on each matching node, also on those that join later.",
        ),
        with(
            "count",
            "1",
            "3",
            "How many slots a service has. 0 stops all of them and keeps the job.",
        ),
        with(
            "guarantee",
            "\"at-least\"",
            "\"at-most-one\"",
            "`at-most-one`: a slot runs under a lease that a majority of the voters granted, and ends where it cannot be renewed. `at-least`: each half of a split may run its own.",
        ),
        with(
            "priority",
            "50",
            "70",
            "1 to 100. A job with a higher one may displace what has a strictly lower one, where it fits nowhere else.",
        ),
        with(
            "namespace",
            "\"default\"",
            "\"research\"",
            "Whose quota it counts against (`weft quota set`).",
        ),
        with("gang", "false", "true", "All slots start, or none holds a claim."),
        key(
            "task",
            "{ command = [\"/usr/bin/sleep\", \"60\"] }",
            "The section `[task]`. **Required.**",
        ),
        key("resources", "{ cpu = 0.5 }", "The section `[resources]`."),
        key("port", "[{ name = \"http\" }]", "A section `[[port]]` for each port."),
        key("health", "{ command = [\"/usr/bin/true\"] }", "The section `[health]`."),
        key("placement", "{ spread = \"arch\" }", "The section `[placement]`."),
        key("update", "{ max_parallel = 2 }", "The section `[update]`."),
        key("restart", "{ attempts = 5 }", "The section `[restart]`."),
        key("keep", "{ ended = \"1d\" }", "The section `[keep]`."),
    ],
};

pub(super) const TASK: KeyTable = KeyTable {
    head: "[task]",
    about: "The program, and what surrounds it. In `command`, in the values of `env` and in `health.command` these are replaced: \
            `${port.NAME}`, `${cpus}`, `${job}`, `${slot}`, `${epoch}`, `${node}`; `$${` stands for a plain `${`.",
    keys: &[
        key(
            "command",
            "[\"/usr/bin/python3\", \"-m\", \"http.server\"]",
            "The program, by its absolute path on the node, and its arguments. **Required**, unless each architecture has its own (`[task.arch.NAME]`).",
        ),
        with(
            "env",
            "{}",
            "{ MODE = \"fast\" }",
            "Environment variables. Every node of the fabric keeps them: [who can read them](SECURITY.md#who-can-read-a-secret).",
        ),
        key(
            "user",
            "\"www-data\"",
            "The user of the node to run as. Left out: a user made up for the job, who owns nothing else.",
        ),
        key("working_dir", "\"/srv/web\"", "The directory to start in. Left out: `/`."),
        with(
            "files",
            "[]",
            "[{ path = \"/etc/web.conf\", content = \"a = 1\" }]",
            "A section `[[task.files]]` for each file that is made for the task.",
        ),
        with("stop_signal", "\"SIGTERM\"", "\"SIGINT\"", "The signal that asks it to end."),
        with(
            "stop_timeout",
            "\"10s\"",
            "\"30s\"",
            "After this it is killed. An at-most-one job has 30 s at most: a successor waits for it.",
        ),
        with("sandbox", "{}", "{ devices = true }", "The section `[task.sandbox]`."),
        with(
            "arch",
            "{}",
            "{ aarch64 = { command = [\"/opt/arm/web\"] } }",
            "Sections `[task.arch.NAME]`: what is different on an architecture, by the name that `uname -m` has for it.",
        ),
    ],
};

pub(super) const VARIANT: KeyTable = KeyTable {
    head: "[task.arch.NAME]",
    about: "What a task has instead on machines of one architecture (`x86_64`, `aarch64`). What is left out is the task's own. A task \
            without a `command` of its own runs on these architectures only.",
    keys: &[
        key("command", "[\"/opt/arm/web\"]", "The program and its arguments, all of them."),
        with(
            "env",
            "{}",
            "{ THREADS = \"2\" }",
            "Variables that are added, or that replace those of the same name.",
        ),
        key("user", "\"www-data\"", "The user to run as."),
        key("working_dir", "\"/srv\"", "The directory to start in."),
        with(
            "files",
            "[]",
            "[{ path = \"/etc/web.conf\", content = \"a = 2\" }]",
            "Files that are added, or that replace those of the same path.",
        ),
    ],
};

pub(super) const FILE: KeyTable = KeyTable {
    head: "[[task.files]]",
    about: "A file that the task alone sees, read-only, also where the machine has no such folder. It goes when the unit has ended.",
    keys: &[
        key("path", "\"/etc/web.conf\"", "The absolute path that the task sees. **Required.**"),
        key("content", "\"a = 1\"", "The file's text."),
        key(
            "source",
            "\"./web.conf\"",
            "In place of `content`: a file to read it from when the job is applied, relative to the job file.",
        ),
    ],
};

pub(super) const SANDBOX: KeyTable = KeyTable {
    head: "[task.sandbox]",
    about: "What a task may touch. Everything starts closed: the system is read-only, homes are hidden, and `/tmp` is its own. \
            Enforced by systemd; an agent without it (`executor = \"direct\"`) has fewer of these walls, and `weft plan` says so.",
    keys: &[
        with("enabled", "true", "false", "`false`: no sandbox at all."),
        with(
            "writable",
            "[]",
            "[\"/srv/web\"]",
            "Paths that it may write to, besides its own `/tmp`. They must be there, and its user must be allowed to write.",
        ),
        with("capabilities", "[]", "[\"CAP_NET_BIND_SERVICE\"]", "Capabilities that it keeps."),
        with(
            "syscalls",
            "[\"@system-service\"]",
            "[\"@system-service\", \"@mount\"]",
            "System calls that it may make, in systemd's words.",
        ),
        with(
            "devices",
            "false",
            "true",
            "The real devices below `/dev`, besides those that it claims.",
        ),
        with("home", "false", "true", "Home directories can be seen."),
        with("new_privileges", "false", "true", "It may gain privileges by setuid programs."),
        with("tasks_max", "1024", "64", "Processes and threads at a time."),
    ],
};

pub(super) const RESOURCES: KeyTable = KeyTable {
    head: "[resources]",
    about: "What an allocation needs of its node. It is placed where that is free, and nobody else is promised it. Sizes: `B KiB MiB GiB \
            TiB`, or `kB MB GB TB`.",
    keys: &[
        key("cores", "2", "Physical cores that nobody else gets. Or `cpu`, not both."),
        with("cpu", "0.1", "0.5", "CPUs that are shared with others: 0.5 is half the time of one."),
        with(
            "cpu_hard",
            "false",
            "true",
            "With `cpu`: no more than that, even when the machine is idle.",
        ),
        key(
            "smt",
            "\"share\"",
            "With `cores`: `whole` (the default): the siblings of its hardware threads stay empty. `share`: a core is one hardware thread, and the sibling may go to another job.",
        ),
        with("memory", "\"64MiB\"", "\"2GiB\"", "Memory. Whoever uses more is killed."),
        with("swap", "0", "\"64MiB\"", "Swap that it may use."),
        with(
            "disk",
            "0",
            "\"2GiB\"",
            "What it may keep on the node's disk: counted, and not enforced.",
        ),
        with(
            "numa",
            "\"none\"",
            "\"prefer\"",
            "Cores, memory and devices on one memory node: `none` does not mind, `prefer` where it can be had, `require` or not at all.",
        ),
        with("hugepages", "{}", "{ \"2MiB\" = 16 }", "Huge pages: how many of each size."),
        with(
            "devices",
            "[]",
            "[\"gpu\"]",
            "Devices, one each: a class (`gpu`), an identity (`usb:1a86:7523`, `pci:10de:2204`) or a path (`/dev/ttyUSB0`). Which it got is in `WEFT_DEVICES`.",
        ),
    ],
};

pub(super) const PORT: KeyTable = KeyTable {
    head: "[[port]]",
    about: "A TCP or UDP port that no other job of the node gets, and that no other program there listens on.",
    keys: &[
        key(
            "name",
            "\"http\"",
            "`${port.NAME}` in the command, `WEFT_PORT_NAME` in the environment. **Required.**",
        ),
        key("static", "8080", "The number. Left out: the node picks one."),
    ],
};

pub(super) const HEALTH: KeyTable = KeyTable {
    head: "[health]",
    about: "How to tell that an allocation works: one of `http`, `tcp` and `command`. Without the section whoever runs is healthy.",
    keys: &[
        key("http", "\"/\"", "GET of this path answers with a status from 200 to 399."),
        key("tcp", "true", "The port takes a connection. What answers must be the job's own."),
        key(
            "command",
            "[\"/usr/bin/check\"]",
            "The command exits 0. It runs as a part of the task, within its limits.",
        ),
        key(
            "port",
            "\"http\"",
            "With `http` and `tcp`: the port's name. May be left out where there is one.",
        ),
        with("interval", "\"2s\"", "\"5s\"", "Time between two checks."),
        key(
            "timeout",
            "\"1s\"",
            "An answer that takes longer is a failure. At most the interval; left out, 2 s or the interval.",
        ),
        with("failures", "3", "2", "Failures in a row after which it is unhealthy, and restarted."),
        with(
            "grace",
            "\"10s\"",
            "\"30s\"",
            "After a start, failures do not count for this long, or until the first success.",
        ),
    ],
};

pub(super) const PLACEMENT: KeyTable = KeyTable {
    head: "[placement]",
    about: "Where slots go. A condition is `ATTRIBUTE OPERATOR VALUE`: the operators are `== != < <= > >=`, the attributes of a node \
            `name`, `arch`, `kernel`, `os`, `version`, `executor`, `cores`, `memory`, `numa`, `labels.NAME` and `devices.CLASS` (how many).",
    keys: &[
        with(
            "constraints",
            "[]",
            "['kernel >= \"6.1\"', \"cores >= 4\"]",
            "Conditions that must all hold.",
        ),
        with(
            "affinity",
            "[]",
            "[{ if = \"labels.disk == ssd\", weight = 30 }]",
            "Conditions that make a node better, or worse. One alone has weight 10.",
        ),
        with(
            "anti_affinity",
            "[]",
            "[\"database\"]",
            "Jobs whose nodes are avoided. It binds this job alone. A job that names itself gets one slot a node.",
        ),
        with(
            "spread",
            "[]",
            "[\"labels.rack\", \"name\"]",
            "Evenly over the values of this attribute, and within each over those of the next.",
        ),
        with(
            "sticky",
            "false",
            "true",
            "A replacement goes where the slot was last, while that node is up and has room.",
        ),
        with(
            "strategy",
            "\"least-loaded\"",
            "\"best-fit\"",
            "`best-fit` fills holes exactly, so that whole memory nodes stay free.",
        ),
    ],
};

pub(super) const AFFINITY: KeyTable = KeyTable {
    head: "placement.affinity",
    about: "An item of the list: a condition alone, or one with a weight.",
    keys: &[
        key("if", "\"labels.disk == ssd\"", "The condition. **Required.**"),
        with("weight", "10", "30", "-100 to 100. A negative one makes the node worse."),
    ],
};

pub(super) const UPDATE: KeyTable = KeyTable {
    head: "[update]",
    about: "How a new version replaces the one before. No update stops what it cannot replace.",
    keys: &[
        with(
            "max_parallel",
            "1",
            "2",
            "Slots that may be without a healthy allocation at a time because of the update.",
        ),
        with(
            "min_healthy",
            "\"5s\"",
            "\"30s\"",
            "A new allocation counts when it was healthy for this long.",
        ),
        with(
            "deadline",
            "\"2m\"",
            "\"10m\"",
            "A new allocation that is not healthy by then has failed.",
        ),
        with("auto_revert", "true", "false", "A version that fails is taken back."),
    ],
};

pub(super) const RESTART: KeyTable = KeyTable {
    head: "[restart]",
    about: "What happens when an allocation exits, or is unhealthy.",
    keys: &[
        with(
            "attempts",
            "3",
            "5",
            "Restarts on the same node within `within`. After that the slot is placed elsewhere.",
        ),
        with("within", "\"1m\"", "\"5m\"", "The time in which they are counted."),
        with(
            "delay",
            "\"1s\"",
            "\"2s\"",
            "Wait before the first one, a second at least. It doubles with each.",
        ),
    ],
};

pub(super) const KEEP: KeyTable = KeyTable {
    head: "[keep]",
    about: "How long what is over is remembered.",
    keys: &[with(
        "ended",
        "\"12h\"",
        "\"7d\"",
        "Allocations that have ended, and why: `weft ps --all` shows them. A minute to 30 days.",
    )],
};

/// All sections, in the order of the reference.
pub const TABLES: [&KeyTable; 13] = [
    &JOB, &TASK, &VARIANT, &FILE, &SANDBOX, &RESOURCES, &PORT, &HEALTH, &PLACEMENT, &AFFINITY,
    &UPDATE, &RESTART, &KEEP,
];

/// The reference, in Markdown.
pub fn reference() -> String {
    use std::fmt::Write;

    let mut text = String::from(
        "# Job files\n\n<!-- Made of fabric/src/job/keys.rs: change it there, and run the tests with WEFT_REWRITE=1. -->\n\n\
         A job file is TOML, and describes one job. `weft plan FILE` shows what it would do, `weft apply FILE` does it. A key that is not \
         listed here is refused, with the nearest that is. [Examples](examples). Durations are written like `500ms`, `10s`, `2m`, `12h`, `7d`.\n\n\
         [weft-job.schema.json](weft-job.schema.json) has all of it as a JSON Schema, for editors that complete and check TOML by one: with\n\
         `#:schema PATH` in its first line a file names it.\n",
    );
    for section in TABLES {
        let title = if section.head.is_empty() { "The job" } else { section.head };
        let _ = write!(
            text,
            "\n## {}\n\n{}\n\n| key | example | default | meaning |\n|---|---|---|---|\n",
            if section.head.is_empty() { title.to_owned() } else { format!("`{title}`") },
            section.about
        );
        for Key { name, example, default, meaning } in section.keys {
            let default = default.map(|value| format!("`{value}`")).unwrap_or_default();
            let _ = writeln!(text, "| `{name}` | `{example}` | {default} | {meaning} |");
        }
    }
    text
}

/// The same as a page for `man`: weft-job(5), in the language of man(7).
pub fn manual() -> String {
    use std::fmt::Write;

    let mut text = String::from(
        ".\\\" Made of fabric/src/job/keys.rs: change it there, and run the tests with WEFT_REWRITE=1.\n\
         .TH WEFT-JOB 5 \"\" weft weft\n.SH NAME\nweft-job \\- what a job file of weft says\n.SH DESCRIPTION\n\
         A job file is TOML, and describes one job.\n.BR weft-plan (1)\nshows what it would do,\n.BR weft-apply (1)\n\
         does it. A key that is not listed here is refused, with the nearest that is.\n\
         Durations are written like 500ms, 10s, 2m, 12h, 7d; sizes like 64MiB, 1.5GiB.\n",
    );
    for section in TABLES {
        let title = if section.head.is_empty() { "THE JOB" } else { section.head };
        let _ = writeln!(text, ".SH \"{}\"\n{}", plain(title), roff(section.about));
        for Key { name, example, default, meaning } in section.keys {
            let _ = writeln!(
                text,
                ".TP\n\\fB{}\\fR = {}\n{}",
                plain(name),
                plain(example),
                roff(meaning)
            );
            if let Some(default) = default {
                let _ = writeln!(text, "Default: {}.", plain(default));
            }
        }
    }
    text.push_str(".SH SEE ALSO\n.BR weft (1),\n.BR weft-apply (1),\n.BR weftd (8)\n");
    text
}

/// Text that means nothing to `man`.
fn plain(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// Markdown as far as the table uses it: code, bold words and links.
fn roff(markdown: &str) -> String {
    let mut text = String::new();
    let mut parts = markdown.split('`');
    while let Some(words) = parts.next() {
        let mut bold = words.split("**");
        while let Some(words) = bold.next() {
            text.push_str(&without_links(words));
            if let Some(words) = bold.next() {
                text.push_str(&format!("\\fB{}\\fR", plain(words)));
            }
        }
        if let Some(code) = parts.next() {
            text.push_str(&format!("\\fB{}\\fR", plain(code)));
        }
    }
    // A line that begins with a dot or a quote is an order.
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// `[words](address)` as `words`.
fn without_links(text: &str) -> String {
    match text.split_once("](").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1))) {
        Some((before, after)) => {
            let before = before.replacen('[', "", 1);
            format!("{}{}", plain(&before), without_links(after))
        }
        None => plain(text),
    }
}

#[cfg(test)]
mod tests;
