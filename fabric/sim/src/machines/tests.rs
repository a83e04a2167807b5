use super::*;
use rand::SeedableRng;

#[test]
fn every_random_machine_adds_up() {
    let mut source = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..200 {
        let Hardware { topology, .. } = random(&mut source);
        let mut seen = topology.housekeeping.clone();
        for core in &topology.cores {
            assert!(!seen.intersects(&core.cpus), "a CPU is in two cores");
            seen.insert_all(&core.cpus);
            assert!(topology.numa.iter().any(|numa| numa.id == core.numa));
        }
        assert!(!topology.cores.is_empty());
        assert_eq!(topology.memory, topology.numa.iter().map(|numa| numa.memory).sum::<u64>());
        assert!(topology.ports.0 < topology.ports.1);
    }
}

#[test]
fn threads_of_a_core_are_numbered_apart() {
    let topology = Shape { packages: 2, cores: 2, threads: 2, memory_gib: 4 }.topology();
    assert_eq!(topology.housekeeping.to_string(), "0,4");
    assert_eq!(topology.cores[0].cpus.to_string(), "1,5");
    assert_eq!(topology.cores[2].numa, 1);
}
