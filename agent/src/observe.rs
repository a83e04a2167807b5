//! What this machine and its units do: measured, kept for a day, and asked about in PromQL.
//!
//! One thread, `observe`, does all of it: once a second it calls its [collectors](Collector), which read
//! the probes (crate `ebpf`), the kernel's files and the agent's own counters; their samples go into the store
//! (crate `metrics`); and between two rounds it answers questions, which come over a bounded channel. The
//! agent's loop never waits for it, and an expensive question delays samples, not gossip.
//!
//! Whoever measures something else writes a [`Collector`] and gives it to [`Observer::start`].
//!
//! Every series has the label `node`; see `docs/METRICS.md` for their names.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use anyhow::Context;
use ebpf::CgroupId;
use fabric::clock::WallTime;
use fabric::id::AllocId;
use fabric::limits;
use futures_util::{StreamExt, stream};
use metrics::answer::Answer;
use metrics::evaluate::Limits;
use metrics::exposition::{Exposition, Format};
use metrics::store::Usage;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::clock::{self, BootTime};
use crate::config::MetricsSection;
use allocations::Allocations;
use counters::Counting;
use gather::Gathering;
use own::{Ledger, Own};
use probing::{Counted, Pressure, Probing, RoundTrips};
pub use probing::{ProbeReport, source_name};
use query::Query;
use remote::{Remote, Sending};
use sink::{Collector, Recorder};
pub use sink::{Metric, SourceReport};

mod allocations;
mod counters;
mod counts;
mod families;
pub(crate) mod gather;
mod own;
mod probing;
pub mod query;
pub mod remote;
pub mod sink;
mod units;
pub mod wire;

/// Questions that wait; further ones are refused.
const QUESTIONS_MAX: usize = 64;
/// Time between two rounds of collectors, unless they want more.
const ROUND: Duration = Duration::from_secs(1);
/// A wall clock that moves by this much against the one that counts from the boot was set: time servers slew by half a
/// millisecond in a second.
const STEP_MS: i64 = 500;
/// Time between two looks for what is too old to keep.
const EXPIRE: Duration = Duration::from_secs(60);
/// Nodes that are asked at once for one query: the answers of all of them may be in memory together.
const ASKED_AT_ONCE: usize = 32;
/// For the loop's counters alone.
const SCRATCH_BYTES: usize = 512 << 10;
/// Stack of the thread: an expression may be a hundred operations deep.
const STACK_BYTES: usize = 2 << 20;

/// Who hands in samples, beside the collectors. What one of them does not give again has ended, whatever others give.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The agent's loop: what it has counted.
    Loop,
    /// Whoever asks systemd for the machine's services.
    Services,
}

impl Source {
    /// Among the numbers of collectors.
    fn number(self) -> u16 {
        match self {
            Source::Loop => u16::MAX,
            Source::Services => u16::MAX - 1,
        }
    }
}

/// Asks the thread `observe`. Clones ask the same one; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Observer {
    /// `None`: switched off.
    questions: Option<SyncSender<Question>>,
}

/// Something for the thread to do.
#[derive(Debug)]
enum Question {
    /// The node is called this from now on.
    Rename(String),
    /// How the thread is doing.
    Report(oneshot::Sender<Report>),
    /// The cgroups of an allocation.
    Cgroups(AllocId, oneshot::Sender<Vec<CgroupId>>),
    /// What the agent's loop has counted.
    Count(Source, Vec<Sample>),
    /// All that is measured, for a scraper, with what the loop has counted.
    Expose(Vec<Sample>, Format, oneshot::Sender<String>),
    /// A question of this node alone.
    Alone(Query, oneshot::Sender<Answer>),
    /// A question of all nodes begins.
    Begin(Query, oneshot::Sender<Result<Box<Gathering>, Box<Answer>>>),
    /// Another node has answered it.
    Take(Box<Gathering>, String, Vec<u8>, oneshot::Sender<Result<Box<Gathering>, Box<Answer>>>),
    /// All have, or had the time.
    Finish(Box<Gathering>, oneshot::Sender<Answer>),
    /// Another node's question.
    Peer(Vec<u8>, oneshot::Sender<Vec<u8>>),
}

/// Something that the agent's loop has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Of what.
    pub metric: Metric<'static>,
    /// Whose.
    pub labels: Vec<(&'static str, String)>,
    /// How much.
    pub value: f64,
}

/// How the thread is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What became of each probe.
    pub probes: Vec<ProbeReport>,
    /// What else not every machine has.
    pub sources: Vec<SourceReport>,
    /// How full the store is.
    pub usage: Usage,
    /// How sending samples goes, where there is a receiver.
    pub sending: Option<Sending>,
}

/// Another node that can be asked.
pub trait Peer: Send {
    /// Its answer, or why there is none. Both question and answer are of [`wire`]; the answer has
    /// [`wire::ANSWER_BYTES_MAX`] bytes at most.
    fn ask(self, question: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, String>> + Send;
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// By the configuration.
    #[error("nothing is measured here: `enabled` in [metrics] of weftd.toml is false")]
    Off,
    /// The bound on questions.
    #[error("{QUESTIONS_MAX} questions wait already: ask again in a moment")]
    Busy,
    /// This should not happen.
    #[error("the thread that measures has ended: restart the agent, and report this")]
    Gone,
}

impl Observer {
    /// Starts the thread `observe` for a node of this name, whose allocations have their cgroups in `units`. `collectors` makes
    /// those who measure the machine, in that thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(
        config: &MetricsSection,
        name: &str,
        units: Option<PathBuf>,
        collectors: fn() -> Vec<Box<dyn Collector>>,
    ) -> anyhow::Result<Self> {
        if !config.enabled {
            return Ok(Self { questions: None });
        }
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        let (probes, budget, name) = (config.probes(), config.memory(), name.to_owned());
        let counters = config.counters;
        let every = config.remote_write_every();
        let remote = config.remote_write().map(|receiver| Remote::start(receiver, every));
        let remote = remote.transpose().context("cannot start the thread that sends samples")?;
        Builder::new()
            .name("observe".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let config = ebpf::Config { probes, ..ebpf::Config::default() };
                let probing = Probing::load(&config, units.as_deref());
                let counting = units.clone().map(|folder| Counting::load(folder, counters));
                let mut others = collectors();
                if let Some(counting) = counting {
                    others.insert(0, Box::new(counting));
                }
                Thread::new(probing, units, budget, &name, remote, others).run(&asked);
            })
            .context("cannot start the thread that measures")?;
        Ok(Self { questions: Some(questions) })
    }

    /// What time it is in the fabric, and by this machine's clock: where that is wrong, what is measured is dated
    /// by the fabric's, so that it is found beside what others measure.
    pub fn correct(&self, fabric: WallTime, own: WallTime) {
        let by_ms = i128::from(fabric.0) - i128::from(own.0);
        let wrong = by_ms.unsigned_abs() >= limits::CLOCK_OFF.as_millis();
        let by_ms = if wrong { i64::try_from(by_ms).unwrap_or(0) } else { 0 };
        CORRECTION_MS.store(by_ms, Ordering::Relaxed);
    }

    /// The node is called this from now on.
    pub fn rename(&self, name: &str) {
        // Full: it is said again.
        let _ = self.ask(Question::Rename(name.to_owned()));
    }

    /// How the thread is doing.
    pub async fn report(&self) -> Result<Report, Unanswered> {
        self.answer(Question::Report).await
    }

    /// The cgroups of an allocation that runs here: its own and those that it made below. None: it does not
    /// run, or has no cgroup.
    pub async fn cgroups(&self, alloc: &AllocId) -> Result<Vec<CgroupId>, Unanswered> {
        self.answer(|answer| Question::Cgroups(alloc.clone(), answer)).await
    }

    /// What this source has now goes into the store.
    pub fn count(&self, source: Source, samples: Vec<Sample>) {
        // Full: the next time is soon.
        let _ = self.ask(Question::Count(source, samples));
    }

    /// All that is measured, and what the agent's loop has counted, as text for a scraper. Where nothing is
    /// measured, there is still the latter.
    pub async fn exposition(&self, samples: Vec<Sample>, format: Format) -> String {
        let asked = self.answer(|answer| Question::Expose(samples.clone(), format, answer)).await;
        asked.unwrap_or_else(|_| {
            let mut recorder = Recorder::new(SCRATCH_BYTES, "");
            give(&mut recorder, Source::Loop, &samples, now_ms());
            text_of(&recorder, format)
        })
    }

    /// The answer of this node alone.
    pub async fn alone(&self, query: Query) -> Result<Answer, Unanswered> {
        self.answer(|answer| Question::Alone(query, answer)).await
    }

    /// The answer of this node and of others, by name, each of which has as long as `timeout`. Who does not answer
    /// is named in its warnings, beside `absent`: those that need not be asked, and why, and beside other `warnings`.
    pub async fn gather<P: Peer>(
        &self,
        query: Query,
        others: Vec<(String, P)>,
        absent: Vec<(String, String)>,
        warnings: Vec<String>,
        timeout: Duration,
    ) -> Result<Answer, Unanswered> {
        let begun = self.answer(|answer| Question::Begin(query, answer)).await?;
        let mut gathering = match begun {
            Ok(gathering) => gathering,
            Err(answer) => return Ok(*answer),
        };
        if gathering.asks_others() {
            warnings.into_iter().for_each(|warning| gathering.warn(warning));
            for (node, reason) in &absent {
                gathering.missing(node, reason);
            }
            let request = gathering.request();
            let deadline = tokio::time::Instant::now() + timeout;
            let asked = others.into_iter().map(|(node, peer)| {
                let request = request.clone();
                async move {
                    let answer = tokio::time::timeout_at(deadline, peer.ask(request)).await;
                    let late = |_| Err(format!("no answer within {} ms", timeout.as_millis()));
                    (node, answer.unwrap_or_else(late))
                }
            });
            let mut answers = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
            while let Some((node, answer)) = answers.next().await {
                let bytes = match answer {
                    Ok(bytes) => bytes,
                    Err(reason) => {
                        gathering.missing(&node, &reason);
                        continue;
                    }
                };
                let taken = self
                    .answer_in_time(|answer| Question::Take(gathering, node, bytes, answer))
                    .await?;
                gathering = match taken {
                    Ok(gathering) => gathering,
                    Err(answer) => return Ok(*answer),
                };
            }
        }
        self.answer_in_time(|answer| Question::Finish(gathering, answer)).await
    }

    /// The answer to another node's question; both are of [`wire`].
    pub async fn peer(&self, question: Vec<u8>) -> Vec<u8> {
        let answer = self.answer(|answer| Question::Peer(question, answer)).await;
        answer.unwrap_or_else(|error| wire::encode(&wire::Response::Refused(error.to_string())))
    }

    async fn answer<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.ask(question(answer))?;
        answered.await.map_err(|_| Unanswered::Gone)
    }

    /// For a question that is on its way already: it waits for a place.
    async fn answer_in_time<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Unanswered> {
        let questions = self.questions.as_ref().ok_or(Unanswered::Off)?;
        let (answer, answered) = oneshot::channel();
        let mut question = question(answer);
        loop {
            question = match questions.try_send(question) {
                Ok(()) => return answered.await.map_err(|_| Unanswered::Gone),
                Err(TrySendError::Disconnected(_)) => return Err(Unanswered::Gone),
                Err(TrySendError::Full(question)) => question,
            };
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn ask(&self, question: Question) -> Result<(), Unanswered> {
        let questions = self.questions.as_ref().ok_or(Unanswered::Off)?;
        questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => Unanswered::Busy,
            TrySendError::Disconnected(_) => Unanswered::Gone,
        })
    }
}

/// What the thread has.
struct Thread {
    recorder: Recorder,
    probing: Rc<RefCell<Probing>>,
    ledger: Rc<RefCell<Ledger>>,
    collectors: Vec<Scheduled>,
    expire: BootTime,
    /// Both clocks, as they were read last.
    read: (BootTime, i64),
    /// `None`: nobody is sent samples.
    remote: Option<Remote>,
}

/// A collector and when it is called again.
struct Scheduled {
    collector: Box<dyn Collector>,
    next: BootTime,
    before_ms: Option<i64>,
}

impl Thread {
    fn new(
        probing: Probing,
        units: Option<PathBuf>,
        budget: usize,
        name: &str,
        remote: Option<Remote>,
        others: Vec<Box<dyn Collector>>,
    ) -> Self {
        let probing = Rc::new(RefCell::new(probing));
        let ledger = Rc::new(RefCell::new(Ledger::default()));
        let mut all: Vec<Box<dyn Collector>> = vec![
            Box::new(Counted(probing.clone())),
            Box::new(RoundTrips::new(probing.clone())),
            Box::new(Pressure(probing.clone())),
            Box::new(Own { probing: probing.clone(), ledger: ledger.clone() }),
        ];
        if let Some(folder) = units {
            all.push(Box::new(Allocations::new(folder)));
        }
        all.extend(remote.as_ref().map(Remote::collector));
        all.extend(others);
        let next = BootTime::now();
        let scheduled = |collector| Scheduled { collector, next, before_ms: None };
        Self {
            recorder: Recorder::new(budget, name),
            probing,
            ledger,
            collectors: all.into_iter().map(scheduled).collect(),
            expire: next + EXPIRE,
            read: (next, now_ms()),
            remote,
        }
    }

    /// Measures and answers until nobody can ask any more.
    fn run(mut self, asked: &Receiver<Question>) {
        let mut next = BootTime::now();
        loop {
            let now = BootTime::now();
            if now >= next {
                self.round(now);
                // A round that was late is not made up for.
                next = (next + ROUND).max(now);
            }
            match asked.recv_timeout(next.since(BootTime::now())) {
                Ok(question) => self.answer(question),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// What time it is. Where the clock was set, all that is stored moves along: the time between two samples is what
    /// it was, and the next sample comes after the last.
    fn read_clock(&mut self) -> i64 {
        let now = (BootTime::now(), now_ms());
        if let Some(step) = step_between(self.read, now) {
            tracing::info!(step_ms = step, "the clock was set: what was measured moves along");
            self.recorder.shift(step);
            for scheduled in &mut self.collectors {
                scheduled.before_ms = scheduled.before_ms.map(|at| at.saturating_add(step));
            }
        }
        self.read = now;
        now.1
    }

    fn round(&mut self, now: BootTime) {
        let now_ms = self.read_clock();
        for (number, scheduled) in self.collectors.iter_mut().enumerate() {
            if now < scheduled.next {
                continue;
            }
            let Scheduled { collector, next, before_ms } = scheduled;
            let before = cpu_time();
            self.recorder
                .collect(number as u16, now_ms, *before_ms, |sink| collector.collect(sink));
            let took = cpu_time().saturating_sub(before);
            self.ledger.borrow_mut().collected(collector.name(), took);
            *before_ms = Some(now_ms);
            // A little early rather than a whole round late.
            *next = now + collector.period().max(ROUND).saturating_sub(ROUND / 2);
        }
        if now >= self.expire {
            self.expire = now + EXPIRE;
            self.recorder.expire(now_ms);
        }
        if let Some(remote) = &mut self.remote {
            let before = cpu_time();
            remote.round(now, self.recorder.store());
            let took = cpu_time().saturating_sub(before);
            self.ledger.borrow_mut().collected(remote::NAME, took);
        }
        let mut ledger = self.ledger.borrow_mut();
        ledger.usage = self.recorder.store().usage();
        ledger.refusals = self.recorder.refusals();
    }

    fn answer(&mut self, question: Question) {
        let before = cpu_time();
        let now_ms = self.read_clock();
        // Whoever went away in the meantime does not want the answer any more.
        match question {
            Question::Rename(name) => self.recorder.rename(&name, now_ms),
            Question::Report(answer) => {
                let probes = self.probing.borrow().reports();
                let collectors = self.collectors.iter();
                let sources = collectors.flat_map(|one| one.collector.sources()).collect();
                let usage = self.recorder.store().usage();
                let sending = self.remote.as_ref().map(Remote::report);
                let _ = answer.send(Report { probes, sources, usage, sending });
            }
            Question::Cgroups(alloc, answer) => {
                let _ = answer.send(self.probing.borrow_mut().cgroups(&alloc));
            }
            Question::Count(source, samples) => {
                give(&mut self.recorder, source, &samples, now_ms);
            }
            Question::Expose(samples, format, answer) => {
                give(&mut self.recorder, Source::Loop, &samples, now_ms);
                let _ = answer.send(text_of(&self.recorder, format));
            }
            Question::Alone(query, answer) => {
                let _ = answer.send(gather::alone(query, self.recorder.store(), Limits::default()));
            }
            Question::Begin(query, answer) => {
                let begun = Gathering::begin(query, self.recorder.store(), Limits::default());
                let _ = answer.send(begun.map(Box::new));
            }
            Question::Take(mut gathering, node, bytes, answer) => {
                let taken = gathering.take(&node, &bytes);
                let _ = answer.send(taken.map(|()| gathering));
            }
            Question::Finish(gathering, answer) => drop(answer.send(gathering.finish())),
            Question::Peer(bytes, answer) => {
                let _ = answer.send(gather::respond_to(
                    &bytes,
                    self.recorder.store(),
                    Limits::default(),
                ));
            }
        }
        self.ledger.borrow_mut().answered(cpu_time().saturating_sub(before));
    }
}

/// What the agent's loop has counted. Twice within a millisecond, it is not worth a second sample.
fn give(recorder: &mut Recorder, source: Source, samples: &[Sample], now_ms: i64) {
    recorder.collect(source.number(), now_ms, None, |sink| {
        for Sample { metric, labels, value } in samples {
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            sink.put(metric, &labels, *value);
        }
    });
}

/// The newest sample of each series.
fn text_of(recorder: &Recorder, format: Format) -> String {
    // All that can go wrong is a query's limits, and there are none.
    Exposition::of_store(recorder.store(), now_ms(), format).unwrap_or_default()
}

/// What is added to the wall clock of this machine where it is known to be wrong.
static CORRECTION_MS: AtomicI64 = AtomicI64::new(0);

/// What time it is, as the store wants it: by the wall clock, or by the fabric's where that is wrong.
pub fn now_ms() -> i64 {
    let wall = i64::try_from(clock::wall().0).unwrap_or(i64::MAX);
    wall.saturating_add(CORRECTION_MS.load(Ordering::Relaxed)).max(0)
}

/// By how much the wall clock was moved since both clocks were read last; `None`: not so that it matters.
fn step_between(before: (BootTime, i64), now: (BootTime, i64)) -> Option<i64> {
    let passed = i64::try_from(now.0.since(before.0).as_millis()).unwrap_or(i64::MAX);
    let step = now.1.saturating_sub(before.1).saturating_sub(passed);
    (step.abs() >= STEP_MS).then_some(step)
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests;
