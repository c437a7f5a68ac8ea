//! `oaif eval`.

use serde_json::{Value, json};

use super::{MUTE, Outcome, Place, assert_close, number};

/// Twenty prompts in the vocabulary of the tiny models, each with a reference response.
fn prompts() -> String {
    let subjects = ["the fox", "she", "the old owl", "a bear"];
    let verbs = ["was", "said", "slept", "found", "went"];
    let row =
        |i: usize| json!({"prompt": format!("{} {}", subjects[i % 4], verbs[i / 4]), "reference": " home ."});
    (0..20).map(|i| format!("{}\n", row(i))).collect()
}

/// A folder with the tiny model, its adapter and [`prompts`].
fn place() -> Option<Place> {
    let place = Place::with(&["tiny", "tiny_lora"])?;
    place.write("prompts.jsonl", prompts());
    Some(place)
}

const ADAPTED: &str = "eval --model tiny --adapter tiny_lora --dataset prompts.jsonl --max-new-tokens 8";
const RULE: &str = "--judge rule --judge-rule longer";

fn characters(row: &Value, key: &str) -> usize {
    row[key].as_str().unwrap().chars().count()
}

#[test]
fn an_adapter_is_compared_with_its_base_and_every_figure_can_be_recomputed() {
    let Some(place) = place() else { return };
    let done = place.oaif(&format!("{ADAPTED} {RULE} --output out")).done();
    let first = done.out.lines().next().unwrap();
    let result = place.json("out/eval.json");
    let rows = place.rows("out/responses.jsonl");
    assert_eq!(rows.len(), 20);
    let (mut points, mut wins) = (0.0, 0);
    for row in &rows {
        let order = characters(row, "response_a").cmp(&characters(row, "response_b"));
        let (verdict, p) = match order {
            std::cmp::Ordering::Greater => ("win", 1.0),
            std::cmp::Ordering::Equal => ("tie", 0.5),
            std::cmp::Ordering::Less => ("loss", 0.0),
        };
        assert_eq!(row["verdict"], verdict, "{row}");
        if row["response_a"] != row["response_b"] {
            assert_eq!((&row["p_12"], &row["p_21"]), (&json!(p), &json!(p)), "the same in both orders");
        }
        assert!(row["kl"].is_number(), "{row}");
        points += p;
        wins += usize::from(verdict == "win");
    }
    assert_close(number(&result, "win_rate"), points / 20.0, 1e-12);
    assert_eq!(result["wins"], wins);
    let kl = rows.iter().map(|row| number(row, "kl")).sum::<f64>() / 20.0;
    assert_close(number(&result["kl"], "mean"), kl, 1e-9);
    let longer = &result["length_preference"];
    assert!(longer["share"].is_null() || longer["share"] == 1.0, "{longer}");
    assert_eq!(result["order"]["flipped"]["share"], 0.0);
    assert_eq!(result["configuration"]["judge-rule"], "longer");
    let rate = format!("A wins {:.1} % of 20 prompts against the start", 5.0 * points);
    assert!(first.starts_with(&rate) && first.contains("length-controlled"), "{first}");
    let html = String::from_utf8(place.read("out/report.html")).unwrap();
    let sentence = format!("A wins {:.0}\u{a0}% (95\u{a0}% interval", 5.0 * points);
    assert!(html.contains(&sentence) && html.contains("Some responses"), "{sentence}");
    let names = [
        "eval.json",
        "judgements.jsonl",
        "report.html",
        "responses.jsonl",
        "responses_a.jsonl",
        "responses_b.jsonl",
    ];
    assert_eq!(place.names("out"), names);

    let printed = place.oaif(&format!("{ADAPTED} {RULE} --output out --json")).done().out;
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), place.json("out/eval.json"));
    assert_eq!(place.json("out/eval.json"), result, "the result is reproducible");
    // The responses of A depend only on its policy and the seed.
    place.oaif(&format!("{ADAPTED} {RULE} --output other --seed 9")).done();
    assert_ne!(place.rows("other/responses.jsonl"), rows);
    // The log-probabilities of each response under both policies are those of `oaif score`.
    let line = "score --model tiny --input out/responses_a.jsonl";
    let (base, own) = (place.oaif(line).rows(), place.oaif(&format!("{line} --adapter tiny_lora")).rows());
    for ((base, own), row) in base.iter().zip(&own).zip(&rows) {
        assert_close(number(row, "kl"), number(own, "logp") - number(base, "logp"), 1e-4);
    }
}

#[cfg(unix)]
#[test]
fn a_killed_evaluation_repeats_no_sampling_and_no_judging() {
    let Some(place) = place() else { return };
    // Prefers the second response and records the pairs that it was asked about.
    place.script(
        "judge.sh",
        r#"while read -r line; do
  echo "$line" >> asked.jsonl
  id=$(echo "$line" | sed 's/^{"id":"\([^"]*\)".*/\1/')
  echo "{\"id\": \"$id\", \"verdict\": \"2\"}"
done"#,
    );
    let line = format!("{ADAPTED} --output out --judge command --judge-command ./judge.sh");
    place.oaif(&line).done();
    let whole = place.json("out/eval.json");
    let asked = place.rows("asked.jsonl").len();
    let different = 20 - whole["identical"].as_u64().unwrap() as usize;
    assert_eq!(asked, 2 * different, "in both orders");
    assert_eq!((&whole["order"]["first_wins"]["share"], &whole["ties"]), (&json!(0.0), &json!(20)));
    assert_eq!(whole["order"]["flipped"]["share"], 1.0);

    // Simulates a kill: half of each file, and a torn line.
    let mut kept = 0;
    for name in ["out/responses_a.jsonl", "out/judgements.jsonl"] {
        let text = String::from_utf8(place.read(name)).unwrap();
        let half: Vec<&str> = text.lines().take(text.lines().count() / 2).collect();
        kept = half.len();
        place.write(name, format!("{}\n{{\"id\":\"1", half.join("\n")));
    }
    for name in ["out/responses.jsonl", "out/eval.json", "asked.jsonl"] {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    place.oaif(&line).done();
    assert_eq!(place.rows("asked.jsonl").len(), asked - kept);
    assert_eq!(place.json("out/eval.json"), whole);
}

#[cfg(unix)]
#[test]
fn only_one_process_at_a_time_uses_an_evaluation_folder() {
    let Some(place) = place() else { return };
    // Waits until the file `go` exists.
    place.script(
        "judge.sh",
        r#"touch begun; while [ ! -e go ]; do sleep 0.1; done; sed 's/^{"id":"\([^"]*\)".*/{"id": "\1", "verdict": "1"}/'"#,
    );
    let line = format!("{ADAPTED} --output out --judge command --judge-command ./judge.sh");
    let mut first = place.command(&line).spawn().unwrap();
    while !place.path("begun").exists() {
        assert!(first.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    place.oaif(&line).ended(1, &["out: is in use by", "wait until it ends, or give another folder"]);
    place.write("go", "");
    assert!(first.wait().unwrap().success());
    let judged = place.rows("out/judgements.jsonl").len();
    place.oaif(&line).done();
    assert_eq!(place.rows("out/judgements.jsonl").len(), judged, "no pair is judged twice");
    assert_eq!(place.rows("out/responses_a.jsonl").len(), 20);
}

#[cfg(unix)]
#[test]
fn a_failing_judge_ends_the_evaluation_and_the_same_command_resumes_it() {
    let Some(place) = place() else { return };
    place.script("judge.sh", "echo broken >&2; exit 3");
    let line = format!("{ADAPTED} --output out --judge command --judge-command ./judge.sh");
    let failed = place.oaif(&line);
    assert!(failed.err.contains("the same command continues from there"), "{}", failed.err);
    failed.ended(1, &["judge.sh", "broken"]);
    let drawn = place.read("out/responses_a.jsonl");
    place.script("judge.sh", r#"sed 's/^{"id":"\([^"]*\)".*/{"id": "\1", "verdict": "tie"}/'"#);
    let done = place.oaif(&line).done();
    assert!(done.out.starts_with("A wins 50.0 % of 20 prompts"), "{}", done.out);
    assert_eq!(place.read("out/responses_a.jsonl"), drawn, "no response is sampled twice");
    // A judge without any valid verdict gives no result.
    place.script(
        "mute.sh",
        r#"sed 's/^{"id":"\([^"]*\)".*/{"id": "\1", "verdict": "invalid", "why": "mute"}/'"#,
    );
    let line = format!("{ADAPTED} --output out --judge command --judge-command ./mute.sh");
    place.oaif(&line).ended(1, &["gave no usable verdict", "mute"]);
}

#[test]
fn a_run_is_compared_with_its_initial_policy_and_the_use_of_its_own_judge_is_reported() {
    let Some(place) = place() else { return };
    let train = "--dataset prompts.jsonl --max-steps 2 --per-device-train-batch-size 4 --max-new-tokens 6 --temperature 0.7";
    let drawn = "--top-k 9 --top-p 0.9 --min-p 0.01 --stop fox";
    place.oaif(&format!("align --model tiny {train} {drawn} --lora-r 4 --output-dir lora {RULE}")).done();
    let own = place.oaif(&format!("eval --run lora {RULE}")).done();
    assert!(own.err.contains("the judge also trained the run: this win rate measures"), "{}", own.err);
    assert!(own.err.contains("fits that judge, not whether others"), "{}", own.err);
    assert!(own.err.contains("those that the run was trained on"), "{}", own.err);
    let result = place.json("lora/eval/eval.json");
    assert_eq!(result["warnings"].as_array().unwrap().len(), 2);
    assert_eq!((&result["against"], &result["b"]), (&json!("the starting model"), &json!("tiny")));
    for (key, value) in [
        ("temperature", json!(0.7)),
        ("top-k", json!(9)),
        ("top-p", json!(0.9)),
        ("min-p", json!(0.01)),
        ("stop", json!(["fox"])),
    ] {
        assert_eq!(result["configuration"][key], value, "{key}: sampled with the settings of the run");
    }
    assert!(number(&result["responses_a"], "mean_tokens") <= 6.0 && result["kl"]["mean"].is_number());

    let held_out = "--dataset prompts.jsonl --max-prompts 8 --output other";
    let other = place.oaif(&format!("eval --run lora --judge rule --judge-rule shorter {held_out}")).done();
    assert!(!other.err.contains("trained the run") && !other.err.contains("trained on"), "{}", other.err);
    assert_eq!(place.json("other/eval.json")["prompts"], 8);

    // For a run that trained all weights the starting model is in another folder; the KL is to that one.
    place.oaif(&format!("align --model tiny {train} --learning-rate 0.01 --output-dir whole {RULE}")).done();
    place.oaif(&format!("eval --run whole {RULE} --dataset prompts.jsonl")).done();
    let result = place.json("whole/eval/eval.json");
    assert_eq!((&result["a"], &result["b"]), (&json!("whole/model"), &json!("tiny")));
    assert!(number(&result["kl"], "mean").abs() > 1e-3, "{}", result["kl"]);
}

#[cfg(unix)]
#[test]
fn an_ensembles_members_are_checked_for_self_preference_and_for_having_trained_the_run() {
    let Some(place) = place() else { return };
    place.write("long.toml", "judge = 'rule'\njudge-rule = 'longer'\n");
    place.write("short.toml", "judge = 'rule'\njudge-rule = 'shorter'\n");
    place.write("tiny.toml", "judge = 'likelihood'\njudge-model = 'tiny'\n");
    place.write("mute.toml", "judge = 'command'\njudge-command = 'sh mute.sh'\n");
    place.write("mute.sh", MUTE);
    place.write("both.toml", "judge = 'ensemble'\njudge-member = ['short.toml', 'tiny.toml']\n");
    let ensemble = |members: [&str; 2]| {
        format!("--judge ensemble --judge-member {}.toml --judge-member {}.toml", members[0], members[1])
    };
    let line =
        "eval --model tiny --dataset prompts.jsonl --against reference --max-new-tokens 8 --output out";
    let eval = |judge: &str| place.oaif(&format!("{line} {judge}")).done();
    let own = "A's responses were written by the own model of the judge's member likelihood (tiny)";
    let measured = "for A (responses of the own model of the judge's member likelihood (tiny)), compared with the second judge";
    let with_own = ensemble(["long", "tiny"]);
    assert!(eval(&with_own).err.contains(own));
    // Neither a second judge with that model nor one without valid verdicts can measure it.
    for (second, expected) in [("both", ""), ("mute", "the second judge gave no usable verdict")] {
        let done = eval(&format!("{with_own} --second-judge {second}.toml"));
        assert!(
            done.err.contains(own) && done.err.contains(expected) && !done.out.contains(measured),
            "{}",
            done.err
        );
    }
    let done = eval(&format!("{with_own} --second-judge short.toml"));
    assert!(!done.err.contains(own) && done.out.contains(measured), "{} {}", done.err, done.out);
    let html = String::from_utf8(place.read("out/report.html")).unwrap();
    assert!(html.contains("member likelihood (tiny): it prefers them by"));
    let done = eval(&ensemble(["long", "mute"]));
    let unheard = "member 2 of the judge (command) has no usable verdict on 20 of 20 pairs";
    let html = String::from_utf8(place.read("out/report.html")).unwrap();
    assert!(done.err.contains(unheard) && html.contains(unheard), "{}", done.err);

    let train = "align --model tiny --dataset prompts.jsonl --max-steps 1 --per-device-train-batch-size 4 --max-new-tokens 6";
    let trained_by = |run: &str, judge: &str, expected: &str| {
        let done = place.oaif(&format!("eval --run {run} {judge}")).done();
        assert!(
            done.err.contains(&format!("{expected}: this win rate measures")),
            "{expected}: {}",
            done.err
        );
    };
    place.write("has.toml", "judge = 'rule'\njudge-rule = 'contains:e'\n");
    place.oaif(&format!("{train} --output-dir two {}", ensemble(["long", "has"]))).done();
    trained_by("two", &ensemble(["has", "long"]), "the judge also trained the run");
    trained_by("two", RULE, "the judge is a member of the ensemble that trained the run");
    trained_by("two", &ensemble(["long", "tiny"]), "1 of the judge's 2 members also trained the run");
    place.oaif(&format!("{train} --output-dir one {RULE}")).done();
    trained_by("one", &ensemble(["long", "short"]), "a member of the judge also trained the run");
}

#[test]
fn responses_in_files_and_datasets_are_compared_without_a_policy() {
    let Some(place) = place() else { return };
    let reference = place.oaif(&format!("{ADAPTED} {RULE} --output out --against reference")).done();
    assert!(reference.out.contains("against the reference responses"), "{}", reference.out);
    assert!(
        reference.out.contains("characters;") || reference.out.contains("characters\n"),
        "{}",
        reference.out
    );
    assert!(place.rows("out/responses.jsonl").iter().all(|row| row["response_b"] == " home ."));

    // The output of one evaluation is the input of another, and its verdicts are those of a second judge.
    place.oaif(&format!("{ADAPTED} {RULE} --output drawn")).done();
    let files = "eval --responses drawn/responses_a.jsonl --against drawn/responses_b.jsonl --output files";
    place
        .oaif(&format!("{files} --judge rule --judge-rule longer --judgements drawn/responses.jsonl"))
        .done();
    let (drawn, again) = (place.json("drawn/eval.json"), place.json("files/eval.json"));
    assert_eq!(again["win_rate"], drawn["win_rate"]);
    assert_eq!(again["second_judge"]["agreement"]["kappa"], 1.0);
    assert_eq!(again["responses_a"]["mean_tokens"], Value::Null);
    let opposite = place
        .oaif(&format!("{files} --judge rule --judge-rule shorter --judgements drawn/responses.jsonl"))
        .done();
    assert!(opposite.out.contains("κ -"), "{}", opposite.out);

    let outputs: Vec<Value> = prompts()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| json!({"instruction": row["prompt"], "output": " a hat", "generator": "base"}))
        .collect();
    place.write("model_outputs.json", json!(outputs).to_string());
    let line = "eval --model tiny --alpaca-eval model_outputs.json --against reference --max-new-tokens 4 --output alpaca";
    place.oaif(&format!("{line} {RULE}")).done();
    assert!(place.rows("alpaca/responses.jsonl").iter().all(|row| row["response_b"] == " a hat"));
}

#[test]
fn progress_is_an_event_of_the_json_log() {
    let Some(place) = place() else { return };
    place
        .write("pairs.jsonl", json!({"prompt": "fox", "response_1": " a", "response_2": " the"}).to_string());
    let of = |line: &str| {
        let events = super::rows(&place.oaif(&format!("{line} {RULE} --log json")).done().err);
        let progress = events.into_iter().filter(|event| event["event"] == "progress");
        let keys = |event: Value| ["phase", "done", "total"].map(|key| event[key].clone());
        progress.map(keys).collect::<Vec<_>>()
    };
    let events = of(&format!("{ADAPTED} --output out"));
    for phase in ["sampling responses of A", "sampling responses of B", "judging by rule longer"] {
        let last = events.iter().rfind(|[of, ..]| of == phase).unwrap();
        assert_eq!(*last, [json!(phase), json!(20), json!(20)]);
    }
    let whole = events.iter().all(|[_, done, total]| done.as_u64() <= total.as_u64() && *total == 20);
    assert!(whole, "{events:?}");
    let events = of("judge --input pairs.jsonl");
    assert_eq!(events.last().unwrap()[1..], [json!(1), json!(1)]);
}

#[test]
fn a_policy_compared_with_itself_ties_with_a_warning() {
    let Some(place) = place() else { return };
    let line = "eval --model tiny --against tiny --dataset prompts.jsonl --max-new-tokens 4 --temperature 0 --output out";
    let done = place.oaif(&format!("{line} {RULE}")).done();
    assert!(done.out.starts_with("A wins 50.0 % of 20 prompts against tiny"), "{}", done.out);
    assert!(done.err.contains("A and B are the same policy"), "{}", done.err);
    assert_eq!(place.json("out/eval.json")["identical"], 20);
}

#[test]
fn invalid_evaluations_are_refused_in_a_sentence() {
    let Some(place) = place() else { return };
    let refuses =
        |line: &str, code, parts: &[&str]| place.refuses(&format!("eval {line} {RULE}"), code, parts);
    refuses("--output out", 2, &["--model", "there is nothing to evaluate"]);
    refuses("--model tiny --dataset prompts.jsonl --output out", 2, &["--against", "is required"]);
    refuses("--model tiny --adapter tiny_lora --output out", 2, &["--dataset", "is required"]);
    refuses("--model tiny --adapter tiny_lora --dataset prompts.jsonl", 2, &["--output", "is required"]);
    refuses("--run tiny --output out", 1, &["tiny", "holds no run"]);
    place.write("empty.jsonl", "");
    let adapted = "--model tiny --adapter tiny_lora --output out";
    refuses(&format!("{adapted} --dataset empty.jsonl"), 1, &["empty.jsonl"]);
    place.write("other.jsonl", "{\"prompt\": \"another\", \"text\": \" one\"}\n");
    let other = format!("{adapted} --dataset prompts.jsonl --against other.jsonl");
    refuses(
        &other,
        1,
        &["other.jsonl", "has no response to 20 of 20 prompts", "the fox was", "or give the prompts"],
    );
    place.write("bare.jsonl", "{\"prompt\": \"the fox\"}\n");
    let bare = format!("{adapted} --dataset bare.jsonl --against reference");
    refuses(&bare, 2, &["--against", "1 of 1 prompts have no reference response"]);
    place.write("few.jsonl", "{\"verdict\": \"win\"}\n");
    place
        .oaif(&format!("{ADAPTED} {RULE} --output out --judgements few.jsonl"))
        .ended(1, &["holds 1 verdicts for 20 pairs"]);
    // An error about the prompts names the file that they came from.
    place.write("blank.jsonl", "{\"prompt\": \"\", \"text\": \" one\"}\n");
    let blank = "--responses blank.jsonl --against blank.jsonl --output out";
    refuses(blank, 1, &["blank.jsonl: holds 1 prompts, all of them empty"]);
    place.write("blank.json", json!([{"instruction": "", "output": " a hat"}]).to_string());
    let blank = "--model tiny --alpaca-eval blank.json --against reference --output out";
    refuses(blank, 1, &["blank.json: holds 1 prompts, all of them empty"]);
    let judged = place.oaif(&format!("{ADAPTED} --output out --judge rule"));
    judged.refused(2, &["--judge rule", "needs --judge-rule"]);
}

#[test]
fn a_run_with_held_out_prompts_reports_its_win_rate_and_trains_the_same() {
    let Some(place) = place() else { return };
    let train = "align --model tiny --dataset prompts.jsonl --max-steps 5 --per-device-train-batch-size 4 --max-new-tokens 6 \
                 --learning-rate 0.01 --lora-r 4 --save-steps 3";
    place.oaif(&format!("{train} {RULE} --output-dir plain")).done();
    let held_out = "--eval-dataset prompts.jsonl --eval-steps 2 --max-eval-samples 12 --report";
    let done = place.oaif(&format!("{train} {RULE} --output-dir run {held_out}")).done();
    let rows = place.rows("run/metrics.jsonl");
    let evaluated: Vec<u64> = rows
        .iter()
        .filter(|row| row.get("eval/win_rate").is_some())
        .map(|row| row["step"].as_u64().unwrap())
        .collect();
    assert_eq!(evaluated, [2, 4, 5]);
    let last = rows.last().unwrap();
    let (low, rate, high) = (
        number(last, "eval/win_rate_low"),
        number(last, "eval/win_rate"),
        number(last, "eval/win_rate_high"),
    );
    assert!(low <= rate && rate <= high && high - low < 0.7, "{last}");
    assert!(last["eval/kl"].is_number() && last["eval/prompts"] == 12, "{last}");
    assert!((1.0..=6.0).contains(&number(last, "eval/mean_length")), "{last}");
    let sentence = format!("The policy wins {:.1} % (95 % interval {:.1} to", 100.0 * rate, 100.0 * low);
    assert!(done.err.contains(&sentence) && done.err.contains("of 12 held-out prompts"), "{}", done.err);
    assert!(done.err.contains("held out      12 prompts"), "{}", done.err);
    assert!(done.err.contains("oaif eval --run run --dataset prompts.jsonl --judge llm"), "{}", done.err);
    let html = String::from_utf8(place.read("run/report.html")).unwrap();
    assert!(html.contains("Win rate against the starting model") && html.contains("Before and after"));
    let samples = place.rows("run/eval_samples.jsonl");
    assert!(samples.len() == 12 && samples.iter().all(|row| row["step"] == 5), "{samples:?}");
    // The win rate is only measured; it does not change training.
    let adapter = "adapter/adapter_model.safetensors";
    assert_eq!(place.read(&format!("run/{adapter}")), place.read(&format!("plain/{adapter}")));

    // A resumed run compares with the same starting model.
    std::fs::remove_dir_all(place.path("run/checkpoints/step-000005")).unwrap();
    place.oaif("align --resume run").done();
    let again = place.rows("run/metrics.jsonl");
    assert_eq!(place.rows("run/eval_samples.jsonl"), samples);
    for key in ["eval/win_rate", "eval/kl", "eval/mean_length", "eval/starting_length"] {
        assert_eq!(again.last().unwrap()[key], last[key], "{key}");
    }
    let none = format!("{train} {RULE} --output-dir none --eval-steps 2");
    place.refuses(&none, 2, &["--eval-dataset"]);
}

#[test]
fn held_out_pairs_give_loss_and_accuracy_and_train_the_same() {
    let Some(place) = place() else { return };
    place.write("pairs.jsonl", super::PAIRS);
    let long = json!({"prompt": "fox ".repeat(2000), "chosen": " a", "rejected": " the"});
    place.write("held-out.jsonl", format!("{}\n{long}\n", super::PAIRS.trim_end()));
    for command in ["dpo", "reward"] {
        let train = format!(
            "{command} --model tiny --dataset pairs.jsonl --max-steps 6 --per-device-train-batch-size 4 --lora-r 4 \
             --learning-rate 0.01"
        );
        place.oaif(&format!("{train} --output-dir {command}-plain")).done();
        place.write("long.jsonl", format!("{long}\n"));
        let none = place.oaif(&format!("{train} --output-dir none --eval-dataset long.jsonl"));
        none.ended(2, &["eval-dataset: no row is left (1 of 1"]);
        let held_out = "--eval-dataset held-out.jsonl --eval-steps 4 --report";
        let done = place.oaif(&format!("{train} --output-dir {command} {held_out}")).done();
        assert!(done.err.contains("held out      4 of 5 pairs"), "{}", done.err);
        let rows = place.rows(&format!("{command}/metrics.jsonl"));
        let evaluated: Vec<usize> = (0..6).filter(|i| rows[*i].get("eval/loss").is_some()).collect();
        assert_eq!(evaluated, [3, 5], "{command}");
        assert_eq!(rows[3]["eval/pairs"], 4, "{command}");
        // All pairs are in each batch: the figures of the next step, before its update, are those of the evaluation.
        for (eval, name) in [("eval/loss", "loss"), ("eval/rewards/accuracies", "rewards/accuracies")] {
            assert_close(number(&rows[3], eval), number(&rows[4], name), 1e-5);
        }
        assert_close(number(&rows[3], "eval/rewards/margins"), number(&rows[4], "rewards/margins"), 1e-4);
        let html = String::from_utf8(place.read(&format!("{command}/report.html"))).unwrap();
        assert!(html.contains("Held-out pairs") && html.contains(&format!("oaif {command}: ")), "{command}");
        let adapter = "adapter/adapter_model.safetensors";
        let [with, without] = ["", "-plain"].map(|end| place.read(&format!("{command}{end}/{adapter}")));
        assert!(with == without, "{command}");
    }
}

#[test]
fn two_judges_give_their_agreement_and_a_win_rate_each() {
    let Some(place) = place() else { return };
    place.write("shorter.toml", "judge = \"rule\"\njudge-rule = \"shorter\"\n");
    let line = format!("{ADAPTED} {RULE} --output out --second-judge shorter.toml");
    let done = place.oaif(&line).done();
    let result = place.json("out/eval.json");
    let second = &result["second_judge"];
    // A longer response is not shorter: what one judge counts as won, the other counts as lost.
    assert_eq!(
        (&second["decisions"]["wins"], &second["decisions"]["losses"]),
        (&result["losses"], &result["wins"])
    );
    assert_close(number(second, "win_rate"), 1.0 - number(&result, "win_rate"), 1e-12);
    let ties = number(&result, "ties") / 20.0;
    assert_close(number(&second["agreement"]["agreement"], "share"), ties, 1e-12);
    assert!(number(&second["agreement"], "kappa") < 0.5, "{second}");
    assert_eq!(result["configuration"]["second-judge"]["judge-rule"], "shorter");
    assert!(done.out.contains("second judge") && done.out.contains("κ "), "{}", done.out);
    let html = String::from_utf8(place.read("out/report.html")).unwrap();
    assert!(html.contains("Judges&#39; κ") || html.contains("Judges' κ"), "the page has it, too");
    let rows = place.rows("out/judgements.jsonl");
    assert_eq!(
        rows.len() as u64,
        2 * (20 - result["identical"].as_u64().unwrap()),
        "one verdict of each rule per pair"
    );
    place.oaif(&line).done();
    assert_eq!(place.rows("out/judgements.jsonl").len(), rows.len(), "no judge is asked twice");
    assert_eq!(place.json("out/eval.json"), result);

    place.write("longer.toml", "judge = \"rule\"\njudge-rule = \"longer\"\n");
    let same = place.oaif(&format!("{ADAPTED} {RULE} --output out --second-judge longer.toml")).done();
    assert!(same.err.contains("the second judge is the same as the first"), "{}", same.err);
    let refuses = |text: &str, parts: &[&str]| {
        place.write("bad.toml", text);
        let line = format!("{ADAPTED} {RULE} --output none --second-judge bad.toml");
        place.refuses(&line, 2, parts);
    };
    refuses("judge = \"rule\"\n", &["--second-judge", "bad.toml", "needs --judge-rule"]);
    refuses("judge = \"oracle\"\n", &["--second-judge", "bad.toml", "oracle"]);
    refuses("model = \"tiny\"\n", &["--second-judge", "bad.toml", "\"model\" is not a flag"]);
    std::fs::remove_file(place.path("bad.toml")).unwrap();
    let line = format!("{ADAPTED} {RULE} --output none --second-judge bad.toml");
    place.refuses(&line, 2, &["--second-judge: cannot read bad.toml"]);
    let adapter = format!("{} --against tiny_lora {RULE} --output none", ADAPTED);
    place.refuses(&adapter, 2, &["--against: tiny_lora is a LoRA adapter", "--against-adapter tiny_lora"]);
}

#[test]
fn a_person_in_an_ensemble_is_shown_each_pair_once() {
    let Some(place) = place() else { return };
    place.write("long.toml", "judge = 'rule'\njudge-rule = 'longer'\n");
    place.write("human.toml", "judge = 'human'\n");
    place.write("keys", "1\n".repeat(5));
    let line = format!("{ADAPTED} --max-prompts 5 --output out --judge ensemble");
    let mut command = place.command(&format!("{line} --judge-member human.toml --judge-member long.toml"));
    command.stdin(std::fs::File::open(place.path("keys")).unwrap());
    Outcome::of(command).done();
    let different = 5 - place.json("out/eval.json")["identical"].as_u64().unwrap() as usize;
    assert_eq!(place.rows("out/judges/1/judgements.jsonl").len(), different);
    let rows = place.rows("out/responses.jsonl");
    assert!(rows.iter().filter(|row| row["p_12"].is_null() != row["p_21"].is_null()).count() == different);
}

#[test]
fn a_file_of_judgements_can_be_evaluated_alone() {
    let Some(place) = Place::with(&[]) else { return };
    let row = |preference: f64, output: &str| {
        json!({"instruction": "x", "output_1": "a b", "generator_1": "base", "output_2": output, "generator_2": "m",
               "annotator": "j", "preference": preference})
    };
    place.write(
        "annotations.json",
        json!([row(2.0, "a"), row(1.5, "abc"), row(1.0, "abcd"), row(1.8, "")]).to_string(),
    );
    let done = place.oaif("eval --judgements annotations.json").done();
    assert!(done.out.starts_with("m wins 62.5 % of 4 prompts against base (by j)"), "{}", done.out);
    let json: Value =
        serde_json::from_str(&place.oaif("eval --judgements annotations.json --json").done().out).unwrap();
    assert_eq!((&json["benchmark"], &json["models"][0]["wins"]), (&json!("alpaca-eval"), &json!(2)));
    place.refuses("eval --judgements annotations.json --judge rule", 2, &["--judge", "without a policy"]);
    place.write("other.jsonl", "{\"a\": 1}\n");
    place.refuses("eval --judgements other.jsonl", 1, &["other.jsonl", "has no judgements"]);
}
