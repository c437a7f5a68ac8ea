//! A hub that sends wrong data or tries to write outside of the cache: nothing is saved.

use super::server::COMMIT;
use super::{Place, WEIGHTS, weights};

/// Checks that no part of the weights is in the cache and no commit is marked as complete.
#[track_caller]
fn nothing_of_the_weights(place: &Place) {
    let etag = &place.hub.state().repos[0].1.last().unwrap().etag();
    for name in place.kept() {
        assert!(!name.contains(WEIGHTS) && !name.contains("refs") && !name.contains(".incomplete"), "{name}");
        assert!(!name.contains(etag), "{name}");
    }
}

#[test]
fn content_with_a_wrong_hash_is_not_kept() {
    let place = Place::new();
    place.hub.state().damages = true;
    place.refuses("org/name", &[WEIGHTS, "does not have the hash that the hub reports", "nothing was saved"]);
    nothing_of_the_weights(&place);
    // Nor is it stored under the wrong hash given by the hub.
    place.hub.state().damages = false;
    place.hub.state().hash = Some("0".repeat(64));
    place.refuses("org/name", &[WEIGHTS, "does not have the hash"]);
    nothing_of_the_weights(&place);
    place.hub.state().hash = None;
    place.fetch("org/name").unwrap();
}

#[test]
fn content_with_a_wrong_hash_is_not_kept_after_a_resume() {
    let place = Place::new();
    place.hub.state().damages = true;
    place.hub.state().cuts.push_back(5000);
    place.refuses("org/name", &["does not have the hash"]);
    nothing_of_the_weights(&place);
}

#[test]
fn content_with_a_wrong_size_is_not_kept() {
    for size in [999_999, 1_000_001, 10] {
        let place = Place::new();
        place.hub.state().size = Some(size);
        place.refuses("org/name", &[WEIGHTS, "1000000 bytes, but reports", &format!("a size of {size}")]);
        nothing_of_the_weights(&place);
    }
}

#[test]
fn content_with_a_wrong_size_is_not_kept_if_no_length_is_sent() {
    for (size, reported) in [
        (100, "sends more than the 100 bytes"),
        (1_000_001, "sends 1000000 bytes, but reports a size of 1000001"),
    ] {
        let place = Place::new();
        place.hub.state().size = Some(size);
        place.hub.state().chunked = true;
        place.refuses("org/name", &[WEIGHTS, reported, "nothing was saved"]);
        nothing_of_the_weights(&place);
    }
    let place = Place::new();
    place.hub.state().chunked = true;
    place.fetch("org/name").unwrap();
}

#[test]
fn an_impossible_size_is_refused_before_the_download() {
    for (size, reported) in [(1 << 60, "1048576 TiB"), (u64::MAX, "16777216 TiB")] {
        let place = Place::new();
        place.hub.state().size = Some(size);
        place.refuses("org/name", &[WEIGHTS, reported, "more than the limit of"]);
        assert_eq!(place.kept(), [""; 0]);
        assert!(place.hub.seen().iter().all(|s| !s.cdn && s.method != "GET" || s.path.contains("/api/")));
    }
}

#[test]
fn a_range_other_than_the_requested_one_is_not_kept() {
    let place = Place::new();
    place.hub.state().cuts.push_back(5000);
    place.hub.state().shifts_range = true;
    place.refuses("org/name", &[WEIGHTS, "bytes 5000-999999/1000000", "bytes 4999-999999/1000000"]);
    nothing_of_the_weights(&place);
}

#[test]
fn a_listing_cannot_write_outside_the_cache() {
    for name in
        ["../../../escaped.json", "/tmp/escaped.json", "a\\..\\b.json", "x\u{7}.json", "a/../../b.json"]
    {
        let place = Place::new();
        let files =
            serde_json::json!([{"rfilename": "config.json"}, {"rfilename": WEIGHTS}, {"rfilename": name}]);
        place.hub.state().listing = Some(serde_json::json!({"sha": COMMIT, "siblings": files}).to_string());
        place.refuses("org/name", &["the hub lists a file", "nothing is downloaded"]);
        assert_eq!(place.kept(), [""; 0]);
    }
}

#[test]
fn a_commit_or_a_hash_cannot_write_outside_the_cache() {
    let place = Place::new();
    place.hub.state().listing = Some(r#"{"sha": "../../../../escaped", "siblings": []}"#.into());
    place.refuses("org/name", &["reports the invalid commit"]);
    place.hub.state().listing = None;
    place.hub.state().hash = Some("../../escaped".into());
    place.refuses("org/name", &["no etag that can be its name"]);
    let files: Vec<_> =
        std::fs::read_dir(place.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(files.len() <= 1, "{files:?}");
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    for shard in ["../../x.safetensors", "/x.safetensors", "none.safetensors"] {
        let place = Place::new();
        let index = serde_json::json!({"weight_map": {"a": shard}}).to_string();
        place.hub.add(
            "models/org/s",
            &[("config.json", b"{}"), ("model.safetensors.index.json", index.as_bytes())],
        );
        place.refuses("org/s", &["model.safetensors.index.json", shard]);
    }
}

#[test]
fn an_endless_listing_is_refused() {
    let place = Place::new();
    place.hub.state().listing = Some(" ".repeat((32 << 20) + 2));
    place.refuses("org/name", &["its listing is longer than the limit of 32 MiB"]);
}

#[test]
fn an_invalid_listing_is_an_error_that_names_hf_endpoint() {
    let place = Place::new();
    place.hub.state().listing = Some("<html>Welcome</html>".into());
    place.refuses("org/name", &["listing is invalid", "check that HF_ENDPOINT is a hub"]);
}

#[test]
fn a_link_in_the_place_of_a_file_is_replaced_not_written_through() {
    let place = Place::new();
    let snapshot = place.fetch("org/name").unwrap();
    let (secret, pointer) = (place.dir.path().join("secret"), snapshot.dir.join("config.json"));
    std::fs::remove_file(&pointer).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&secret, &pointer).unwrap();
    place.fetch("org/name").unwrap();
    assert!(!secret.exists() && std::fs::read(&pointer).unwrap() == b"{}");
    assert!(std::fs::read(snapshot.dir.join(WEIGHTS)).unwrap() == weights(1_000_000));
}
