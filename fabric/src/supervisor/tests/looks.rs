//! What a tick does not look at has nothing to do: beside a twin that looks at everything.

use proptest::prelude::*;

use super::*;

/// Something that happens to a node, to one of its slots or to all of them.
#[derive(Clone, Debug)]
enum Happening {
    Reserve { slot: u32, kind: Kind },
    OnDisk,
    Refused,
    Said { slot: u32, said: Said },
    Checked { slot: u32, passed: bool },
    Retire { slot: u32 },
    Restart { slot: u32 },
    Commit { slot: u32 },
    Leased { slot: u32, seconds: u64 },
    Forget { slot: u32 },
    FewerCores { cores: u16 },
    MayStart(bool),
    Pass { milliseconds: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Shared,
    Cores,
    AtMostOne,
    Gang,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Prepared,
    Running,
    Exited,
    Refused,
    PortTaken,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let slot = 0..4u32;
    let kind =
        prop_oneof![Just(Kind::Shared), Just(Kind::Cores), Just(Kind::AtMostOne), Just(Kind::Gang)];
    let said = prop_oneof![
        3 => Just(Said::Prepared),
        3 => Just(Said::Running),
        2 => Just(Said::Exited),
        1 => Just(Said::Refused),
        1 => Just(Said::PortTaken),
    ];
    let one = prop_oneof![
        4 => (slot.clone(), kind).prop_map(|(slot, kind)| Happening::Reserve { slot, kind }),
        3 => Just(Happening::OnDisk),
        1 => Just(Happening::Refused),
        8 => (slot.clone(), said).prop_map(|(slot, said)| Happening::Said { slot, said }),
        2 => (slot.clone(), any::<bool>()).prop_map(|(slot, passed)| Happening::Checked { slot, passed }),
        1 => slot.clone().prop_map(|slot| Happening::Retire { slot }),
        1 => slot.clone().prop_map(|slot| Happening::Restart { slot }),
        1 => slot.clone().prop_map(|slot| Happening::Commit { slot }),
        2 => (slot.clone(), 1..30u64).prop_map(|(slot, seconds)| Happening::Leased { slot, seconds }),
        1 => slot.prop_map(|slot| Happening::Forget { slot }),
        1 => (1..=4u16).prop_map(|cores| Happening::FewerCores { cores }),
        1 => any::<bool>().prop_map(Happening::MayStart),
        8 => (0..8000u64).prop_map(|milliseconds| Happening::Pass { milliseconds }),
    ];
    proptest::collection::vec(one, 1..120)
}

/// One node, told of all that happens.
struct Twin {
    supervisor: Supervisor,
    now: Now,
    may_start: bool,
    sequence: u64,
    looks_at_all: bool,
}

fn topology(cores: u16) -> Topology {
    let core = |cpu| Core { cpus: CpuSet::from_iter([cpu]), ..Core::default() };
    Topology {
        cores: (0..cores).map(core).collect(),
        memory: 1 << 30,
        ports: (20000, 20010),
        enforced: Enforced { pinning: true, ..Enforced::default() },
        ..Topology::default()
    }
}

fn spec_of(kind: Kind) -> JobSpec {
    let more = match kind {
        Kind::Shared => "[[port]]\nname='http'\n[health]\ntcp=true\nport='http'\nfailures=1",
        Kind::Cores => "[resources]\ncores=1",
        Kind::AtMostOne => "guarantee='at-most-one'",
        Kind::Gang => "gang=true",
    };
    let (top, tables) = if more.starts_with('[') { ("", more) } else { (more, "") };
    let text = format!(
        "name='web'\n{top}\n[task]\ncommand=['/bin/true']\n[restart]\nattempts=3\n{tables}"
    );
    crate::job::parse(&text).expect("a job")
}

impl Twin {
    fn new(looks_at_all: bool) -> Self {
        let now = Now { at: Instant::at(Duration::from_secs(100)), wall: WallTime(1) };
        let mut supervisor = Supervisor::new(now.at, "n1".into(), Ledger::new(&topology(4)));
        supervisor.units_found(now, Vec::new());
        Self { supervisor, now, may_start: true, sequence: 0, looks_at_all }
    }

    fn slot(slot: u32) -> SlotId {
        AllocId::new(JobName::new("web").expect("a name"), slot, 1).slot
    }

    /// The allocation in a slot, and its run.
    fn there(&self, slot: u32) -> Option<(AllocId, u32)> {
        let local = self.supervisor.local(&Self::slot(slot))?;
        Some((local.alloc.record.alloc.clone(), local.alloc.record.run))
    }

    fn happens(&mut self, what: &Happening) {
        let now = self.now;
        match *what {
            Happening::Reserve { slot, kind } => self.reserve(slot, kind),
            Happening::OnDisk => self.supervisor.persisted(self.sequence),
            Happening::Refused => drop(self.supervisor.unpersisted(now)),
            Happening::Said { slot, said } => {
                let Some((alloc, run)) = self.there(slot) else { return };
                let event = match said {
                    Said::Prepared => UnitEvent::Prepared,
                    Said::Running => UnitEvent::Running { pid: 1, cpus: None, mems: None },
                    Said::Exited => UnitEvent::Exited {
                        status: "exit status 1".into(),
                        success: false,
                        killed: false,
                    },
                    Said::Refused => UnitEvent::Refused { reason: "no".into() },
                    Said::PortTaken => UnitEvent::PortTaken { port: 80, by: "nginx".into() },
                };
                self.supervisor.unit(now, &alloc, run, event);
            }
            Happening::Checked { slot, passed } => {
                let Some((alloc, run)) = self.there(slot) else { return };
                let outcome = if passed { Ok(()) } else { Err("no answer".to_owned()) };
                self.supervisor.checked(now, &alloc, run, outcome);
            }
            Happening::Retire { slot } => {
                let ending = Ending::Retired { reason: "test".into() };
                self.supervisor.retire(now, &Self::slot(slot), ending);
            }
            Happening::Restart { slot } => drop(self.supervisor.restart(now, &Self::slot(slot))),
            Happening::Commit { slot } => self.supervisor.commit(&Self::slot(slot)),
            Happening::Leased { slot, seconds } => {
                let Some((alloc, _)) = self.there(slot) else { return };
                let until = now.at + Duration::from_secs(seconds);
                self.supervisor.granted(&alloc.slot, alloc.epoch, until);
            }
            Happening::Forget { slot } => self.supervisor.forget(&Self::slot(slot)),
            Happening::FewerCores { cores } => self.supervisor.topology_changed(&topology(cores)),
            Happening::MayStart(may_start) => self.may_start = may_start,
            Happening::Pass { milliseconds } => {
                self.now.at = now.at + Duration::from_millis(milliseconds);
            }
        }
    }

    fn reserve(&mut self, slot: u32, kind: Kind) {
        let mut spec = spec_of(kind);
        spec.count = 4;
        let epoch = match self.supervisor.local(&Self::slot(slot)) {
            Some(local) if local.alloc.row.phase.holds_claim() => return,
            Some(local) => local.alloc.record.alloc.epoch + 1,
            None => 1,
        };
        let Ok(claim) = self.supervisor.ledger().admit(&spec) else { return };
        self.sequence += 1;
        let alloc = AllocId::new(spec.name.clone(), slot, epoch);
        let (hash, proposer) = (spec.hash(0), Some(PROPOSER));
        let (now, sequence) = (self.now, self.sequence);
        self.supervisor.reserve(now, alloc, &spec, hash, 1, claim, proposer, sequence, false);
        if matches!(kind, Kind::Gang) {
            self.supervisor.hold_back(&Self::slot(slot), now.at + Duration::from_secs(5));
        }
    }

    fn tick(&mut self) -> String {
        if self.looks_at_all {
            for slot in self.supervisor.slots() {
                self.supervisor.locals.get_mut(&slot);
            }
        }
        self.supervisor.tick(self.now, self.may_start, LEVEL);
        let supervisor = &mut self.supervisor;
        let said = (
            supervisor.take_outputs(),
            supervisor.take_changed(),
            supervisor.take_accepted(),
            supervisor.take_ended(),
        );
        let rows: Vec<&AllocRow> = supervisor.locals().map(LocalAlloc::row).collect();
        format!("{said:?} {rows:?} {:?}", supervisor.next_deadline())
    }
}

proptest! {
    #[test]
    fn a_tick_does_the_same_as_one_that_looks_at_everything(happenings in happenings()) {
        let (mut some, mut all) = (Twin::new(false), Twin::new(true));
        for (at, what) in happenings.iter().enumerate() {
            some.happens(what);
            all.happens(what);
            // What happens between two ticks is one thing or several.
            if at % 3 != 1 {
                prop_assert_eq!(some.tick(), all.tick(), "after {:?}", what);
            }
        }
    }
}
