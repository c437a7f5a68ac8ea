//! Errors in an application that embeds the library: one clear error each, and nothing is damaged.

mod common;

use std::time::Duration;

use common::{application, fixture, gpu, prompts};
use oaif::data::{Completion, Pair, Prompt};
use oaif::files::MemoryFolder;
use oaif::gpu::{Gpu, GpuOptions};
use oaif::judge::{self, Judge, Judgement, Rated, Score, Threaded, Verdict};
use oaif::model::LoraConfig;
use oaif::preference::PreferenceLoss;
use oaif::train::{AlignOptions, DpoOptions, Policy, StepReport, TrainOptions, Trainer};
use oaif::{Error, Task, Wait};

/// Returns the same verdict for every pair and the same score for every response.
struct Says(Verdict, Option<f32>);

impl Judge for Says {
    fn name(&self) -> String {
        "says".into()
    }

    fn judge<'t>(&'t mut self, pairs: &'t [judge::Pair<'t>]) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        Box::pin(async move { Ok(pairs.iter().map(|_| self.0.clone().into()).collect()) })
    }

    fn rates(&self) -> bool {
        self.1.is_some()
    }

    fn rate<'t>(&'t mut self, responses: &'t [Rated<'t>]) -> Task<'t, oaif::Result<Vec<Score>>> {
        let score = self.1.expect("it rates");
        Box::pin(async move { Ok(responses.iter().map(|_| Score::Value(score)).collect()) })
    }
}

fn train() -> TrainOptions {
    TrainOptions::default().learning_rate(1e-3).batch_size(2).max_steps(4)
}

fn dpo() -> AlignOptions {
    AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 }).max_new_tokens(6)
}

fn pairs() -> Vec<Pair> {
    let words = common::words();
    let pair =
        |i: usize| Pair::new(words[i].as_str(), format!(" {}", words[i + 1]), format!(" {}", words[i + 2]));
    (0..6).map(pair).collect()
}

fn offline(gpu: &Gpu) -> Trainer<'static> {
    let policy = Policy::load(gpu, &fixture("tiny"), &train()).wait().unwrap();
    Trainer::offline(policy, &pairs(), &train(), &DpoOptions::new(PreferenceLoss::Dpo { beta: 0.1 }))
        .wait()
        .unwrap()
}

fn losses(trainer: &mut Trainer<'_>) -> Vec<Option<f64>> {
    std::iter::from_fn(|| trainer.step().wait().unwrap()).map(|report: StepReport| report.loss).collect()
}

#[test]
fn a_checkpoint_mixed_from_several_saves_is_refused_and_the_trainer_is_unchanged() {
    let Some(gpu) = gpu() else { return };
    let expected = losses(&mut offline(&gpu));
    let mut first = offline(&gpu);
    let saved = [1, 2].map(|_| {
        first.step().wait().unwrap();
        let folder = MemoryFolder::default();
        first.save(folder.path()).wait().unwrap();
        folder
    });
    let files = saved[1].files();
    assert!(files.iter().all(|(name, _)| !name.to_string_lossy().contains("tmp")), "{files:?}");
    for name in ["model.safetensors", "optimiser.safetensors", "state.json"] {
        let mixed =
            MemoryFolder::new(saved[0].files().iter().map(|(name, content)| (name, content.to_vec())));
        let (_, other) = files.iter().find(|(other, _)| other.as_os_str() == name).unwrap();
        mixed.insert(name, other.to_vec());
        let mut trainer = offline(&gpu);
        let error = trainer.resume(mixed.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("damaged"), "{error}");
        assert_eq!(losses(&mut trainer), expected, "{name}");
    }
    // A save over an older checkpoint replaces it.
    let folder = MemoryFolder::default();
    let mut trainer = offline(&gpu);
    trainer.step().wait().unwrap();
    trainer.save(folder.path()).wait().unwrap();
    trainer.step().wait().unwrap();
    trainer.save(folder.path()).wait().unwrap();
    let mut resumed = offline(&gpu);
    resumed.resume(folder.path()).unwrap();
    assert_eq!(resumed.steps_done(), 2);
    assert_eq!(losses(&mut resumed), expected[2..]);
}

#[test]
fn a_save_that_is_cut_off_at_any_file_leaves_a_complete_checkpoint() {
    let Some(gpu) = gpu() else { return };
    let mut first = offline(&gpu);
    let saved = [1, 2].map(|_| {
        first.step().wait().unwrap();
        let folder = MemoryFolder::default();
        first.save(folder.path()).wait().unwrap();
        folder.files()
    });
    let whole = |files: &[(std::path::PathBuf, std::sync::Arc<[u8]>)]| {
        MemoryFolder::new(files.iter().map(|(name, content)| (name, content.to_vec())))
    };
    let resumed = |folder: &MemoryFolder| {
        let mut trainer = offline(&gpu);
        trainer.resume(folder.path()).unwrap();
        assert_eq!(folder.files().len(), saved[0].len(), "something is left");
        trainer.steps_done()
    };
    for cut in 0..=saved[1].len() {
        let (before, after) = saved[1].split_at(cut);
        // Cut off while the files are written: the earlier checkpoint is used.
        let folder = whole(&saved[0]);
        for (name, content) in before.iter().filter(|(name, _)| !name.ends_with("checksums.json")) {
            folder.insert(std::path::Path::new(".saving.tmp").join(name), content.to_vec());
        }
        assert_eq!(resumed(&folder), 1, "written up to {cut}");
        // Cut off while the new files replace the earlier ones: the new checkpoint is used.
        let folder = whole(&saved[0]);
        for (name, content) in before {
            folder.insert(name, content.to_vec());
        }
        for (name, content) in after {
            let checksums = name.ends_with("checksums.json");
            let place = if checksums { name.clone() } else { std::path::Path::new(".saving.tmp").join(name) };
            folder.insert(place, content.to_vec());
        }
        assert_eq!(resumed(&folder), 2, "moved up to {cut}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_save_that_fails_leaves_the_earlier_checkpoint() {
    let Some(gpu) = gpu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = offline(&gpu);
    trainer.step().wait().unwrap();
    trainer.save(dir.path()).wait().unwrap();
    trainer.step().wait().unwrap();
    // A limit on the file size simulates a full disk.
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact saving_with_little_disk_space --ignored",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("CHECKPOINT", dir.path())
        // Standard output is a pipe: a log file would be subject to the limit, too.
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mut resumed = offline(&gpu);
    resumed.resume(dir.path()).unwrap();
    assert_eq!(resumed.steps_done(), 1);
    assert!(!dir.path().join(".saving.tmp").exists());
}

#[test]
#[ignore = "started by another test"]
#[cfg(target_os = "linux")]
fn saving_with_little_disk_space() {
    let gpu = gpu().unwrap();
    let dir = std::path::PathBuf::from(std::env::var_os("CHECKPOINT").unwrap());
    let mut trainer = offline(&gpu);
    trainer.step().wait().unwrap();
    trainer.step().wait().unwrap();
    let error = trainer.save(&dir).wait().unwrap_err().to_string();
    assert!(error.contains("cannot write"), "{error}");
}

#[test]
fn an_adapter_on_a_base_model_in_memory_can_be_saved() {
    let Some(gpu) = gpu() else { return };
    let files = std::fs::read_dir(fixture("tiny")).unwrap().map(|file| file.unwrap().path());
    let base = MemoryFolder::new(
        files.map(|path| (path.file_name().unwrap().to_owned(), std::fs::read(&path).unwrap())),
    );
    let policy = Policy::load(&gpu, base.path(), &train().lora(LoraConfig::new(4))).wait().unwrap();
    let saved = MemoryFolder::default();
    policy.save(saved.path()).wait().unwrap();
    assert!(saved.files().iter().any(|(name, _)| name.ends_with("adapter_config.json")));
}

#[test]
fn a_lost_device_is_that_error_at_any_point() {
    for wait in 0..12 {
        let Some((device, queue)) = application() else { return };
        let gpu = Gpu::from_device(device.clone(), queue, &GpuOptions::default()).unwrap();
        let mut trainer = offline(&gpu);
        trainer.step().wait().unwrap();
        let loses = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(700 * wait));
            device.destroy();
        });
        let error = loop {
            match trainer.step().wait() {
                Ok(Some(_)) => {}
                // The step was done before the device was lost.
                Ok(None) => break trainer.save(MemoryFolder::default().path()).wait().err(),
                Err(error) => break Some(error),
            }
        };
        loses.join().unwrap();
        if let Some(error) = error {
            assert!(matches!(error, Error::DeviceLost(_)), "after {wait}: {error}");
        }
        let error = trainer.save(MemoryFolder::default().path()).wait().unwrap_err();
        assert!(matches!(error, Error::DeviceLost(_)), "after {wait}: {error}");
    }
}

#[test]
fn a_reward_model_cannot_be_trained_as_a_policy() {
    let Some(gpu) = gpu() else { return };
    let rater = || Policy::load_for_reward(&gpu, &fixture("tiny"), &train()).wait().unwrap();
    let completions = [Completion::new("a", "b")];
    let errors = [
        Trainer::supervised(rater(), &completions, &train()).wait().err(),
        Trainer::offline(rater(), &pairs(), &train(), &DpoOptions::new(PreferenceLoss::Dpo { beta: 0.1 }))
            .wait()
            .err(),
        Trainer::online(rater(), &prompts(), Says(Verdict::Tie, None), &train(), &dpo()).wait().err(),
    ];
    for error in errors {
        let error = error.unwrap().to_string();
        assert!(
            error.starts_with("model: is a ") && error.ends_with("scores text and cannot generate it"),
            "{error}"
        );
    }
}

#[test]
fn contradictory_verdicts_and_scores_are_invalid() {
    let Some(gpu) = gpu() else { return };
    let said = [
        Verdict::First { p: 7.0 },
        Verdict::Second { p: -3.0 },
        Verdict::First { p: f32::NAN },
        Verdict::First { p: 0.1 },
    ];
    for verdict in said {
        let policy = Policy::load(&gpu, &fixture("tiny"), &train()).wait().unwrap();
        let says = Says(verdict.clone(), None);
        let mut trainer = Trainer::online(policy, &prompts(), says, &train(), &dpo()).wait().unwrap();
        let report = trainer.step().wait().unwrap().unwrap();
        let judging = report.judging.unwrap();
        assert_eq!((judging.invalid, report.loss), (judging.judged, None), "{verdict:?}");
        let judgement = report.pairs[0].judgement.as_ref().unwrap();
        assert_eq!(judgement.verdict, "invalid");
    }
}

/// Panics at its first call.
struct Panics(usize);

impl Judge for Panics {
    fn name(&self) -> String {
        "panics".into()
    }

    fn judge<'t>(&'t mut self, pairs: &'t [judge::Pair<'t>]) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        self.0 += 1;
        assert!(self.0 > 1, "out of order");
        Box::pin(async move { Ok(pairs.iter().map(|_| Verdict::Tie.into()).collect()) })
    }
}

#[test]
fn a_panic_of_a_judge_on_a_thread_is_an_error_and_the_step_can_be_taken_again() {
    let Some(gpu) = gpu() else { return };
    let policy = Policy::load(&gpu, &fixture("tiny"), &train()).wait().unwrap();
    let threaded = Threaded::new(Panics(0)).unwrap();
    let mut trainer = Trainer::online(policy, &prompts(), threaded, &train(), &dpo()).wait().unwrap();
    let error = trainer.step().wait().unwrap_err().to_string();
    assert!(error.contains("has panicked: out of order"), "{error}");
    assert!(trainer.step().wait().unwrap().is_some());
}

#[test]
fn invalid_options_and_rows_are_named() {
    let Some(gpu) = gpu() else { return };
    let policy = || Policy::load(&gpu, &fixture("tiny"), &train()).wait().unwrap();
    let online = |prompts: &[Prompt], train: &TrainOptions| {
        Trainer::online(policy(), prompts, Says(Verdict::Tie, None), train, &dpo()).wait().map(drop)
    };
    let begins = |error: oaif::Result<()>, with: &str| {
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(with), "{error}");
    };
    for ratio in [f64::NAN, -1.0, 2.0] {
        begins(online(&prompts(), &train().warmup_ratio(ratio)), "warmup-ratio: ");
    }
    begins(online(&[], &train()), "dataset: has no rows");
    let xpo = DpoOptions::new(PreferenceLoss::Xpo { beta: 0.1, alpha: 1e-3 });
    begins(Trainer::offline(policy(), &pairs(), &train(), &xpo).wait().map(drop), "loss: xpo needs pairs");
    let empty: &std::path::Path = "".as_ref();
    begins(policy().save(empty).wait(), "folder: has an empty path");
    begins(Policy::load(&gpu, empty, &train()).wait().map(drop), "folder: has an empty path");
    assert!(!std::path::Path::new("model.safetensors").exists());
    let words = common::words();
    let long = [Prompt::from(words[0].as_str()), Prompt::from(vec![words[0].as_str(); 4000].join(" "))];
    let trainer =
        Trainer::online(policy(), &long, Says(Verdict::Tie, None), &train(), &dpo()).wait().unwrap();
    let warnings = trainer.warnings().join("\n");
    assert!(warnings.contains("1 of 2") && warnings.contains("line 2"), "{warnings}");
}
