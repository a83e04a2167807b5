//! What people are told.

use fabric::clock::Now;
use fabric::job::JobSpec;
use fabric::node::Node;

use super::Verdict;
use crate::world::World;

/// Seconds between two looks: each builds every answer twice.
const EVERY: u64 = 16;

/// Every virtual second.
pub(super) fn observe(world: &mut World) {
    if world.time.as_secs().is_multiple_of(EVERY) {
        check!(world, invariant_a_copy_answers_as_its_node_does(world));
    }
}

/// Whoever asks a copy of what a node knows is told what the node would say.
pub fn invariant_a_copy_answers_as_its_node_does(world: &World) -> Verdict {
    let running = world.running();
    // A different one each time.
    let turn = (world.time.as_secs() / EVERY) as usize;
    let Some(machine) = running.get(turn % running.len().max(1)).map(|node| &world.nodes[*node])
    else {
        return Ok(());
    };
    let Some(core) = machine.core() else { return Ok(()) };
    answers_are_alike(&machine.name, machine.clock.read(world.time), core, &core.snapshot())
}

fn answers_are_alike(name: &str, now: Now, core: &Node, copy: &Node) -> Verdict {
    let answers = |node: &Node| {
        let jobs: Vec<JobSpec> = node.jobs().into_iter().map(|job| job.spec).collect();
        let of_jobs: Vec<_> = jobs
            .iter()
            .map(|spec| (node.plan(now, spec).ok(), node.explain(now, &spec.name).ok()))
            .collect();
        let all = (node.status(), node.nodes(), node.jobs(), node.allocs(None, true));
        serde_json::to_string(&(all, node.tokens(now), node.quotas(), of_jobs))
            .expect("answers have a JSON form")
    };
    let (own, copied) = (answers(core), answers(copy));
    if own == copied {
        return Ok(());
    }
    let alike = own.chars().zip(copied.chars()).take_while(|(one, other)| one == other).count();
    let part =
        |text: &str| text.chars().skip(alike.saturating_sub(80)).take(240).collect::<String>();
    Err(format!("{}: …{}… is …{}… in its copy", name, part(&own), part(&copied)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::settled::tests::at_rest;

    #[test]
    fn a_copy_that_says_something_else_is_found() {
        let mut world = at_rest();
        let copy = world.nodes[0].core().expect("it runs").snapshot();
        assert_eq!(invariant_a_copy_answers_as_its_node_does(&world), Ok(()));
        let mut spec = crate::workload::service(fabric::id::JobName::new("later").unwrap());
        spec.count = 0;
        let (spec, by) = (Box::new(spec), "somebody".into());
        world.request(0, fabric::io::Request::Submit { spec, by, expected_version: None });
        world.run_for(std::time::Duration::from_secs(1)).unwrap();
        let (core, now) = (world.nodes[0].core().unwrap(), world.nodes[0].clock.read(world.time));
        let found = answers_are_alike("a", now, core, &copy).unwrap_err();
        assert!(found.contains("in its copy"), "{found}");
    }
}
