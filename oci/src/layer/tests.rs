use super::*;
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("to memory");
    encoder.finish().expect("to memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("to memory")
}

fn expected(blob: &[u8], decoded: &[u8]) -> Expected {
    Expected { digest: Digest::of(blob), size: blob.len() as u64, diff_id: Digest::of(decoded) }
}

/// One byte at a time, as slow peers send them.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

fn read(blob: &[u8], expected: Expected) -> Result<Vec<u8>, LayerError> {
    let mut layer = Layer::new(blob, expected, Bounds::default())?;
    let mut decoded = Vec::new();
    layer.read_to_end(&mut decoded)?;
    assert_eq!(layer.finish()?, decoded.len() as u64);
    Ok(decoded)
}

#[test]
fn every_compression_is_seen_and_both_digests_hold() {
    let text: Vec<u8> = (0..20_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let half = text.len() / 2;
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&text)].concat();
    for blob in [
        text.clone(),
        gzip(&text),
        zstd(&text),
        // Several members or frames, one after the other, as parallel compressors write them.
        [gzip(&text[..half]), gzip(&text[half..])].concat(),
        [zstd(&text[..half]), zstd(&text[half..])].concat(),
        skippable,
    ] {
        let expected = expected(&blob, &text);
        assert_eq!(read(&blob, expected).expect("it is right"), text);
        // Whoever reads nothing of it still hears whether it is right; what follows is not read.
        let longer = [&blob[..], b"more"].concat();
        let layer = Layer::new(&longer[..], expected, Bounds::default()).expect("begun");
        assert_eq!(layer.finish().expect("it is right"), text.len() as u64);
        let layer = Layer::new(Slow(&blob), expected, Bounds::default()).expect("begun");
        assert_eq!(layer.finish().expect("it is right"), text.len() as u64);
        let sums = diff_id(&blob[..], Bounds::default()).expect("it is right");
        assert_eq!(sums, (expected.diff_id, text.len() as u64));
    }
}

#[test]
fn a_layer_of_other_bytes_is_refused() {
    let blob = gzip(b"some text");
    let right = expected(&blob, b"some text");
    let other = Digest::of(b"other");
    assert!(
        matches!(read(&blob, Expected { digest: other, ..right }), Err(LayerError::Digest { got, .. }) if got == right.digest)
    );
    assert!(
        matches!(read(&blob, Expected { diff_id: other, ..right }), Err(LayerError::DiffId { got, .. }) if got == right.diff_id)
    );
    let short = Layer::new(&b"plai"[..], expected(b"plain", b"plain"), Bounds::default());
    assert!(matches!(
        short.expect("begun").finish(),
        Err(LayerError::Short { got: 4, expected: 5 })
    ));
    assert!(matches!(read(&blob[..blob.len() - 1], right), Err(LayerError::Io(_))));
    let huge = Expected { size: limits::LAYER_BYTES_MAX + 1, ..right };
    assert!(matches!(read(&blob, huge), Err(LayerError::TooLarge(_))));
    // Something behind the archive that is not another member.
    let garbage = [&blob[..], b"garbage"].concat();
    assert!(read(&garbage, expected(&garbage, b"some text")).is_err());
    for at in 0..blob.len() {
        let mut damaged = blob.clone();
        damaged[at] ^= 1;
        assert!(read(&damaged, right).is_err(), "byte {at}");
    }
}

#[test]
fn what_is_not_read_is_named() {
    for (head, name) in [(XZ, "xz"), (BZIP2, "bzip2")] {
        let blob = [head, b"rest of it"].concat();
        let error = read(&blob, expected(&blob, b"")).expect_err(name).to_string();
        assert_eq!(error, format!("it is compressed by {name}: gzip and zstd are read"));
    }
    for (head, wanted) in
        [(&b""[..], Compression::Plain), (&[0x1f], Compression::Plain), (GZIP, Compression::Gzip)]
    {
        assert_eq!(Compression::of(head).ok(), Some(wanted));
    }
}

#[test]
fn bombs_are_noticed_while_they_go_off() {
    let zeros = vec![0; 64 << 20];
    for blob in [gzip(&zeros), zstd(&zeros)] {
        let mut layer =
            Layer::new(&blob[..], expected(&blob, &zeros), Bounds::default()).expect("begun");
        let mut buffer = vec![0; 1 << 20];
        let mut read = 0;
        let error = loop {
            match layer.read(&mut buffer) {
                Ok(length) => read += length as u64,
                Err(error) => break LayerError::from(error),
            }
        };
        assert!(matches!(error, LayerError::Ratio { .. }), "{error}");
        let most = limits::LAYER_RATIO_FREE_BYTES + limits::LAYER_RATIO_MAX * blob.len() as u64;
        assert!(read <= most, "{read} bytes came out");
    }
    // Few zeros are no bomb.
    let zeros = &zeros[..4 << 20];
    let blob = zstd(zeros);
    assert_eq!(read(&blob, expected(&blob, zeros)).expect("it is right").len(), zeros.len());
    let bounds = Bounds { bytes: 100, ..Bounds::default() };
    let layer = Layer::new(&blob[..], expected(&blob, zeros), bounds).expect("begun");
    assert!(matches!(layer.finish(), Err(LayerError::TooLarge(100))));
}

#[test]
fn a_frame_that_asks_for_more_memory_than_it_may_gets_none() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(limits::ZSTD_WINDOW_LOG_MAX + 1).expect("a window");
    encoder.write_all(b"small").expect("to memory");
    let blob = encoder.finish().expect("to memory");
    let error = read(&blob, expected(&blob, b"small")).expect_err("too much").to_string();
    assert!(error.contains("memory"), "{error}");
}
