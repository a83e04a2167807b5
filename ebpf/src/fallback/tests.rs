use super::cgroupfs::{io, pressure, value};
use super::*;
use crate::pressure::Stalled;

#[test]
fn files_of_a_cgroup() {
    let stat = "8:0 rbytes=100 wbytes=200 rios=3 wios=4 dbytes=9 dios=9\n\
                259:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:0 \n";
    assert_eq!(io(stat), [101, 202, 6, 8]);
    assert_eq!(io(""), [0; 4]);
    let events = "low 0\noom 2\noom_kill 1\noom_group_kill 5\n";
    assert_eq!(value(events, "oom_kill"), Some(1));
    assert_eq!(value(events, "oom_kil"), None);
    let text = "some avg10=0.12 avg60=0.00 avg300=0.00 total=17\n\
                full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
    assert_eq!(pressure(text), Some(Stalled { some_us: 17, full_us: Some(5) }));
    assert_eq!(pressure(""), None);
}

#[test]
fn segments_that_were_sent_again() {
    let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm RetransSegs InErrs\nTcp: 1 42 0\n";
    assert_eq!(retransmitted(snmp), Some(42));
    assert_eq!(retransmitted("Tcp: RetransSegs\n"), None);
}

#[test]
fn counts_start_at_the_first_reading_and_outlive_their_cgroup() {
    let mut kept = Kept::<[u64; 1]>::default();
    let row = |id, count| (CgroupId(id), [count]);
    assert_eq!(kept.since_first([].into()), None);
    let rows = kept.since_first([row(1, 10), row(2, 5)].into()).expect("some");
    assert_eq!(rows, [row(0, 0), row(1, 0), row(2, 0)].into());
    let rows = kept.since_first([row(1, 13), row(2, 9), row(3, 7)].into()).expect("some");
    assert_eq!(rows, [row(0, 0), row(1, 3), row(2, 4), row(3, 7)].into());
    let rows = kept.since_first([row(1, 14)].into()).expect("some");
    assert_eq!(rows, [row(0, 11), row(1, 4)].into());
    let rows = kept.since_first([row(1, 14)].into()).expect("some");
    assert_eq!(rows, [row(0, 11), row(1, 4)].into(), "what is gone is added once");
}
