use super::*;

#[test]
fn lines_come_whole_however_the_bytes_come() {
    let text = b"one\n\ntwo\r\nth\xffree";
    let expected: Vec<Vec<u8>> =
        vec![b"one".to_vec(), b"".to_vec(), b"two\r".to_vec(), b"th\xffree".to_vec()];
    for size in 1..=text.len() {
        let mut lines = Lines::new(1000);
        let mut cut: Vec<_> = text.chunks(size).flat_map(|piece| lines.push(piece)).collect();
        cut.extend(lines.finish());
        assert_eq!(cut, expected, "pieces of {size}");
    }
}

#[test]
fn a_line_without_an_end_is_cut_and_not_kept() {
    let mut lines = Lines::new(10);
    let cut = lines.push(&[b'x'; 25]);
    assert_eq!(cut, [vec![b'x'; 10], vec![b'x'; 10]]);
    assert_eq!(lines.finish(), [vec![b'x'; 5]]);
    assert!(lines.finish().is_empty());
}
