//! Passes the commit, the features and the target of the build to the program, for `oaif --version`.

use std::path::Path;
use std::process::Command;

fn main() {
    let features = ["demo", "http", "mpi", "parquet", "ui"];
    let enabled = |name: &&str| std::env::var_os(format!("CARGO_FEATURE_{}", name.to_uppercase())).is_some();
    let features: Vec<&str> = features.into_iter().filter(enabled).collect();
    println!("cargo::rustc-env=OAIF_FEATURES={}", features.join(" "));
    println!("cargo::rustc-env=OAIF_TARGET={}", std::env::var("TARGET").expect("cargo sets it"));
    println!("cargo::rustc-env=OAIF_COMMIT={}", commit().unwrap_or_else(|| "unknown".into()));
    println!("cargo::rerun-if-env-changed=OAIF_COMMIT");
    // A changed file adds the + to the commit.
    for path in ["build.rs", "Cargo.toml", "src", "shaders", "models"] {
        println!("cargo::rerun-if-changed={path}");
    }
    // Git changes this file with every commit, checkout and reset.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// The commit: `$OAIF_COMMIT` if it is set, else the one that `cargo package` recorded, else that of the checkout.
fn commit() -> Option<String> {
    let given = std::env::var("OAIF_COMMIT").ok().filter(|commit| !commit.is_empty());
    given.or_else(packaged).or_else(checked_out)
}

/// The commit in `.cargo_vcs_info.json`: `{"git": {"sha1": "…"}, …}`.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let hash = text.split("\"sha1\"").nth(1)?.split('"').nth(1)?;
    Some(hash.chars().take(12).collect())
}

/// The commit of the checkout, with a + if files were changed.
fn checked_out() -> Option<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}

/// The output of a git command in this checkout.
fn git(arguments: &[&str]) -> Option<String> {
    // Without this check, git would find the checkout of a project that contains these sources.
    Path::new(".git").exists().then_some(())?;
    let done = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?.trim().to_owned();
    done.status.success().then_some(text)
}
