//! Whose check is made now. Each job has one turn of its own, for which it never waits for another job; further ones come
//! from a pool that all share, and of which no job takes more than a quarter. So a job whose checks hang keeps back its
//! own, and nobody else's.

use fabric::id::JobName;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Turns that all jobs share, besides the one that each has.
pub const SHARED: usize = 32;
/// Of these, so many for one job.
pub const SHARED_OF_JOB: usize = SHARED / 4;

/// The turns. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<BTreeMap<JobName, Queue>>>);

/// What a job has.
#[derive(Debug, Default)]
struct Queue {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to ask. Dropping it passes it on.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    job: JobName,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = self.turns.lock();
        if let Some(queue) = queues.get_mut(&self.job) {
            queue.held -= 1;
        }
        let granted = grant(&mut queues);
        queues.retain(|_, queue| queue.held > 0 || !queue.waiting.is_empty());
        drop(queues);
        self.turns.hand_out(granted);
    }
}

impl Turns {
    /// Waits for a turn of a job.
    pub async fn take(&self, job: &JobName) -> Turn {
        let (sender, receiver) = oneshot::channel();
        let granted = {
            let mut queues = self.lock();
            queues.entry(job.clone()).or_default().waiting.push_back(sender);
            grant(&mut queues)
        };
        self.hand_out(granted);
        match receiver.await {
            Ok(turn) => turn,
            // Nobody drops a sender that has not sent. Whoever came here would have to ask without a turn.
            Err(_) => std::future::pending().await,
        }
    }

    /// Not under the lock: whoever went away meanwhile gives his turn back at once.
    fn hand_out(&self, granted: Vec<(JobName, oneshot::Sender<Turn>)>) {
        for (job, sender) in granted {
            let _ = sender.send(Turn { turns: self.clone(), job });
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobName, Queue>> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Those whose turn it is: of jobs that wait, the one that has the fewest first.
fn grant(queues: &mut BTreeMap<JobName, Queue>) -> Vec<(JobName, oneshot::Sender<Turn>)> {
    let mut granted = Vec::new();
    loop {
        let shared: usize = queues.values().map(|queue| queue.held.saturating_sub(1)).sum();
        let may = |queue: &Queue| {
            !queue.waiting.is_empty()
                && (queue.held == 0 || queue.held <= SHARED_OF_JOB && shared < SHARED)
        };
        let next = queues.iter_mut().filter(|(_, queue)| may(queue)).min_by_key(|(_, q)| q.held);
        let Some((job, queue)) = next else { return granted };
        if let Some(sender) = queue.waiting.pop_front()
            && !sender.is_closed()
        {
            queue.held += 1;
            granted.push((job.clone(), sender));
        }
    }
}

#[cfg(test)]
mod tests;
