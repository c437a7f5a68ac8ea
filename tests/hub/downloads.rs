//! Downloads, and how they are resumed after a failure.

use std::time::{Duration, Instant};

use oaif::unstable::hub::Wanted;

use super::server::{COMMIT, Seen, TOKEN};
use super::{Calls, Place, WEIGHTS, weights};

/// Requests for the weights' content.
fn of_weights(seen: &[Seen]) -> Vec<Option<String>> {
    let weights = seen.iter().filter(|s| s.cdn && s.method == "GET" && s.path.contains(WEIGHTS));
    weights.map(|s| s.range.clone()).collect()
}

fn range(from: usize) -> Option<String> {
    Some(format!("bytes={from}-"))
}

#[test]
fn only_needed_files_are_downloaded_and_the_second_time_the_cache_is_used() {
    let place = Place::new();
    let mut calls = Calls::default();
    let snapshot = place.fetch_as("org/name", &Wanted::Model, &mut calls).unwrap();
    let files = ["config.json", "tokenizer.json", "additional_chat_templates/rag.jinja", WEIGHTS];
    assert_eq!(snapshot.files, files);
    assert_eq!(snapshot.commit.to_string(), COMMIT);
    for (name, content) in files.iter().zip([&b"{}"[..], b"[1]", b"x", &weights(1_000_000)]) {
        assert!(std::fs::read(snapshot.dir.join(name)).unwrap() == content, "{name}");
    }
    assert!(!snapshot.dir.join("pytorch_model.bin").exists());
    // The size is reported before the download starts.
    assert_eq!((calls.begun, calls.received), (vec![(4, 1_000_006, 0)], 1_000_006));
    place.hub.seen();
    let mut calls = Calls::default();
    assert_eq!(place.fetch_as("org/name", &Wanted::Model, &mut calls).unwrap(), snapshot);
    let seen = place.hub.seen();
    assert!(calls.begun.is_empty() && seen.len() == 1 && seen[0].path.contains("/revision/main"), "{seen:?}");
}

#[test]
fn an_interrupted_download_is_resumed() {
    let place = Place::new();
    place.hub.state().cuts.extend([300_000, 1]);
    let snapshot = place.fetch("org/name").unwrap();
    assert!(std::fs::read(snapshot.dir.join(WEIGHTS)).unwrap() == weights(1_000_000));
    assert_eq!(of_weights(&place.hub.seen()), [None, range(300_000), range(300_001)]);
}

#[test]
fn a_download_that_a_process_left_is_resumed_by_the_next() {
    let place = Place::new();
    place.hub.state().cuts.extend([400_000, 0, 0, 0, 0]);
    let why = place.refuses("org/name", &["after 391 KiB of 977 KiB", "try again", "continues from there"]);
    assert!(matches!(why, oaif::unstable::error::Error::Hub { .. }), "{why:?}");
    // The received part is kept, but is not visible as a file.
    assert!(place.kept().iter().any(|name| name.ends_with(".incomplete")));
    assert!(!place.kept().iter().any(|name| name.ends_with(WEIGHTS) || name.contains("refs")));
    place.hub.seen();
    let mut calls = Calls::default();
    let snapshot = place.fetch_as("org/name", &Wanted::Model, &mut calls).unwrap();
    assert_eq!(of_weights(&place.hub.seen()), [range(400_000)]);
    assert_eq!(calls.begun, [(1, 1_000_000, 400_000)]);
    assert_eq!(calls.received, 600_000);
    assert!(std::fs::read(snapshot.dir.join(WEIGHTS)).unwrap() == weights(1_000_000));
    assert!(!place.kept().iter().any(|name| name.ends_with(".incomplete")));
}

#[test]
fn a_hub_that_ignores_ranges_sends_the_whole_file_again() {
    let place = Place::new();
    place.hub.state().cuts.push_back(400_000);
    place.hub.state().ignores_range = true;
    let snapshot = place.fetch("org/name").unwrap();
    assert!(std::fs::read(snapshot.dir.join(WEIGHTS)).unwrap() == weights(1_000_000));
    assert_eq!(of_weights(&place.hub.seen()), [None, range(400_000)]);
}

#[test]
fn a_damaged_partial_download_is_restarted() {
    let place = Place::new();
    place.hub.state().cuts.extend([400_000, 0, 0, 0, 0]);
    place.fetch("org/name").unwrap_err();
    let part = place.kept().into_iter().find(|name| name.ends_with(".incomplete")).unwrap();
    let part = place.settings.cache.join(part);
    for damaged in [vec![0; 400_000], vec![0; 1_000_000], vec![0; 1_000_001]] {
        std::fs::write(&part, &damaged).unwrap();
        let snapshot = place.fetch("org/name").unwrap();
        assert!(std::fs::read(snapshot.dir.join(WEIGHTS)).unwrap() == weights(1_000_000));
        let blob = std::fs::canonicalize(snapshot.dir.join(WEIGHTS)).unwrap();
        std::fs::remove_file(blob).unwrap();
    }
}

#[test]
fn transient_failures_are_retried_with_increasing_delays() {
    let mut place = Place::new();
    place.settings.backoff = Duration::from_millis(20);
    place.hub.state().statuses.extend([503, 429, 500, 502]);
    let begun = Instant::now();
    place.fetch("org/name").unwrap();
    // 20 + 40 + 80 + 160 ms.
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    let listings = place.hub.seen().iter().filter(|seen| seen.path.contains("/revision/")).count();
    assert_eq!(listings, 5);
}

#[test]
fn a_silent_hub_is_retried_and_a_slow_one_is_waited_for() {
    let mut place = Place::new();
    place.settings.timeout = Duration::from_secs(2);
    place.hub.state().silences.push_back(200_000);
    // In total longer than the timeout.
    place.hub.state().slow = Some(Duration::from_millis(200));
    let snapshot = place.fetch("org/name").unwrap();
    assert!(std::fs::read(snapshot.dir.join(WEIGHTS)).unwrap() == weights(1_000_000));
    assert_eq!(of_weights(&place.hub.seen()), [None, range(200_000)]);
}

#[test]
fn an_expired_link_is_requested_again() {
    let place = Place::new();
    place.hub.state().cdn_statuses.extend([403, 401]);
    place.fetch("org/name").unwrap();
    place.hub.state().cdn_statuses.extend([403; 5]);
    place.hub.state().repos[0].1.last_mut().unwrap().content.push(0);
    std::fs::remove_dir_all(&place.settings.cache).unwrap();
    place.refuses("org/name", &["model.safetensors: http://127.0.0.1:", " answers 403", "try again"]);
}

#[test]
fn the_token_goes_to_the_hub_and_to_no_other_host() {
    let mut place = Place::new();
    place.with_token();
    place.hub.state().token = Some(TOKEN.into());
    place.fetch("org/name").unwrap();
    let seen = place.hub.seen();
    assert!(seen.iter().any(|s| s.cdn));
    for s in seen {
        assert_eq!(s.token.is_some(), !s.cdn, "{s:?}");
    }
    let shown = format!("{:?} {:?}", place.hub(), place.settings);
    assert!(!shown.contains(TOKEN), "{shown}");
}

#[test]
fn a_revision_is_a_branch_a_tag_a_pull_request_or_a_commit() {
    let place = Place::new();
    for revision in ["v1", "refs/pr/1", COMMIT] {
        let snapshot = place.fetch(&format!("org/name@{revision}")).unwrap();
        assert_eq!(snapshot.commit.to_string(), COMMIT);
        let reference = place.settings.cache.join("models--org--name/refs").join(revision);
        match revision {
            COMMIT => assert!(!reference.exists()),
            _ => assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT),
        }
    }
}

#[test]
fn a_renamed_repository_is_stored_under_the_given_name() {
    let mut place = Place::new();
    place.with_token();
    let snapshot = place.fetch("old/name").unwrap();
    assert!(snapshot.dir.starts_with(place.settings.cache.join("models--old--name")));
    assert!(place.hub.seen().iter().all(|seen| seen.token.is_some() != seen.cdn));
}

#[test]
fn sharded_weights_are_downloaded_by_their_index() {
    let place = Place::new();
    let index = r#"{"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors"}}"#;
    let files: [(&str, &[u8]); 5] = [
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index.as_bytes()),
        ("m-1.safetensors", b"one"),
        ("m-2.safetensors", b"two"),
        ("consolidated.safetensors", b"all"),
    ];
    place.hub.add("models/org/shards", &files);
    let snapshot = place.fetch("org/shards").unwrap();
    let expected = ["config.json", "model.safetensors.index.json", "m-1.safetensors", "m-2.safetensors"];
    assert_eq!(snapshot.files, expected);
    assert!(!snapshot.dir.join("consolidated.safetensors").exists());
}

#[test]
fn a_dry_run_downloads_no_weights_and_an_adapter_is_two_files() {
    let place = Place::new();
    let files = place.fetch_as("org/name", &Wanted::ModelWithoutWeights, &mut ()).unwrap().files;
    assert!(!files.contains(&WEIGHTS.into()) && place.hub.seen().iter().all(|s| !s.cdn));
    let files: [(&str, &[u8]); 3] =
        [("adapter_config.json", b"{}"), ("adapter_model.safetensors", b"lora"), ("optimizer.pt", b"no")];
    place.hub.add("models/org/lora", &files);
    let files = place.fetch_as("org/lora", &Wanted::Adapter, &mut ()).unwrap().files;
    assert_eq!(files, ["adapter_config.json", "adapter_model.safetensors"]);
}

#[test]
fn only_the_rows_of_the_named_split_are_downloaded() {
    let place = Place::new();
    place.hub.add(
        "datasets/org/rows",
        &[("data/train.jsonl", b"{}"), ("data/test.jsonl", b"[]"), ("a.arrow", b"ARROW1")],
    );
    let rows = |split: Option<&str>| {
        let wanted = Wanted::Rows(split.map(str::to_owned));
        place.fetch_as("org/rows", &wanted, &mut ()).map(|snapshot| snapshot.files)
    };
    assert_eq!(rows(None).unwrap(), ["data/train.jsonl"]);
    assert_eq!(rows(Some("test")).unwrap(), ["data/test.jsonl"]);
    assert!(place.kept().contains(&format!("datasets--org--rows/snapshots/{COMMIT}/data/test.jsonl")));
    let why = rows(Some("a.arrow")).unwrap_err().to_string();
    assert!(why.contains("a.arrow is not supported"), "{why}");
}

#[test]
fn two_downloads_of_one_file_do_not_interfere() {
    let place = Place::new();
    place.hub.state().slow = Some(Duration::from_millis(10));
    std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| place.fetch("org/name").unwrap()));
        both.into_iter().for_each(|one| drop(one.join().unwrap()));
    });
    assert_eq!(of_weights(&place.hub.seen()), [None], "the second waits for the first and uses its file");
}
