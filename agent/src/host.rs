//! What the machine tells about itself, under the names that node_exporter has given it: dashboards and
//! rules that are written for it work here unchanged.
//!
//! A collector reads a few files of `/proc` or `/sys` and hands samples to a [`Sink`]. Each series has its
//! [`Depth`]: what is asked about every day is read each second, what changes slowly each quarter of a minute, and the
//! rest each minute. A file that is not there is a metric that is not there: never a zero.
//!
//! The names are made of the kernel's own words where node_exporter does so (`/proc/meminfo`, `vmstat`,
//! `snmp`): a kernel that says more is understood without a list of fields here.
//!
//! Disks, file systems and sensors may take their time to answer. They are asked by a thread of their own, which
//! starts each quarter of a minute and ends when it has asked them all ([`Slow`]); what it brought is given the next time.

mod ata;
mod disk;
#[cfg(feature = "nvml")]
mod gpu;
mod memory;
mod network;
mod nvme;
mod processor;
mod sensors;
mod system;

#[cfg(test)]
mod beside;
#[cfg(test)]
mod tests;

use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use ::metrics::store::Kind;

use crate::clock::BootTime;

use crate::observe::sink::{self, Collector, Metric, SourceReport};
use crate::topology::Sysfs;
use helper::hardware::chips::clean;

/// Disks, interfaces, file systems, chips: so many of each kind are reported. A machine with more has them made
/// by containers, and the store is for the machine.
const DEVICES_MAX: usize = 128;
/// CPUs up to which each one's seconds are read each second; with more, each quarter of a minute. Each CPU is
/// eight series.
const CPUS_EACH_SECOND_MAX: usize = 16;
/// Time after which disks are asked for their health again: it changes in days.
const HEALTH_PERIOD: Duration = Duration::from_secs(600);
/// Files of `/proc` that are read each second, and stay open.
const KEPT_MAX: usize = 32;
/// Stack of the thread that asks what is slow: it only reads files, unless a driver's library runs on it.
const STACK_BYTES: usize = if cfg!(feature = "nvml") { 2 << 20 } else { 256 << 10 };

/// Takes what collectors read.
trait Sink {
    /// One sample. Samples of one metric may come apart; their kind and help are the same each time.
    fn sample(&mut self, metric: Metric<'_>, labels: &[(&str, &str)], value: f64);
}

impl Sink for sink::Sink<'_> {
    fn sample(&mut self, metric: Metric<'_>, labels: &[(&str, &str)], value: f64) {
        self.put(&metric, labels, value);
    }
}

/// How often a series is read. No series has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// What changes by the second. Files of `/proc` only: a fraction of a millisecond.
    Second,
    /// What changes slowly.
    Quarter,
    /// What hardly changes, or is seldom asked about.
    Minute,
}

impl Depth {
    fn name(self) -> &'static str {
        match self {
            Depth::Second => "host",
            Depth::Quarter => "host-15s",
            Depth::Minute => "host-60s",
        }
    }

    fn period(self) -> Duration {
        Duration::from_secs(match self {
            Depth::Second => 1,
            Depth::Quarter => 15,
            Depth::Minute => 60,
        })
    }
}

/// All collectors of this machine.
pub fn collectors() -> Vec<Box<dyn Collector>> {
    let sysfs = Sysfs::default();
    let quick = [Depth::Second, Depth::Quarter, Depth::Minute].map(|depth| {
        let sysfs = match depth {
            Depth::Second => sysfs.clone().keeping(KEPT_MAX),
            _ => sysfs.clone(),
        };
        let quick = Quick { sysfs, depth };
        Box::new(quick) as Box<dyn Collector>
    });
    let mut all = Vec::from(quick);
    all.push(Box::new(Slow {
        asked: Some(Asked::new(sysfs)),
        running: None,
        samples: Vec::new(),
        sources: Vec::new(),
    }));
    all
}

/// What the kernel answers at once.
struct Quick {
    sysfs: Sysfs,
    depth: Depth,
}

impl Collector for Quick {
    fn name(&self) -> &'static str {
        self.depth.name()
    }

    fn period(&self) -> Duration {
        self.depth.period()
    }

    fn collect(&mut self, sink: &mut sink::Sink<'_>) {
        let wall_seconds = sink.now_ms() as f64 / 1000.0;
        quick(&self.sysfs, self.depth, wall_seconds, sink);
    }
}

/// `wall_seconds` is the time since 1970.
fn quick(sysfs: &Sysfs, depth: Depth, wall_seconds: f64, sink: &mut dyn Sink) {
    processor::collect(sysfs, depth, sink);
    memory::collect(sysfs, depth, sink);
    disk::collect(sysfs, depth, sink);
    network::collect(sysfs, depth, sink);
    system::collect(sysfs, depth, wall_seconds, sink);
}

/// What may take its time: file systems, sensors, the health of disks. As long as one of them hangs, nothing is
/// given, and no second thread is started.
struct Slow {
    /// `None` while a thread has it, or after one has died.
    asked: Option<Asked>,
    running: Option<JoinHandle<(Asked, Vec<Sample>)>>,
    samples: Vec<Sample>,
    sources: Vec<SourceReport>,
}

/// A sample that waits to be given.
struct Sample {
    name: String,
    kind: Kind,
    help: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sink for Vec<Sample> {
    fn sample(&mut self, metric: Metric<'_>, labels: &[(&str, &str)], value: f64) {
        let pairs = labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        self.push(Sample {
            name: metric.name.to_owned(),
            kind: metric.kind,
            help: metric.help.to_owned(),
            labels: pairs.collect(),
            value,
        });
    }
}

impl Collector for Slow {
    fn name(&self) -> &'static str {
        "host-slow"
    }

    fn period(&self) -> Duration {
        // The first answers are wanted soon.
        if self.samples.is_empty() { Depth::Second.period() } else { Depth::Quarter.period() }
    }

    fn collect(&mut self, sink: &mut sink::Sink<'_>) {
        if let Some(thread) = self.running.take_if(|thread| thread.is_finished()) {
            match thread.join() {
                Ok((asked, samples)) => {
                    self.sources = asked.sources();
                    (self.asked, self.samples) = (Some(asked), samples);
                }
                Err(_) => tracing::error!("the thread that asks sensors has died: this is a bug"),
            }
        } else {
            self.samples.clear();
        }
        for Sample { name, kind, help, labels, value } in &self.samples {
            let labels: Vec<_> = labels.iter().map(|(name, text)| (&**name, &**text)).collect();
            sink.put(&Metric { name, kind: *kind, help }, &labels, *value);
        }
        self.sources.iter().for_each(|source| source.give(sink));
        let Some(mut asked) = self.asked.take() else { return };
        let now = BootTime::now();
        let thread =
            Builder::new().name("sensors".into()).stack_size(STACK_BYTES).spawn(move || {
                let mut samples = Vec::new();
                asked.ask(now, &mut samples);
                (asked, samples)
            });
        match thread {
            Ok(thread) => self.running = Some(thread),
            Err(error) => tracing::warn!(%error, "file systems and sensors are not asked any more"),
        }
    }

    fn sources(&self) -> Vec<SourceReport> {
        self.sources.clone()
    }
}

/// What is asked on a thread of its own.
struct Asked {
    sysfs: Sysfs,
    /// What disks last told, and when they were asked.
    nvme: Vec<(String, nvme::Health)>,
    ata: ata::Told,
    health_asked: Option<BootTime>,
    #[cfg(feature = "nvml")]
    gpus: gpu::Gpus,
}

impl Asked {
    fn new(sysfs: Sysfs) -> Self {
        Self {
            sysfs,
            nvme: Vec::new(),
            ata: ata::Told::default(),
            health_asked: None,
            #[cfg(feature = "nvml")]
            gpus: gpu::Gpus::default(),
        }
    }

    fn sources(&self) -> Vec<SourceReport> {
        let disks = self.ata.report.iter().cloned();
        #[cfg(feature = "nvml")]
        let disks = disks.chain([self.gpus.report()]);
        disks.collect()
    }

    fn ask(&mut self, now: BootTime, sink: &mut dyn Sink) {
        disk::file_systems(&self.sysfs, sink);
        sensors::collect(&self.sysfs, sink);
        #[cfg(feature = "nvml")]
        self.gpus.ask(now, sink);
        if self.health_asked.is_none_or(|asked| now.since(asked) >= HEALTH_PERIOD) {
            self.health_asked = Some(now);
            self.nvme = nvme::health(&self.sysfs);
            self.ata = ata::ask_all(&self.sysfs);
        }
        for (disk, health) in &self.nvme {
            health.tell(disk, sink);
        }
        for (disk, health) in &self.ata.health {
            health.tell(disk, sink);
        }
    }
}

/// A number that a file has nothing else in.
fn number(sysfs: &Sysfs, path: &str) -> Option<f64> {
    sysfs.line(path)?.parse().ok()
}
