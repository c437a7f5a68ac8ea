//! Downloads that cannot work: one sentence with the way out.

use oaif::unstable::error::Error;
use oaif::unstable::hub::{Token, Wanted};

use super::server::TOKEN;
use super::{Calls, Place};

#[test]
fn a_private_or_unknown_repository_asks_for_the_name_or_a_token() {
    let mut place = Place::new();
    place.hub.state().token = Some(TOKEN.into());
    let error =
        place.refuses("org/name", &["private or does not exist (401", "check the name", "set HF_TOKEN"]);
    assert!(matches!(error, Error::Config { .. }));
    place.settings.token = Token::new("hf_another", "test").unwrap();
    place.refuses("org/name", &["with this token", "401", "check the name, and HF_TOKEN"]);
    place.with_token();
    place.fetch("org/name").unwrap();
}

#[test]
fn a_gated_repository_asks_to_accept_the_licence() {
    let mut place = Place::new();
    place.hub.state().gated = true;
    place.with_token();
    place.refuses("org/name", &["is gated (403", "accept its licence on ", "/org/name", "set HF_TOKEN"]);
    assert_eq!(place.kept(), [""; 0]);
}

#[test]
fn a_missing_repository_revision_and_file_are_distinguished() {
    let place = Place::new();
    place.refuses("org/none", &["does not exist as a model (404", "check the name"]);
    place.refuses("org/name@none", &["has no revision none (404", "after @"]);
    let listing = r#"{"sha": "0123456789abcdef0123456789abcdef01234567", "siblings": [{"rfilename": "config.json"},
        {"rfilename": "model.safetensors"}, {"rfilename": "vocab.txt"}]}"#;
    place.hub.state().listing = Some(listing.into());
    place.refuses("org/name", &["has no file vocab.txt at this revision (404"]);
}

#[test]
fn a_repository_without_safetensors_is_refused_by_what_it_has() {
    let place = Place::new();
    place.hub.add("models/org/pickle", &[("config.json", b"{}"), ("pytorch_model.bin", b"x")]);
    place
        .refuses("org/pickle", &["has no model.safetensors, only pytorch_model.bin, which is not supported"]);
    assert_eq!(place.kept(), [""; 0]);
}

#[test]
fn rows_of_other_formats_are_refused_by_their_files() {
    let place = Place::new();
    place.hub.add("datasets/org/rows", &[("data/train-0.arrow", b"ARROW1"), ("README.md", b"x")]);
    let error = place.fetch_as("org/rows", &Wanted::Rows(None), &mut ()).unwrap_err().to_string();
    assert!(error.contains("only data/train-0.arrow: rows are read from"), "{error}");
}

#[test]
fn the_address_of_an_unreachable_hub_is_named() {
    let mut place = Place::new();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.settings.endpoint = format!("http://{unused}");
    let error = place
        .refuses("org/name", &["is not in the cache", &unused.to_string(), "cannot be reached", "try again"]);
    assert!(matches!(error, Error::Hub { .. }));
}

#[test]
fn an_unreachable_hub_is_not_needed_if_the_cache_is_complete() {
    let mut place = Place::new();
    let snapshot = place.fetch("org/name").unwrap();
    place.settings.endpoint = "http://127.0.0.1:9".into();
    let mut calls = Calls::default();
    assert_eq!(place.fetch_as("org/name", &Wanted::Model, &mut calls).unwrap(), snapshot);
    assert!(calls.warnings[0].contains("the cached files are used"), "{:?}", calls.warnings);
}

#[test]
fn after_repeated_failures_the_received_part_is_kept() {
    let place = Place::new();
    place.hub.state().cuts.extend([0; 5]);
    place.refuses("org/name", &["model.safetensors: ", "after 0 bytes of 977 KiB", "continues from there"]);
}

#[test]
fn a_download_too_large_for_the_disk_is_refused_before_it_starts() {
    let place = Place::new();
    place.hub.state().size = Some(1 << 40);
    let error = place.fetch("org/name").unwrap_err().to_string();
    if error.contains("free") {
        assert!(
            error.contains("needs 1.0 TiB more") && error.contains("set HF_HOME to a folder on another disk"),
            "{error}"
        );
        assert_eq!(place.kept(), [""; 0]);
    }
}
