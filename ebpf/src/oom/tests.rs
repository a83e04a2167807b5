use super::*;

fn levels(all: &[(u64, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (id, name) in all {
        bytes.extend(id.to_ne_bytes());
        bytes.extend(name.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(LEVEL), 0);
    }
    bytes
}

#[test]
fn a_folder_is_told_from_where_the_hierarchy_is_mounted() {
    let all = levels(&[(9, "inner"), (5, "web.service"), (3, "weft.slice"), (1, "")]);
    assert_eq!(folder(&all, CgroupId(1)), Some("weft.slice/web.service/inner".into()));
    assert_eq!(folder(&all, CgroupId(3)), Some("web.service/inner".into()));
    assert_eq!(folder(&all, CgroupId(9)), Some(PathBuf::new()), "it is the root itself");
    assert_eq!(folder(&all, CgroupId(4)), None, "another hierarchy, or deeper than is told");
    let mut wrong = all;
    wrong[8] = 0xff;
    assert_eq!(folder(&wrong, CgroupId(1)), None);
}
