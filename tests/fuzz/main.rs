//! Mutated input files: reading any file ends in a value or an [`oaif::Error`], within limits on time and memory, and
//! never in a panic, a hang or a crash.
//!
//! The test suite does a few thousand executions per target. To do more, for one target:
//!
//! ```sh
//! OAIF_FUZZ=1000000 OAIF_FUZZ_TARGET=rows cargo test --release --test fuzz -- --nocapture
//! ```
//!
//! `corpus/TARGET/` holds the initial inputs. Every execution is determined by the seed and its number, which are
//! printed with a failure. `OAIF_FUZZ_SEED` sets the seed, `OAIF_FUZZ_FIRST` the first number, and
//! `OAIF_FUZZ_TRACE=FILE` writes each input to a file, for the case that the process dies.

mod memory;
mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::Mutator;
use targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Executions per target in the test suite.
const EXECUTIONS: u64 = 2_000;
/// A longer execution counts as a hang. The limit is generous for busy machines.
const LONGEST: Duration = Duration::from_secs(20);
/// Limit on the memory that an execution may allocate in addition.
const MOST_MEMORY: usize = 1 << 30;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs one target; returns a summary line or an error.
fn fuzz(target: &Target) -> Result<String, String> {
    let seed = number("OAIF_FUZZ_SEED").unwrap_or(20_261_126);
    let first = number("OAIF_FUZZ_FIRST").unwrap_or(0);
    let executions = number("OAIF_FUZZ").unwrap_or(EXECUTIONS);
    let trace = std::env::var_os("OAIF_FUZZ_TRACE");
    let corpus = corpus(target.name);
    let dir = tempfile::tempdir().unwrap();
    let mut run = (target.prepare)(dir.path());
    let (mut longest, mut most, mut accepted) = (Duration::ZERO, 0, 0u64);
    let started = Instant::now();
    for number in first..first + executions {
        // The unchanged corpus comes first.
        let input = match corpus.get(number as usize) {
            Some(input) => input.clone(),
            None => Mutator::new(seed, number).mutate(&corpus),
        };
        if let Some(path) = &trace {
            std::fs::write(path, &input).unwrap();
        }
        let before = memory::begin();
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(&input)));
        let (took, grown) = (began.elapsed(), memory::peak().saturating_sub(before));
        let fail = |why: &str| {
            let text = String::from_utf8_lossy(&input);
            let shown: String = text.chars().take(400).collect();
            Err(format!("{}: {why} at execution {number}, seed {seed}: {shown:?}", target.name))
        };
        match result {
            Ok(ok) => accepted += u64::from(ok),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                return fail(said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic"));
            }
        }
        if took > LONGEST {
            return fail(&format!("{took:?}"));
        }
        if grown > MOST_MEMORY {
            return fail(&format!("{} MiB", grown >> 20));
        }
        (longest, most) = (longest.max(took), most.max(grown));
    }
    assert!(accepted > 0, "{}: nothing of the corpus is accepted", target.name);
    Ok(format!(
        "{:<17}{executions:>9} executions, {accepted:>8} accepted, {:>6.1} s, longest {longest:.1?}, most memory {:.1} MiB",
        target.name,
        started.elapsed().as_secs_f64(),
        most as f64 / (1 << 20) as f64
    ))
}

#[test]
fn mutated_files_end_in_a_value_or_an_error() {
    let only = std::env::var("OAIF_FUZZ_TARGET").ok();
    let wanted = |target: &&Target| only.as_ref().is_none_or(|name| name == target.name);
    let mut failures = Vec::new();
    let mut done = 0;
    for target in TARGETS.iter().filter(wanted) {
        done += 1;
        match fuzz(target) {
            Ok(line) => println!("{line}"),
            Err(why) => failures.push(why),
        }
    }
    assert!(done > 0, "no target is called {only:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
