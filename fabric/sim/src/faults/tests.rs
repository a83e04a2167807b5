use super::*;
use rand::SeedableRng;

#[test]
fn equal_seeds_draw_equal_schedules_that_end_in_time() {
    let span = Duration::from_secs(3600);
    for seed in 0..50 {
        let draw = || schedule(&mut ChaCha8Rng::seed_from_u64(seed), 20, span);
        let drawn = draw();
        assert_eq!(drawn, draw());
        assert!(!drawn.is_empty());
        assert!(drawn.iter().all(|fault| fault.at + fault.lasting < span));
        let losses = drawn.iter().filter(|it| matches!(it.fault, Fault::DiskLoss(_))).count();
        assert!(losses <= 5);
    }
}
