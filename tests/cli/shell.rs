//! What the program does for shells, packagers and people who type: completions, man pages, the version, short flags, presets.

use serde_json::Value;

use super::{PAIRS, Place};

fn place() -> Place {
    Place { dir: tempfile::tempdir().unwrap() }
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let place = place();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.oaif(&format!("completions {shell}")).done().out;
        assert!(script.contains("align") && script.contains("judge-model"), "{shell}: {script}");
    }
    let pages = place.oaif("man pages").done().out;
    let names = place.names("pages");
    assert_eq!(pages.lines().count(), names.len(), "{pages}");
    for name in ["oaif.1", "oaif-align.1", "oaif-doctor.1"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    let page = String::from_utf8(place.read("pages/oaif-align.1")).unwrap();
    let has_line = |start: &str| page.lines().any(|line| line.starts_with(start));
    assert!(has_line(".TH oaif-align 1 ") && has_line("Examples:"), "{page}");
}

#[test]
fn the_version_names_commit_features_and_target() {
    let place = place();
    assert_eq!(place.oaif("-V").done().out, format!("oaif {}\n", env!("CARGO_PKG_VERSION")));
    let long = place.oaif("--version").done().out;
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], format!("oaif {}", env!("CARGO_PKG_VERSION")));
    for (line, name) in lines[1..].iter().zip(["commit: ", "features: ", "target: "]) {
        assert!(line.strip_prefix(name).is_some_and(|value| !value.is_empty()), "{long}");
    }
}

#[test]
fn presets_give_flags_that_the_command_line_replaces() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    let run = |more: &str| {
        let line = format!("dpo -m tiny -d pairs.jsonl --preset preferences --max-steps 1 {more}");
        place.oaif(&line).done();
    };
    run("-o as-it-is");
    let config = place.json("as-it-is/run.json");
    assert_eq!(
        (&config["lora-r"], &config["loss"], &config["report"]),
        (&16.into(), &"dpo".into(), &true.into())
    );
    place.write("mine.yaml", "loss: ipo\nlora-r: 4\n");
    run("-o changed -c mine.yaml --lora-r 2 --preset low-memory");
    let config = place.json("changed/run.json");
    assert_eq!((&config["lora-r"], &config["loss"]), (&2.into(), &"ipo".into()));
    assert_eq!(config["gradient-accumulation-steps"], 16);
    run("-o quiet --report false");
    place.write("mine.yaml", "report: false\n");
    run("-o quieter -c mine.yaml");
    for config in ["quiet/run.json", "quieter/run.json"] {
        assert_eq!(place.json(config)["report"], false, "{config}");
    }
    let judged = "align -m tiny -d pairs.jsonl --preset clicks --judge rule --judge-rule shorter --dry-run";
    assert_eq!(
        serde_json::from_str::<Value>(&place.oaif(judged).done().out).unwrap()["configuration"]["async-level"],
        0
    );
    place.refuses("dpo -m tiny -d pairs.jsonl -o x --preset preference", 2, &["preferences"]);
    place.refuses("dpo -m tiny -d pairs.jsonl -o x --preset clicks", 2, &["clicks", "low-memory"]);
}
