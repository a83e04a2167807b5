use super::*;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

fn job(name: &str) -> JobName {
    JobName::new(name).unwrap()
}

/// Somebody who waits for a turn.
struct Waiting(Pin<Box<dyn Future<Output = Turn>>>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it waits")
    }
}

/// Asks for a turn: it is there, or is waited for.
fn ask(turns: &Turns, name: &str) -> Result<Turn, Waiting> {
    let (turns, job) = (turns.clone(), job(name));
    let mut asking = Waiting(Box::pin(async move { turns.take(&job).await }));
    match look(&mut asking) {
        Some(turn) => Ok(turn),
        None => Err(asking),
    }
}

fn look(asking: &mut Waiting) -> Option<Turn> {
    let mut context = Context::from_waker(Waker::noop());
    match asking.0.as_mut().poll(&mut context) {
        Poll::Ready(turn) => Some(turn),
        Poll::Pending => None,
    }
}

#[test]
fn a_job_that_hangs_takes_its_share_and_keeps_nobody_waiting() {
    let turns = Turns::default();
    let mut held = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..100 {
        match ask(&turns, "hog") {
            Ok(turn) => held.push(turn),
            Err(asking) => waiting.push(asking),
        }
    }
    assert_eq!(held.len(), 1 + SHARED_OF_JOB);
    // Others have the rest.
    let good: Vec<_> = (0..3).map(|_| ask(&turns, "good").expect("at once")).collect();
    drop(good);
    // Its own wait for its own.
    assert!(waiting.iter_mut().all(|asking| look(asking).is_none()));
    held.pop();
    let next: Vec<Turn> = waiting.iter_mut().take(1).filter_map(look).collect();
    assert_eq!(next.len(), 1);
}

#[test]
fn who_is_passed_over_gets_the_next_turn_in_order() {
    let turns = Turns::default();
    let mut held: Vec<Turn> = (0..=SHARED_OF_JOB).map(|_| ask(&turns, "a").unwrap()).collect();
    let mut first = ask(&turns, "a").unwrap_err();
    let mut second = ask(&turns, "a").unwrap_err();
    held.pop();
    assert!(look(&mut second).is_none());
    let turn = look(&mut first).expect("first come");
    drop(turn);
    assert!(look(&mut second).is_some());
}

#[test]
fn when_many_jobs_hang_each_other_job_still_has_its_own_turn() {
    let turns = Turns::default();
    let mut held = Vec::new();
    let mut waiting = Vec::new();
    for hog in 0..10 {
        for _ in 0..20 {
            match ask(&turns, &format!("hog-{hog}")) {
                Ok(turn) => held.push(turn),
                Err(asking) => waiting.push(asking),
            }
        }
    }
    assert_eq!(held.len(), 10 + SHARED);
    let own = ask(&turns, "good").expect("its own");
    let mut more = ask(&turns, "good").unwrap_err();
    // Of what comes free it has a claim before those that have more.
    held.remove(0);
    assert!(look(&mut more).is_some());
    drop(own);
}

#[test]
fn a_turn_of_somebody_who_went_away_is_not_lost() {
    let turns = Turns::default();
    let held: Vec<Turn> = (0..=SHARED_OF_JOB).map(|_| ask(&turns, "a").unwrap()).collect();
    let gone = ask(&turns, "a").unwrap_err();
    let mut here = ask(&turns, "a").unwrap_err();
    drop(gone);
    drop(held);
    assert!(look(&mut here).is_some());
    // Granted, and then not taken.
    let held: Vec<Turn> = (0..=SHARED_OF_JOB).map(|_| ask(&turns, "a").unwrap()).collect();
    let gone = ask(&turns, "a").unwrap_err();
    drop(held);
    drop(gone);
    let again: Vec<Turn> = (0..=SHARED_OF_JOB).map(|_| ask(&turns, "a").unwrap()).collect();
    assert_eq!(again.len(), 1 + SHARED_OF_JOB);
    drop(again);
    assert!(turns.lock().is_empty(), "nothing is kept of jobs that hold nothing");
}
