use super::*;

#[test]
fn a_panel_shows_its_figures_in_order() {
    let mut results = Results::default();
    for (nodes, value) in [(10_000, 900.0), (100, 700.0), (1_000, 800.0)] {
        results.add(&format!("idle gossip a node/{nodes} nodes"), value, "B/s", None);
    }
    let found = points(&results, "idle gossip a node", "nodes");
    assert_eq!(found, [(100.0, 700.0), (1000.0, 800.0), (10_000.0, 900.0)]);
    let picture = svg(&results);
    assert_eq!(picture.matches("<circle").count(), 3);
    assert_eq!(picture.matches("not measured").count(), PANELS.len() - 1);
}

#[test]
fn an_axis_keeps_its_values_inside() {
    let axis = Axis::over([3.0, 4.0].into_iter(), 10.0, 110.0);
    assert!((10.0..=110.0).contains(&axis.place(3.0)));
    assert!(axis.place(4.0) - axis.place(3.0) < 20.0, "a small difference looks small");
    assert!(!axis.ticks().is_empty());
}
