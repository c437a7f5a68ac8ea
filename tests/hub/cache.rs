//! The cache has the layout of `huggingface_hub`, and offline only the cache is used.

use std::path::Path;

use oaif::unstable::error::Error;
use oaif::unstable::hub::Wanted;

use super::server::COMMIT;
use super::{Place, WEIGHTS, weights};

#[test]
fn the_cache_has_the_layout_of_huggingface_hub() {
    let place = Place::new();
    place.fetch("org/name").unwrap();
    let repo = place.settings.cache.join("models--org--name");
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    let files = place.hub.state().repos[0].1.clone();
    let mut expected = vec!["models--org--name/refs/main".to_owned()];
    for entry in
        files.iter().filter(|entry| !["README.md", "pytorch_model.bin"].contains(&entry.name.as_str()))
    {
        let blob = repo.join("blobs").join(entry.etag());
        assert!(std::fs::read(&blob).unwrap() == entry.content, "{}", entry.name);
        expected.push(format!("models--org--name/blobs/{}", entry.etag()));
        expected.push(format!("models--org--name/snapshots/{COMMIT}/{}", entry.name));
        #[cfg(unix)]
        {
            let up = "../".repeat(2 + entry.name.matches('/').count());
            let link = std::fs::read_link(repo.join("snapshots").join(COMMIT).join(&entry.name)).unwrap();
            assert_eq!(link, Path::new(&format!("{up}blobs/{}", entry.etag())));
        }
    }
    expected.sort();
    assert_eq!(place.kept(), expected);
    assert!(
        std::fs::read(place.settings.cache.join("CACHEDIR.TAG"))
            .unwrap()
            .starts_with(b"Signature: 8a477f597d28d172")
    );
}

#[test]
fn files_downloaded_by_huggingface_hub_are_used() {
    let mut place = Place::new();
    place.settings.offline = true;
    let repo = place.settings.cache.join("models--org--name");
    let write = |name: String, content: &[u8]| {
        let path = repo.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("refs/main".into(), COMMIT.as_bytes());
    write(format!("snapshots/{COMMIT}/config.json"), b"{}");
    // Only the files that the other program downloaded.
    let error = place.refuses("org/name", &["is in the cache without model.safetensors", "HF_HUB_OFFLINE"]);
    assert!(matches!(error, Error::Config { .. }));
    write(format!("snapshots/{COMMIT}/{WEIGHTS}"), b"w");
    assert_eq!(place.fetch("org/name").unwrap().dir, repo.join("snapshots").join(COMMIT));
    assert_eq!(place.fetch(&format!("org/name@{COMMIT}")).unwrap().files, ["config.json", WEIGHTS]);
}

#[test]
fn offline_the_hub_is_not_asked() {
    let mut place = Place::new();
    let snapshot = place.fetch("org/name").unwrap();
    place.hub.seen();
    place.settings.offline = true;
    assert_eq!(place.fetch("org/name").unwrap(), snapshot);
    place.refuses("org/other", &["is not in the cache ", "HF_HUB_OFFLINE is set: unset it"]);
    place.refuses("org/name@v1", &["is not in the cache ", "HF_HUB_OFFLINE"]);
    assert_eq!(place.hub.seen().len(), 0);
}

#[test]
fn offline_an_index_needs_all_its_files() {
    let mut place = Place::new();
    let index = r#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 4] = [
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index.as_bytes()),
        ("m-1.safetensors", b"one"),
        ("m-2.safetensors", b"two"),
    ];
    place.hub.add("models/org/shards", &files);
    let snapshot = place.fetch("org/shards").unwrap();
    place.settings.offline = true;
    assert_eq!(place.fetch("org/shards").unwrap(), snapshot);
    std::fs::remove_file(snapshot.dir.join("m-2.safetensors")).unwrap();
    place.refuses("org/shards", &["in the cache without some of its weights"]);
}

#[test]
fn offline_rows_that_were_not_downloaded_are_missing() {
    let mut place = Place::new();
    place.hub.add("datasets/org/rows", &[("train.jsonl", b"{}"), ("test.jsonl", b"[]")]);
    let rows = |split: &str| Wanted::Rows(Some(split.to_owned()));
    let snapshot = place.fetch_as("org/rows", &rows("test"), &mut ()).unwrap();
    place.settings.offline = true;
    assert_eq!(place.fetch_as("org/rows", &rows("test"), &mut ()).unwrap(), snapshot);
    for wanted in [rows("train"), Wanted::Rows(None)] {
        let error = place.fetch_as("org/rows", &wanted, &mut ()).unwrap_err().to_string();
        assert!(
            error.contains("is in the cache without these rows") && error.contains("HF_HUB_OFFLINE"),
            "{error}"
        );
    }
}

#[test]
fn content_with_a_known_hash_is_not_downloaded_again() {
    let place = Place::new();
    let snapshot = place.fetch("org/name").unwrap();
    std::fs::remove_dir_all(snapshot.dir.parent().unwrap()).unwrap();
    place.hub.seen();
    place.fetch("org/name").unwrap();
    assert!(place.hub.seen().iter().all(|seen| seen.method == "HEAD" || seen.path.contains("/api/")));
    assert!(std::fs::read(snapshot.dir.join(WEIGHTS)).unwrap() == weights(1_000_000));
}

#[test]
fn a_folder_that_cannot_be_written_to_is_named() {
    let mut place = Place::new();
    std::fs::write(place.dir.path().join("file"), "").unwrap();
    place.settings.cache = place.dir.path().join("file/hub");
    let error = place.fetch_as("org/name", &Wanted::Model, &mut ()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("file/hub"), "{error}");
}
