//! systemd over D-Bus: the few calls and signals that units need.
//!
//! There is one connection. When it is lost (the bus was restarted), the next call makes a new one, and
//! the tasks of units subscribe again. Its own units the agent lists at its start only; the machine's services each quarter of a
//! minute, for their states.

use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Variant};

use super::properties::Property;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const SLICE: &str = "org.freedesktop.systemd1.Slice";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// systemd answers within this, or is not well.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);
/// Calls under way at a time. The bus refuses a connection that waits for more than 128 answers.
const CALLS_MAX: usize = 64;
/// Signals that wait for the task of a unit. When a queue is full the whole connection waits, so this is far
/// more than a unit sends while its task waits for an answer.
const SIGNALS_MAX: std::num::NonZeroUsize = std::num::NonZeroUsize::new(32).unwrap();

/// Outcome of a job of systemd: its path, and `done`, `failed`, `canceled`, `timeout`...
pub type JobOutcome = (OwnedObjectPath, String);

/// The bus. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Bus {
    /// Where it is, in D-Bus' words; `None`: where this system has it.
    address: Option<Arc<str>>,
    calls: Arc<tokio::sync::Semaphore>,
    connection: Arc<tokio::sync::Mutex<Option<Connection>>>,
    /// Who waits for jobs of which unit.
    waiting: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<JobOutcome>>>>,
    /// Properties that this systemd turned out not to know.
    unknown: Arc<Mutex<Vec<&'static str>>>,
}

/// What a unit is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `active`, `activating`, `deactivating`, `inactive`, `failed`.
    pub active: String,
    /// `running`, `exited`, `dead`...
    pub sub: String,
    /// `success`, `exit-code`, `signal`, `timeout`, `oom-kill`, `resources`...
    pub result: String,
    /// Main process; 0: none.
    pub pid: u32,
    /// How the main process ended: 1 exited, 2 killed, 3 dumped; 0 while it has not.
    pub code: i32,
    /// Its exit status or signal.
    pub status: i32,
}

impl State {
    /// Nothing of the unit is left.
    pub fn is_over(&self) -> bool {
        self.active == "inactive" || self.active == "failed"
    }
}

impl Bus {
    /// The system's bus, or the one at this address.
    pub fn new(address: Option<&str>) -> Self {
        Self {
            address: address.map(Arc::from),
            calls: Arc::new(tokio::sync::Semaphore::new(CALLS_MAX)),
            connection: Arc::default(),
            waiting: Arc::default(),
            unknown: Arc::default(),
        }
    }

    /// The connection, made anew if it was lost.
    pub async fn connection(&self) -> zbus::Result<Connection> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let builder = match self.address.as_deref() {
            None => zbus::connection::Builder::system(),
            Some(address) => zbus::connection::Builder::address(address),
        };
        let connection = builder.method_timeout(CALL_TIMEOUT).build().await?;
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SYSTEMD)
            .path(MANAGER_PATH)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()?;
        let jobs = MessageStream::for_match_rule(rule, &connection, Some(SIGNALS_MAX)).await?;
        // Without a subscriber systemd sends no signals.
        connection
            .call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "Subscribe", &())
            .await?;
        tokio::spawn(hand_out(jobs, Arc::clone(&self.waiting)));
        *slot = Some(connection.clone());
        Ok(connection)
    }

    async fn manager<B>(&self, method: &str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let connection = self.connection().await?;
        let _turn = self.calls.acquire().await;
        connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), method, body).await
    }

    async fn get(&self, path: &str, interface: &str, name: &str) -> zbus::Result<OwnedVariant> {
        let connection = self.connection().await?;
        let _turn = self.calls.acquire().await;
        let body = (interface, name);
        let reply =
            connection.call_method(Some(SYSTEMD), path, Some(PROPERTIES), "Get", &body).await?;
        reply.body().deserialize()
    }

    /// systemd's version, as `systemctl --version` says it.
    pub async fn version(&self) -> zbus::Result<String> {
        let value = self.get(MANAGER_PATH, MANAGER, "Version").await?;
        String::try_from(&*value)
    }

    /// What systemd does as a whole: `running`, `degraded`, `stopping`...
    pub async fn system_state(&self) -> zbus::Result<String> {
        let value = self.get(MANAGER_PATH, MANAGER, "SystemState").await?;
        String::try_from(&*value)
    }

    /// Outcomes of a unit's jobs from now on. Ask before the job begins.
    pub fn jobs(&self, unit: &str) -> Jobs {
        let (sender, outcomes) = mpsc::unbounded_channel();
        lock(&self.waiting).insert(unit.to_owned(), sender);
        Jobs { unit: unit.to_owned(), outcomes, waiting: Arc::clone(&self.waiting) }
    }

    /// Changes of a unit's properties from now on.
    pub async fn changes(&self, unit: &str) -> zbus::Result<MessageStream> {
        let connection = self.connection().await?;
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SYSTEMD)
            .path(path_of(unit))
            .interface(PROPERTIES)
            .member("PropertiesChanged")
            .add_arg(UNIT)
            .build()?;
        let _turn = self.calls.acquire().await;
        MessageStream::for_match_rule(rule, &connection, Some(SIGNALS_MAX)).await
    }

    /// Starts a transient unit and gives back its job. Properties that are not required and that
    /// this systemd does not know are left out, now and from then on.
    pub async fn start_transient(
        &self,
        unit: &str,
        mut properties: Vec<Property>,
    ) -> zbus::Result<OwnedObjectPath> {
        let nothing: Vec<(String, Vec<(String, Variant<'_>)>)> = Vec::new();
        loop {
            let unknown = lock(&self.unknown).clone();
            properties.retain(|property| !unknown.contains(&property.name));
            let list: Vec<(&str, &Variant<'_>)> =
                properties.iter().map(|property| (property.name, &property.value)).collect();
            let error =
                match self.manager("StartTransientUnit", &(unit, "fail", list, &nothing)).await {
                    Ok(reply) => return reply.body().deserialize(),
                    Err(error) => error,
                };
            let text = error.to_string();
            let named = |property: &&Property| {
                let words: Vec<&str> = text.split([' ', ',', ':', '\'']).collect();
                !property.required && words.contains(&property.name)
            };
            match properties.iter().find(named) {
                Some(property) => {
                    tracing::info!(
                        property = property.name,
                        error = text,
                        "this systemd lacks a property"
                    );
                    lock(&self.unknown).push(property.name);
                }
                None => return Err(error),
            }
        }
    }

    /// Starts a unit that has a file, and gives back at once.
    pub async fn begin(&self, unit: &str) -> zbus::Result<()> {
        self.manager("StartUnit", &(unit, "fail")).await.map(drop)
    }

    /// Ends a unit, and gives back at once.
    pub async fn stop(&self, unit: &str) -> zbus::Result<()> {
        self.manager("StopUnit", &(unit, "replace")).await.map(drop)
    }

    /// Sends a signal to all of a unit.
    pub async fn kill(&self, unit: &str, signal: i32) -> zbus::Result<()> {
        self.manager("KillUnit", &(unit, "all", signal)).await.map(drop)
    }

    /// Keeps a unit loaded after its end, so that its result can be read.
    pub async fn hold(&self, unit: &str) -> zbus::Result<()> {
        self.manager("RefUnit", &(unit,)).await.map(drop)
    }

    /// Lets systemd forget a unit that is over.
    pub async fn forget(&self, unit: &str) {
        // Refused when it did not fail, or is not held: as good.
        let _ = self.manager("ResetFailedUnit", &(unit,)).await;
        let _ = self.manager("UnrefUnit", &(unit,)).await;
    }

    /// Changes properties of a running unit until it ends.
    pub async fn set(&self, unit: &str, name: &str, value: Variant<'_>) -> zbus::Result<()> {
        self.manager("SetUnitProperties", &(unit, true, vec![(name, value)])).await.map(drop)
    }

    /// The loaded units that match a pattern: name, and `active`, `failed` and so on.
    pub async fn list(&self, pattern: &str) -> zbus::Result<Vec<(String, String)>> {
        type Row = (
            String,
            String,
            String,
            String,
            String,
            String,
            OwnedObjectPath,
            u32,
            String,
            OwnedObjectPath,
        );
        let none: [&str; 0] = [];
        let reply =
            self.manager("ListUnitsByPatterns", &(none.as_slice(), [pattern].as_slice())).await?;
        let rows: Vec<Row> = reply.body().deserialize()?;
        Ok(rows.into_iter().map(|row| (row.0, row.3)).collect())
    }

    /// What a unit is doing. One that is not there is `inactive`.
    pub async fn state(&self, unit: &str) -> zbus::Result<State> {
        let path = path_of(unit);
        let unit = |name| self.get(&path, UNIT, name);
        let service = |name| self.get(&path, SERVICE, name);
        // The state first: once it says that the unit is over, the rest no longer changes.
        let (active, sub) = futures_util::try_join!(unit("ActiveState"), unit("SubState"))?;
        let (result, pid, code, status) = futures_util::try_join!(
            service("Result"),
            service("MainPID"),
            service("ExecMainCode"),
            service("ExecMainStatus"),
        )?;
        Ok(State {
            active: String::try_from(&*active)?,
            sub: String::try_from(&*sub)?,
            result: String::try_from(&*result)?,
            pid: u32::try_from(&*pid)?,
            code: i32::try_from(&*code)?,
            status: i32::try_from(&*status)?,
        })
    }

    /// A unit's environment.
    pub async fn environment(&self, unit: &str) -> zbus::Result<Vec<String>> {
        let value = self.get(&path_of(unit), SERVICE, "Environment").await?;
        Variant::from(value).try_into()
    }

    /// The cgroup of all of systemd's units, below the mount: `/` and usually nothing more.
    pub async fn top_cgroup(&self) -> zbus::Result<String> {
        let value = self.get(&path_of("-.slice"), SLICE, "ControlGroup").await?;
        String::try_from(&*value)
    }

    /// A unit's cgroup, below the mount; empty when it has none.
    pub async fn cgroup(&self, unit: &str) -> zbus::Result<String> {
        let value = self.get(&path_of(unit), SERVICE, "ControlGroup").await?;
        String::try_from(&*value)
    }
}

/// Outcomes of one unit's jobs. Dropping it ends the waiting.
#[derive(Debug)]
pub struct Jobs {
    unit: String,
    outcomes: mpsc::UnboundedReceiver<JobOutcome>,
    waiting: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<JobOutcome>>>>,
}

impl Jobs {
    /// How `job` ended.
    pub async fn outcome(&mut self, job: &OwnedObjectPath) -> Option<String> {
        while let Some((path, result)) = self.outcomes.recv().await {
            if path == *job {
                return Some(result);
            }
        }
        None
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.unit);
    }
}

async fn hand_out(
    mut removed: MessageStream,
    waiting: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<JobOutcome>>>>,
) {
    while let Some(Ok(message)) = removed.next().await {
        let body = message.body();
        let Ok((_, job, unit, result)) =
            body.deserialize::<(u32, OwnedObjectPath, String, String)>()
        else {
            continue;
        };
        if let Some(waiter) = lock(&waiting).get(&unit) {
            let _ = waiter.send((job, result));
        }
    }
}

/// The object of a unit: every byte but letters and digits as `_` and two hex digits.
pub fn path_of(unit: &str) -> String {
    use std::fmt::Write;
    let mut path = format!("{MANAGER_PATH}/unit/");
    for (position, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && position > 0) {
            path.push(byte as char);
        } else {
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
