use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn digest(of: &str) -> String {
    Digest::of(of.as_bytes()).to_string()
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": ACCEPTED[2],
        "config": { "mediaType": CONFIG_TYPE, "digest": digest("config"), "size": 7 },
        "layers": [
            { "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest("a"), "size": 100 },
            { "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": digest("b"), "size": 10, "annotations": { "a": "b" } },
        ],
    })
}

fn index() -> Value {
    json!({
        "schemaVersion": 2,
        "manifests": [
            { "mediaType": ACCEPTED[2], "digest": digest("x"), "size": 5, "platform": { "os": "linux", "architecture": "amd64" } },
            { "mediaType": ACCEPTED[2], "digest": digest("y"), "size": 5, "platform": { "os": "linux", "architecture": "arm64", "variant": "v8" } },
            { "mediaType": ACCEPTED[2], "digest": digest("z"), "size": 5, "platform": { "os": "unknown", "architecture": "unknown" },
              "annotations": { "vnd.docker.reference.type": "attestation-manifest" } },
        ],
    })
}

fn read(value: &Value, media_type: &str) -> Result<Document, ManifestError> {
    Document::read(value.to_string().as_bytes(), media_type)
}

/// A document in which the value at a pointer is another one, or is not there.
fn with(mut document: Value, pointer: &str, value: Option<Value>) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = document.pointer_mut(parent).expect("a parent");
    match (parent, value) {
        (Value::Object(object), Some(value)) => drop(object.insert(name.into(), value)),
        (Value::Object(object), None) => drop(object.remove(name)),
        (Value::Array(array), Some(value)) => array[name.parse::<usize>().expect("one")] = value,
        _ => panic!("{pointer}"),
    }
    document
}

#[test]
fn manifests_of_oci_and_docker_are_read_and_written() {
    for media_type in ["", ACCEPTED[2], "application/vnd.oci.image.manifest.v1+json; charset=utf-8"]
    {
        let Ok(Document::Manifest(read)) = read(&manifest(), media_type) else { panic!() };
        assert_eq!(read.layers.len(), 2);
        assert_eq!(read.bytes(), 117);
        assert_eq!(Document::read(&read.to_json(), ""), Ok(Document::Manifest(read)));
    }
    let docker = with(manifest(), "/mediaType", Some(ACCEPTED[3].into()));
    let docker = with(docker, "/config/mediaType", Some(DOCKER_CONFIG_TYPE.into()));
    assert!(matches!(read(&docker, ACCEPTED[3]), Ok(Document::Manifest(_))));
    let Ok(Document::Index(index)) = read(&index(), ACCEPTED[0]) else { panic!() };
    let images: Vec<bool> = index.manifests.iter().map(Descriptor::is_image).collect();
    assert_eq!(images, [true, true, false]);
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    let huge = Some(json!(limits::LAYER_BYTES_MAX + 1));
    let layer = manifest()["layers"][0].clone();
    let layers = Some(Value::Array(vec![layer; limits::LAYERS_MAX + 1]));
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    #[rustfmt::skip]
    let table = [
        (with(manifest(), "/config", None), "it has neither manifests"),
        (with(manifest(), "/config/digest", Some("sha256:00".into())), "config.digest: \"sha256:00\": it has 2 digits"),
        (with(manifest(), "/config/size", None), "config.size: is missing"),
        (with(manifest(), "/config/size", Some(json!(-1))), "config.size: -1 is no size"),
        (with(manifest(), "/config/size", Some(json!(limits::CONFIG_BYTES_MAX + 1))), "config.size: is 4194305 bytes"),
        (with(manifest(), "/config/mediaType", Some("application/vnd.cncf.helm.config.v1+json".into())), "config.mediaType: \"application/vnd.cncf.helm"),
        (with(manifest(), "/layers/1/digest", Some("sha512:00".into())), "layers[1].digest: \"sha512:00\": its algorithm"),
        (with(manifest(), "/layers/1/size", huge), "layers[1].size: is 68719476737 bytes, and 68719476736 are allowed"),
        (with(manifest(), "/layers/0/mediaType", Some("text/plain".into())), "layers[0].mediaType: \"text/plain\" is no layer"),
        (with(manifest(), "/layers/0/mediaType", Some(foreign.into())), "layers[0].mediaType: may not be handed on"),
        (with(manifest(), "/layers", layers), "layers: are 128, and 127 are allowed"),
        (with(manifest(), "/manifests", Some(json!([]))), "manifests: stands beside layers or config"),
        (with(manifest(), "/schemaVersion", Some(json!(3))), "schemaVersion: is 3, and not 2"),
        (with(manifest(), "/schemaVersion", Some(json!(1))), "schemaVersion: is 1: such images"),
        (with(manifest(), "/mediaType", Some(ACCEPTED[0].into())), "mediaType: is application/vnd.oci.image.index.v1+json, and what follows"),
        (with(manifest(), "/mediaType", Some("text/plain".into())), "mediaType: \"text/plain\" is no index"),
        (with(index(), "/manifests/1/mediaType", None), "manifests[1].mediaType: is missing"),
        (json!({"schemaVersion": 1, "fsLayers": [], "history": []}), "schemaVersion: is 1"),
        (json!([2, null, {}, [], null, null]), "it is a list, and not an object"),
    ];
    for (document, wanted) in table {
        let error = read(&document, "").expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "{error}, not {wanted}");
    }
    let error = read(&manifest(), ACCEPTED[0]).expect_err("announced otherwise").to_string();
    assert!(error.contains("announced as application/vnd.oci.image.index"), "{error}");
    let error = Document::read(b"{\n  \"layers\": 3 }", "").expect_err("a number").to_string();
    assert!(error.contains("line 2 column 13"), "{error}");
    let error =
        Document::read(b"{\"layers\":[],\"layers\":[]}", "").expect_err("twice").to_string();
    assert!(error.contains("duplicate field `layers`"), "{error}");
    let large = vec![b' '; limits::MANIFEST_BYTES_MAX as usize + 1];
    assert!(matches!(Document::read(&large, ""), Err(ManifestError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let _ = Document::read(&bytes, "");
        let _ = Config::read(&bytes);
        for document in [manifest(), index()] {
            let mut text = document.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(Document::Manifest(manifest)) = Document::read(&text, "") {
                prop_assert!(manifest.layers.len() <= limits::LAYERS_MAX);
            }
        }
    }
}
