use super::*;
use proptest::prelude::*;

/// An attribute as SFF-8035i has it: number, value, six raw bytes.
type Attribute = (u8, u8, [u8; 6]);

/// A page of attributes, with its checksum.
fn data(attributes: &[Attribute]) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    page[0] = 16;
    for (place, (number, value, raw)) in attributes.iter().enumerate() {
        let at = 2 + place * ATTRIBUTE_BYTES;
        page[at] = *number;
        (page[at + 1], page[at + 3], page[at + 4]) = (0x33, *value, *value);
        page[at + 5..at + 11].copy_from_slice(raw);
    }
    whole(page)
}

/// A page of thresholds.
fn thresholds(limits: &[(u8, u8)]) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    for (place, (number, limit)) in limits.iter().enumerate() {
        let at = 2 + place * ATTRIBUTE_BYTES;
        (page[at], page[at + 1]) = (*number, *limit);
    }
    whole(page)
}

fn whole(mut page: [u8; PAGE_BYTES]) -> [u8; PAGE_BYTES] {
    let sum = page[..PAGE_BYTES - 1].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    page[PAGE_BYTES - 1] = sum.wrapping_neg();
    page
}

#[test]
fn attributes_are_read_from_their_places_with_the_bytes_that_count() {
    let page = data(&[
        (5, 90, [0x34, 0x12, 9, 9, 9, 9]),
        // Hours, and what some makers put behind them.
        (9, 80, [0x10, 0x27, 0, 0xff, 0xee, 0xdd]),
        (12, 100, [200, 0, 0, 0, 0, 0]),
        // The lowest and the highest of its life follow.
        (194, 62, [38, 0, 17, 0, 55, 0]),
        (197, 100, [0, 0, 1, 0, 0, 0]),
        (198, 100, [2, 0, 0, 0, 0, 0]),
    ]);
    let limits = thresholds(&[(5, 36), (9, 0), (194, 0), (197, 0)]);
    assert_eq!(
        Health::of(false, &page, Some(&limits)),
        Some(Health {
            failing: false,
            attributes_failing: 0,
            celsius: Some(38.0),
            power_on_seconds: Some(10_000.0 * 3600.0),
            power_cycles: Some(200.0),
            reallocated: Some(f64::from(0x1234)),
            pending: Some(65_536.0),
            uncorrectable: Some(2.0),
        })
    );
}

#[test]
fn an_attribute_that_has_reached_its_threshold_is_counted() {
    let page = data(&[
        (5, 36, [0; 6]),
        (10, 20, [0; 6]),
        (197, 1, [0; 6]),
        (190, 60, [40, 0, 0, 0, 0, 0]),
    ]);
    let limits = thresholds(&[(5, 36), (10, 97), (197, 0), (190, 45)]);
    let health = Health::of(true, &page, Some(&limits)).unwrap();
    assert_eq!(
        (health.failing, health.attributes_failing),
        (true, 2),
        "a threshold of 0 is never reached"
    );
    assert_eq!(health.celsius, Some(40.0), "of the air, where that is all it tells");
    assert_eq!(
        (health.reallocated, health.power_cycles),
        (Some(0.0), None),
        "what it does not tell is no 0"
    );

    let without = Health::of(false, &page, None).unwrap();
    assert_eq!(without.attributes_failing, 0, "without thresholds none is judged");
    let mut damaged = limits;
    damaged[3] ^= 1;
    assert_eq!(Health::of(false, &page, Some(&damaged)).unwrap().attributes_failing, 0);
    let mut damaged = page;
    damaged[7] ^= 1;
    assert_eq!(Health::of(false, &damaged, Some(&limits)), None, "its sum is wrong");
}

#[test]
fn commands_are_wrapped_up_as_the_translation_has_it() {
    let head = |command: Command| command.block()[..3].to_owned();
    assert_eq!(head(Command::CHECK_POWER_MODE), [0x85, 0x06, 0x20], "no data, but its registers");
    assert_eq!(head(Command::IDENTIFY), [0x85, 0x08, 0x0e], "one block from the disk");
    assert_eq!(Command::CHECK_POWER_MODE.block()[14], 0xe5);
    assert_eq!(
        Command::READ_DATA.block(),
        [0x85, 0x08, 0x0e, 0, 0xd0, 0, 1, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0]
    );
    assert_eq!(
        Command::RETURN_STATUS.block(),
        [0x85, 0x06, 0x20, 0, 0xda, 0, 0, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0]
    );
}

/// Sense data as the kernel's translation makes it: a descriptor with the registers.
fn with_descriptor(key: u8, status: u8, count: u8, middle: u8, high: u8) -> Vec<u8> {
    let mut sense = vec![0; 22];
    (sense[0], sense[1], sense[3], sense[7]) = (0x72, key, 0x1d, 14);
    (sense[8], sense[9], sense[13]) = (0x09, 0x0c, count);
    (sense[17], sense[19], sense[20], sense[21]) = (middle, high, 0xa0, status);
    sense
}

#[test]
fn registers_are_found_in_both_forms_of_sense_data() {
    let sense = with_descriptor(1, 0x50, 0xff, 0x4f, 0xc2);
    let registers = Registers::of(&sense).unwrap();
    assert_eq!(registers, Registers { status: 0x50, count: 0xff, middle: 0x4f, high: 0xc2 });
    assert_eq!(
        (registers.sleeps(), registers.failing(), registers.refused()),
        (false, Some(false), false)
    );
    // Behind another descriptor.
    let mut longer = sense[..8].to_vec();
    longer.extend([0x00, 0x02, 1, 2]);
    longer.extend(&sense[8..]);
    assert_eq!(Registers::of(&longer), Some(registers));

    let mut fixed = vec![0; 18];
    (fixed[0], fixed[2], fixed[13]) = (0xf0, 1, 0x1d);
    (fixed[4], fixed[6], fixed[10], fixed[11]) = (0x50, 0x00, 0xf4, 0x2c);
    let registers = Registers::of(&fixed).unwrap();
    assert_eq!((registers.sleeps(), registers.failing()), (true, Some(true)));

    let count = |count| Registers::of(&with_descriptor(0, 0x50, count, 0, 0)).unwrap();
    for (number, sleeps) in
        [(0x00, true), (0x01, true), (0x40, true), (0x41, false), (0x80, false), (0xff, false)]
    {
        assert_eq!(count(number).sleeps(), sleeps, "{number:#x}");
    }
    assert_eq!(count(0).failing(), None, "neither well nor failing: no answer");
    assert!(Registers::of(&with_descriptor(1, 0x51, 0, 0, 0)).unwrap().refused());
    assert_eq!(
        Registers::of(&with_descriptor(0x0b, 0x51, 0, 0, 0)),
        None,
        "the command was aborted"
    );
    fixed[13] = 0x24;
    assert_eq!(
        Registers::of(&fixed),
        None,
        "an invalid field in the command is no answer of the disk"
    );
}

#[test]
fn a_disk_has_smart_if_it_says_so_twice() {
    let page = |word_82: u8, word_85: u8, general: u8| {
        let mut page = [0; PAGE_BYTES];
        (page[164], page[170], page[1]) = (word_82, word_85, general);
        page
    };
    assert!(has_smart(&page(1, 1, 0)));
    assert!(!has_smart(&page(1, 0, 0)), "switched off");
    assert!(!has_smart(&page(0, 1, 0)));
    assert!(!has_smart(&page(1, 1, 0x80)), "not a disk");
}

/// A machine of files with these disks: name, maker, power state.
fn machine(capabilities: &str, disks: &[(&str, &str, &str)]) -> (tempfile::TempDir, Sysfs) {
    let machine = tempfile::tempdir().unwrap();
    let write = |path: String, text: &str| {
        let path = machine.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/self/status".into(), &format!("Name:\tweftd\nCapEff:\t{capabilities}\n"));
    for (name, maker, power) in disks {
        write(format!("sys/block/{name}/device/vendor"), maker);
        write(format!("sys/block/{name}/device/power/runtime_status"), power);
        write(format!("dev/{name}"), "not a disk");
    }
    let sysfs = Sysfs::at(machine.path());
    (machine, sysfs)
}

#[test]
fn who_may_not_ask_says_what_is_missing_and_how_to_get_it() {
    let all_but_rawio = "000001fffffdffff";
    let (_folder, sysfs) = machine(all_but_rawio, &[("sda", "ATA     \n", "active\n")]);
    let told = ask_all(&sysfs);
    assert_eq!(told.health, []);
    let report = told.report.expect("there is a disk");
    let Status::Unsupported(reason) = &report.status else { panic!("{report:?}") };
    assert!(reason.contains("CAP_SYS_RAWIO") && reason.contains("METRICS.md"), "{reason}");
    let metrics = include_str!("../../../../docs/METRICS.md");
    assert!(metrics.contains("\n## The health of disks\n"), "the section that the reason names");

    let (_folder, sysfs) = machine(
        all_but_rawio,
        &[("vda", "0x1af4\n", "active\n"), ("sdb", "Stick Co\n", "active\n")],
    );
    assert_eq!(ask_all(&sysfs).report, None, "neither speaks ATA: there is nothing to say");
}

#[test]
fn a_disk_that_sleeps_is_not_opened_and_what_is_no_disk_is_said() {
    let (folder, sysfs) = machine(
        "000001ffffffffff",
        &[("sda", "ATA     \n", "suspended\n"), ("sdb", "ATA     \n", "active\n")],
    );
    // It could not be opened.
    std::fs::remove_file(folder.path().join("dev/sda")).unwrap();
    let told = ask_all(&sysfs);
    assert_eq!(told.health, []);
    let report = told.report.unwrap();
    assert_eq!(report.status, Status::Running);
    assert!(report.note.starts_with("sda: it sleeps, sdb: "), "{}", report.note);
    assert!(
        report.note.contains("ENOTTY") || report.note.contains("os error 25"),
        "{}",
        report.note
    );
}

proptest! {
    #[test]
    fn no_answer_is_too_odd(
        sense in prop::collection::vec(any::<u8>(), 0..=SENSE_BYTES),
        bytes in prop::collection::vec(any::<u8>(), PAGE_BYTES),
    ) {
        let _registers = Registers::of(&sense);
        let page: [u8; PAGE_BYTES] = bytes.try_into().expect("as many as asked for");
        let _smart = has_smart(&page);
        let _health = Health::of(false, &whole(page), Some(&whole(page)));
    }
}
