use super::*;
use crate::host::Sample;
use std::collections::BTreeMap;
use std::process::Command;

fn ask(gpus: &mut Gpus) -> Vec<Sample> {
    let mut samples = Vec::new();
    gpus.ask(BootTime::now(), &mut samples);
    samples
}

#[test]
fn a_machine_without_the_library_says_so_and_tells_nothing() {
    let mut gpus = Gpus::of("libnvidia-ml-that-nobody-has.so.1");
    assert!(ask(&mut gpus).is_empty());
    let Status::Unsupported(reason) = gpus.report().status else { panic!("{:?}", gpus.status) };
    assert!(reason.contains("libnvidia-ml-that-nobody-has.so.1"), "{reason}");
    let tried = gpus.tried;
    ask(&mut gpus);
    assert_eq!(gpus.tried, tried, "it is not looked for at every turn");
}

/// A library of ours answers as NVIDIA's manual says that theirs does. No real one was ever asked.
#[test]
fn what_the_library_tells_comes_in_base_units_under_the_kernels_address() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/host/gpu/fake_nvml.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs a C compiler");
        return;
    }
    let mut gpus = Gpus::of(library.to_str().unwrap());
    let samples = ask(&mut gpus);
    assert_eq!(gpus.report().status, Status::Running);
    let found: BTreeMap<String, f64> = samples
        .iter()
        .map(|sample| {
            let labels: Vec<String> =
                sample.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            (format!("{} {}", sample.name, labels.join(" ")), sample.value)
        })
        .collect();
    let wanted = [
        ("weft_gpu_energy_joules_total device=0000:3b:00.0", 12.5),
        ("weft_gpu_info device=0000:3b:00.0 name=Fake 9000 uuid=GPU-1 driver=550.1", 1.0),
        ("weft_gpu_memory_bytes device=0000:3b:00.0", 8.0 * f64::from(1 << 30)),
        ("weft_gpu_memory_errors_total device=0000:3b:00.0 kind=corrected", 7.0),
        ("weft_gpu_memory_errors_total device=0000:3b:00.0 kind=uncorrected", 1.0),
        ("weft_gpu_memory_used_bytes device=0000:3b:00.0", 3.0 * f64::from(1 << 30)),
        ("weft_gpu_memory_utilization_ratio device=0000:3b:00.0", 0.3),
        ("weft_gpu_temperature_celsius device=0000:3b:00.0", 61.0),
        ("weft_gpu_utilization_ratio device=0000:3b:00.0", 0.75),
    ];
    let wanted: BTreeMap<String, f64> =
        wanted.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(found, wanted, "what it does not know, its power, is left out");
}

#[test]
fn addresses_are_those_of_the_kernel() {
    assert_eq!(address_of("00000000:3B:00.0"), "0000:3b:00.0");
    assert_eq!(address_of("0000000A:01:00.0"), "000a:01:00.0");
    assert_eq!(address_of("00010000:01:00.0"), "10000:01:00.0");
    assert_eq!(address_of(""), "");
}
