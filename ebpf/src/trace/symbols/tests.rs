use super::*;
use proptest::prelude::*;

#[test]
fn mappings_that_are_executable_and_of_a_file() {
    let line =
        "7f00a0-7f00b0 r-xp 00001000 08:01 1234                       /usr/lib/a b.so (deleted)";
    let found = executable(line).expect("well formed");
    let expected = (
        0x7f00a0,
        0x7f00b0,
        0x1000,
        ("08:01".to_owned(), 1234),
        "/usr/lib/a b.so (deleted)".into(),
    );
    assert_eq!(found, expected);
    assert!(executable(&line.replace("r-xp", "rw-p")).is_none());
    assert!(executable("7f00-7f80 r-xp 00000000 00:00 0 [vdso]").is_none());
    assert!(executable("").is_none());
}

#[test]
fn an_address_is_in_the_function_before_it() {
    let text =
        "0000000000001000 T first\n0000000000002000 d data\n0000000000003000 t second [module]\n";
    let names = kernel_names(text);
    assert_eq!(name_at(&names, 0xfff), None);
    assert_eq!(name_at(&names, 0x1000), Some("first"));
    assert_eq!(name_at(&names, 0x2fff), Some("first"));
    assert_eq!(name_at(&names, 0x9999), Some("second"));
    assert!(kernel_names("0000000000000000 T hidden\n").is_empty());
}

#[test]
fn this_program_knows_its_own_functions() {
    let mut symbols = Symbols::default();
    let address = this_program_knows_its_own_functions as fn() as usize as u64;
    let name = symbols.of_program(std::process::id(), address);
    assert!(name.ends_with("this_program_knows_its_own_functions"), "{name}");
    assert_eq!(symbols.of_program(std::process::id(), 1), "[unknown]");
}

proptest! {
    #[test]
    fn a_damaged_file_does_no_harm(place in 0usize..6000, byte: u8, length in 0usize..6000) {
        let program = std::fs::read("/proc/self/exe").expect("we run");
        // Its tables are at the end: the part between would only take time.
        let mut bytes = program[..program.len().min(6000)].to_vec();
        bytes[place.min(5999)] = byte;
        let _names = elf::functions(&bytes);
        let _names = elf::functions(&bytes[..length]);
    }

    #[test]
    fn noise_is_no_program(mut bytes in proptest::collection::vec(any::<u8>(), 64..512)) {
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let _names = elf::functions(&bytes);
    }
}
