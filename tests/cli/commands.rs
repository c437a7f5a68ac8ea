//! `score`, `generate`, `judge`, `doctor`: the output that other programs read.

use serde_json::{Value, json};

use super::common::{ids, shared};
use super::{MUTE, Outcome, Place, assert_close, completions, number, rows};

fn keys(row: &Value) -> Vec<&str> {
    row.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn score_writes_one_row_per_row_in_order_with_the_documented_keys() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("rows.jsonl", completions());
    place.oaif("score --model tiny --input rows.jsonl --output out.jsonl").done();
    let out = place.rows("out.jsonl");
    let expected = [
        // Token ids in the fixture's tokenizer: no special token before a completion, none after it.
        vec![89, 45, 80, 3],
        vec![45, 21, 44],
        vec![26, 30, 17, 94],
        vec![38, 13, 71, 50, 14, 74],
    ];
    assert_eq!(out.len(), expected.len());
    for (row, expected) in out.iter().zip(expected) {
        assert_eq!(keys(row), ["logp", "num_tokens", "token_ids", "token_logps"]);
        assert_eq!(ids(&row["token_ids"]), expected);
        assert_eq!(row["num_tokens"], expected.len());
        let logps: Vec<f64> =
            row["token_logps"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!(logps.len(), expected.len());
        assert!(logps.iter().all(|logp| *logp < 0.0), "{row}");
        assert_close(number(row, "logp"), logps.iter().sum(), 1e-4);
    }
    let printed = place.oaif("score --model tiny --input rows.jsonl").done().out;
    assert_eq!(printed.as_bytes(), place.read("out.jsonl"), "without --output the rows are printed");
}

#[test]
fn a_score_does_not_depend_on_the_rows_beside_it() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let text = completions();
    place.write("all.jsonl", &text);
    let all = place.oaif("score --model tiny --input all.jsonl").rows();
    for (line, together) in text.lines().zip(&all) {
        place.write("one.jsonl", line);
        let alone = place.oaif("score --model tiny --input one.jsonl").rows();
        assert_eq!(&alone[0], together, "bit for bit");
    }
}

#[test]
fn generated_rows_are_scored_by_their_sampled_token_ids() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("rows.jsonl", completions());
    let line = "generate --model tiny --prompts rows.jsonl --max-new-tokens 8 --json --seed 3";
    place.oaif(&format!("{line} --output drawn.jsonl")).done();
    let drawn = place.rows("drawn.jsonl");
    for named in ["", "--completion-column text"] {
        let scored = place.oaif(&format!("score --model tiny --input drawn.jsonl {named}")).rows();
        assert_eq!(scored.len(), drawn.len());
        for (scored, drawn) in scored.iter().zip(&drawn) {
            assert_eq!(scored["token_ids"], drawn["token_ids"], "{drawn}");
        }
    }
    for (ids, parts) in [
        (
            json!([95, 94]),
            ["other.jsonl:1: token_ids: decode to another text than the row's", "leave out the column"],
        ),
        (json!([3, 96]), ["other.jsonl:1: text: has the token with id 96", "the model's ids end at 95"]),
        (json!([]), ["other.jsonl:1: has a completion without tokens", "fill it in"]),
        (json!("3"), ["other.jsonl:1: column \"token_ids\"", "a list of token ids"]),
        (json!([-3]), ["other.jsonl:1: column \"token_ids\"", "a list of token ids"]),
    ] {
        let text = if ids == json!([95, 94]) { "zebra" } else { "" };
        place.write("other.jsonl", json!({"prompt": "fox", "text": text, "token_ids": ids}).to_string());
        place.refuses("score --model tiny --input other.jsonl", 1, &parts);
    }
}

#[cfg(unix)]
#[test]
fn an_output_that_is_a_link_or_a_device_is_written_to_not_replaced() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("rows.jsonl", completions());
    place.write("real.jsonl", "old");
    std::os::unix::fs::symlink("real.jsonl", place.path("link.jsonl")).unwrap();
    let line = "score --model tiny --input rows.jsonl";
    place.oaif(&format!("{line} --output link.jsonl")).done();
    assert!(place.path("link.jsonl").is_symlink());
    let scored = place.read("real.jsonl");
    assert_eq!(place.oaif(line).done().out.as_bytes(), scored);
    place.oaif(&format!("{line} --output /dev/stderr")).done();
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn an_adapter_changes_scores_and_samples() {
    let Some(place) = Place::with(&["tiny", "tiny_lora"]) else { return };
    place.write("rows.jsonl", completions());
    let score = "score --model tiny --input rows.jsonl";
    let (plain, adapted) = (place.oaif(score), place.oaif(&format!("{score} --adapter tiny_lora/")));
    for (plain, adapted) in plain.rows().iter().zip(adapted.rows()) {
        assert!((number(plain, "logp") - number(&adapted, "logp")).abs() > 1e-3, "{plain} {adapted}");
    }
    place.oaif("generate --model tiny --adapter tiny_lora/ --prompt fox --max-new-tokens 2").done();
}

#[test]
fn generate_prints_an_object_for_each_sample_of_each_prompt_in_order() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("prompts.jsonl", "{\"prompt\": \"the fox\"}\n{\"prompt\": \"she said\"}\n");
    let line = "generate --model tiny --prompts prompts.jsonl --num-samples 3 --max-new-tokens 5 --json";
    let out = place.oaif(line).rows();
    assert_eq!(out.len(), 6);
    for (i, row) in out.iter().enumerate() {
        for key in ["text", "token_ids", "finish_reason"] {
            assert!(row.get(key).is_some(), "{row}");
        }
        assert_eq!(row["prompt"], ["the fox", "she said"][i / 3]);
        let generated = ids(&row["token_ids"]);
        assert!(!generated.is_empty() && generated.len() <= 5, "the prompt's ids are not included: {row}");
    }
    assert_ne!(out[0]["token_ids"], out[1]["token_ids"], "samples are independent");
    place.oaif(&format!("{line} --output out.jsonl")).done();
    assert_eq!(place.rows("out.jsonl"), out);
}

#[test]
fn cooperative_matrices_work_or_the_gpu_is_reported_to_lack_them() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let line = "generate --model tiny --prompt fox --max-new-tokens 4 --temperature 0 --dtype float16 --json";
    let outcome = place.oaif(&format!("{line} --tier 2"));
    match outcome.code {
        Some(0) => {
            assert_eq!(outcome.err, "", "a result that is not trusted is a warning");
            assert_eq!(ids(&outcome.rows()[0]["token_ids"]).len(), 4);
        }
        _ => outcome.refused(2, &["cannot run tier", "2", "choose another GPU"]),
    }
}

#[test]
fn generate_without_json_prints_the_text_alone() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let line = "generate --model tiny --prompt fox --max-new-tokens 4 --temperature 0";
    let row = place.oaif(&format!("{line} --json")).rows().remove(0);
    assert_eq!(place.oaif(line).done().out, format!("{}\n", row["text"].as_str().unwrap()));
}

#[test]
fn the_finish_reason_is_eos_length_or_stop_string() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let line = "generate --model tiny --json --max-new-tokens";
    let samples = place.oaif(&format!("{line} 20 --prompt fox --num-samples 64")).rows();
    for row in &samples {
        let generated = ids(&row["token_ids"]);
        match row["finish_reason"].as_str().unwrap() {
            "eos" => {
                assert_eq!(generated.iter().position(|id| *id == 2), Some(generated.len() - 1), "{row}");
                assert!(!row["text"].as_str().unwrap().contains("</s>"), "{row}");
            }
            "length" => assert!(generated.len() == 20 && !generated.contains(&2), "{row}"),
            other => panic!("{other}"),
        }
    }
    for reason in ["eos", "length"] {
        assert!(samples.iter().any(|row| row["finish_reason"] == reason), "no {reason} among 64 samples");
    }

    let greedy = format!("{line} 12 --prompt fox --temperature 0");
    let whole = place.oaif(&greedy).rows().remove(0);
    let words: Vec<&str> = whole["text"].as_str().unwrap().split_whitespace().collect();
    let stop = format!("{} {}", words[2], words[3]);
    let stopped = place.oaif_with(&greedy, &["--stop", &stop]).rows().remove(0);
    let text = stopped["text"].as_str().unwrap();
    assert_eq!(stopped["finish_reason"], "stop");
    assert!(whole["text"].as_str().unwrap().starts_with(text) && !text.contains(&stop), "{stopped}");
    // The ids end with the token that completes the stop string.
    let (generated, all) = (ids(&stopped["token_ids"]), ids(&whole["token_ids"]));
    assert!(generated.len() <= 4 && all.starts_with(&generated), "{stopped} of {whole}");
}

#[test]
fn a_response_ends_at_the_end_of_the_models_context() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.set("tiny/config.json", "max_position_embeddings", json!(8));
    let line = "generate --model tiny --prompt fox --max-new-tokens 1000000 --json --num-samples 8";
    for row in place.oaif(line).rows() {
        let generated = ids(&row["token_ids"]).len();
        assert!(generated == 6 || (generated < 6 && row["finish_reason"] == "eos"), "{row}");
    }
}

#[test]
fn greedy_decoding_of_the_known_prompt_gives_the_known_text() {
    let Some(place) = Place::with(&[]) else { return };
    let known = super::common::json("greedy.json");
    for model in ["stories260K", "TinyStories-656K"] {
        let Some(dir) = shared(&format!("models/{model}")) else { return };
        place.copy_model(&dir, model);
        let line = format!("generate --model {model} --max-new-tokens 64 --temperature 0 --json");
        let row = place.oaif_with(&line, &["--prompt", "Once upon a time"]).rows().remove(0);
        assert_eq!(row["token_ids"], known[model]["token_ids"], "{model}");
    }
}

#[test]
fn samples_depend_on_the_seed_and_not_on_how_many_are_decoded_at_once() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("prompts.jsonl", "{\"prompt\": \"the fox\"}\n{\"prompt\": \"a\"}\n{\"prompt\": \"she\"}\n");
    let line = "generate --model tiny --prompts prompts.jsonl --num-samples 3 --max-new-tokens 12 --json";
    let with = |more: &str| place.oaif(&format!("{line} {more}")).rows();
    let seven = with("--seed 7");
    assert_eq!(with("--seed 7 --slots 1"), seven);
    assert_eq!(with("--seed 7 --slots 4"), seven);
    assert_ne!(with("--seed 8"), seven);
}

/// Rows to judge: the first response is longer; the second is longer; both are equally long; both are identical.
const JUDGED: &str = r#"{"prompt": "the fox", "response_1": "was happy and old", "response_2": "slept"}
{"prompt": "the fox", "response_1": "ran", "response_2": "went home to the hill"}
{"prompt": "the fox", "response_1": "one two", "response_2": "two one"}
{"prompt": "the fox", "response_1": "slept", "response_2": "slept"}
"#;

fn verdicts(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["verdict"].as_str().unwrap()).collect()
}

#[track_caller]
fn assert_judged(rows: &[Value], expected: &[&str]) {
    assert_eq!(verdicts(rows), expected);
    for row in rows {
        for key in ["p_first", "p_12", "p_21"] {
            assert!(row.get(key).is_some(), "{key} in {row}");
        }
        let p = row["p_first"].as_f64();
        match row["verdict"].as_str().unwrap() {
            "1" => assert!(p.unwrap() > 0.5, "{row}"),
            "2" => assert!(p.unwrap() < 0.5, "{row}"),
            "tie" => assert_eq!(p, Some(0.5), "{row}"),
            _ => assert!(row["p_first"].is_null(), "an invalid verdict has no number: {row}"),
        }
    }
}

#[test]
fn a_rule_judges() {
    let Some(place) = Place::with(&[]) else { return };
    place.write("pairs.jsonl", JUDGED);
    let judge = |rule: &str| {
        place.oaif_with("judge --input pairs.jsonl --judge rule", &["--judge-rule", rule]).rows()
    };
    assert_judged(&judge("longer"), &["1", "2", "tie", "tie"]);
    assert_judged(&judge("shorter"), &["2", "1", "tie", "tie"]);
    assert_judged(&judge("contains:h[ao]"), &["1", "2", "tie", "tie"]);
    place.oaif("judge --input pairs.jsonl --judge rule --judge-rule longer --output out.jsonl").done();
    assert_eq!(place.rows("out.jsonl"), judge("longer"));
}

#[test]
fn an_ensemble_votes_and_its_agreement_is_printed() {
    let Some(place) = Place::with(&[]) else { return };
    place.write("pairs.jsonl", JUDGED);
    place.write("long.toml", "judge = 'rule'\njudge-rule = 'longer'\n");
    place.write("short.yaml", "judge: rule\njudge_rule: shorter\n");
    place.write("has.json", r#"{"judge": "rule", "judge-rule": "contains:h"}"#);
    let line =
        "judge --input pairs.jsonl --judge ensemble --judge-member long.toml --judge-member short.yaml";
    let done = place.oaif(&format!("{line} --judge-member has.json --judge-vote majority")).done();
    let (said, rows) = (done.err.clone(), done.rows());
    assert_judged(&rows, &["1", "2", "tie", "tie"]);
    assert_eq!(rows[0]["votes"], serde_json::json!([1.0, 0.0, 1.0]));
    assert!((number(&rows[0], "p_first") - 2.0 / 3.0).abs() < 1e-6, "{}", rows[0]);
    // One rule is the opposite of another, and the third agrees with each in half of the cases: kappas 0, 1 and 0.
    let expected = "the judges agree on 33.3 % of 3 pairs; mean Cohen's κ of two judges 0.33";
    assert!(said.contains(expected), "{said}");
    assert_judged(&place.oaif(line).done().rows(), &["tie"; 4]);
    place.write("inner.toml", "judge = 'ensemble'\njudge-member = ['long.toml', 'has.json']\n");
    place.write("wrong.toml", "judge = 'rule'\njudge-rules = 'longer'\n");
    place
        .oaif(&format!("{line} --judge-member inner.toml"))
        .refused(2, &["inner.toml", "is an ensemble itself"]);
    place
        .oaif(&format!("{line} --judge-member wrong.toml"))
        .refused(2, &["--judge-member", "wrong.toml", "judge-rules", "judge-rule"]);
    place
        .oaif(&format!("{line} --judge-member none.toml"))
        .refused(2, &["--judge-member: cannot read none.toml"]);
}

#[cfg(unix)]
#[test]
fn a_member_of_an_ensemble_without_any_valid_verdict_is_named() {
    let Some(place) = Place::with(&[]) else { return };
    place.write("pairs.jsonl", JUDGED);
    place.write("long.toml", "judge = 'rule'\njudge-rule = 'longer'\n");
    place.write("mute.toml", "judge = 'command'\njudge-command = 'sh mute.sh'\n");
    place.write("mute.sh", MUTE);
    let line = "judge --input pairs.jsonl --judge ensemble --judge-member long.toml --judge-member mute.toml";
    let done = place.oaif(line).done();
    let expected = "warning: member 2 of the ensemble (command) has no usable verdict on 3 of 3 pairs";
    assert!(done.err.contains(expected) && done.err.contains("first reason: I am out"), "{}", done.err);
    let rows = done.rows();
    assert_judged(&rows, &["1", "2", "tie", "tie"]);
    assert_eq!(rows[0]["votes"], serde_json::json!([1.0, "I am out"]));
}

#[cfg(unix)]
#[test]
fn a_program_judges_and_its_invalid_answers_give_invalid_verdicts() {
    let Some(place) = Place::with(&[]) else { return };
    place.write("pairs.jsonl", JUDGED);
    place.write(
        "judge.sh",
        r#"tee seen.jsonl | sed 's/^{\("id":"[^"]*"\),.*/{\1,"verdict":"1"}/' |
    sed '1s/"1"/"2","p_first":0.25/; 3s/"1"/"maybe"/' | tac
"#,
    );
    let line = "judge --input pairs.jsonl --judge command --output out.jsonl";
    place.oaif_with(line, &["--judge-command", "sh judge.sh"]).done();
    let out = place.rows("out.jsonl");
    assert_judged(&out, &["2", "1", "invalid", "tie"]);
    assert_eq!(number(&out[0], "p_first"), 0.25);
    // Identical responses are not judged.
    let mut seen = place.rows("seen.jsonl");
    for row in &mut seen {
        assert!(row.as_object_mut().unwrap().remove("id").is_some_and(|id| id.is_string()));
    }
    assert_eq!(seen, rows(JUDGED)[..3]);
}

#[test]
fn labels_are_kept_if_a_person_stops_labelling() {
    let Some(place) = Place::with(&[]) else { return };
    place.write("pairs.jsonl", JUDGED);
    let label = |keys: &str| {
        place.write("keys", keys);
        let mut command = place.command("judge --input pairs.jsonl --judge human --output out.jsonl");
        command.stdin(std::fs::File::open(place.path("keys")).unwrap());
        Outcome::of(command)
    };
    let judge = |keys: &str| {
        let outcome = label(keys);
        let rows = place.rows("out.jsonl");
        let judged = rows.iter().filter(|row| ["1", "2"].contains(&row["verdict"].as_str().unwrap())).count();
        let invalid = rows.iter().filter(|row| row["verdict"] == "invalid").count();
        std::fs::remove_file(place.path("out.jsonl")).unwrap();
        (outcome.code, judged, invalid)
    };
    // Three pairs are judged; the responses of the fourth are identical.
    assert_eq!(judge("1\nq\n"), (Some(130), 1, 2));
    assert_eq!(judge("1\n2\n"), (Some(1), 2, 1), "standard input ended");
    assert_eq!(judge("1\n2\n1\n"), (Some(0), 3, 0));
    // Labels are not overwritten.
    label("1\n2\n1\n").done();
    let labels = place.read("out.jsonl");
    label("2\n2\n2\n").refused(2, &["--output: out.jsonl exists already and may hold labels"]);
    assert_eq!(place.read("out.jsonl"), labels);
}

#[test]
fn the_more_likely_response_wins_under_a_language_model() {
    let Some(place) = Place::with(&["tiny_tied"]) else { return };
    place.write("pairs.jsonl", JUDGED);
    let line = "judge --input pairs.jsonl --judge likelihood --judge-model tiny_tied";
    let judged = place.oaif_with(line, &["--judge-template", "{{ prompt }} "]).rows();
    let mut texts = String::new();
    for row in rows(JUDGED) {
        for key in ["response_1", "response_2"] {
            let prompt = format!("{} ", row["prompt"].as_str().unwrap());
            texts += &format!("{}\n", json!({"prompt": prompt, "completion": row[key]}));
        }
    }
    place.write("rows.jsonl", texts);
    let scores = place.oaif("score --model tiny_tied --input rows.jsonl").rows();
    for (row, scores) in judged.iter().zip(scores.chunks(2)).take(3) {
        let difference = number(&scores[0], "logp") - number(&scores[1], "logp");
        assert_close(number(row, "p_first"), 1.0 / (1.0 + (-difference).exp()), 1e-4);
        assert_eq!(row["verdict"], if difference > 0.0 { "1" } else { "2" });
    }
    assert_judged(&judged[3..], &["tie"]);
}

#[test]
fn a_prompted_model_is_asked_in_both_orders() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", JUDGED);
    place
        .write("template.txt", "{{ prompt }} . one : {{ response_1 }} . two : {{ response_2 }} . the best :");
    let line = "judge --judge llm --judge-model tiny --judge-template template.txt";
    let judged = place.oaif(&format!("{line} --input pairs.jsonl")).rows();
    for row in &judged[..3] {
        assert_close(number(row, "p_first"), 0.5 * (number(row, "p_12") + number(row, "p_21")), 1e-6);
    }
    let expected: Vec<&str> =
        judged.iter().map(|r| ["2", "1"][(number(r, "p_first") > 0.5) as usize]).collect();
    assert_judged(&judged[..3], &expected[..3]);

    // For the swapped pair the other response wins, with the same probability.
    let swapped: String = rows(JUDGED)
        .into_iter()
        .map(|mut row| {
            let first = row["response_1"].take();
            row["response_1"] = row["response_2"].take();
            row["response_2"] = first;
            format!("{row}\n")
        })
        .collect();
    place.write("swapped.jsonl", swapped);
    for (row, swapped) in
        judged.iter().zip(place.oaif(&format!("{line} --input swapped.jsonl")).rows()).take(3)
    {
        assert_close(number(row, "p_first"), 1.0 - number(&swapped, "p_first"), 1e-6);
        assert_close(number(row, "p_12"), 1.0 - number(&swapped, "p_21"), 1e-6);
    }

    let one = place.oaif(&format!("{line} --input pairs.jsonl --judge-orders one")).rows();
    assert!(one[0]["p_21"].is_null() && one[0]["p_12"] == one[0]["p_first"], "{}", one[0]);
}

#[test]
fn a_judge_whose_tokenizer_has_no_1_is_refused() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", JUDGED);
    place.write("template.txt", "{{ prompt }} {{ response_1 }} {{ response_2 }} the best :");
    let tokenizer = String::from_utf8(place.read("tiny/tokenizer.json")).unwrap();
    place.write("tiny/tokenizer.json", tokenizer.replace("\"1\":8,", "\"eight\":8,"));
    let line = "judge --input pairs.jsonl --judge llm --judge-model tiny --judge-template template.txt \
                --output out.jsonl";
    place.refuses(line, 1, &["tokenizer has no single token for the answers 1 and 2", "--judge-model"]);
}

#[test]
fn a_pair_that_is_too_long_for_the_judge_is_invalid_with_the_reason() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let long = json!({"prompt": "fox", "response_1": "fox ".repeat(200), "response_2": "hen"});
    place.write("pairs.jsonl", format!("{long}\n{JUDGED}"));
    place
        .write("template.txt", "{{ prompt }} . one : {{ response_1 }} . two : {{ response_2 }} . the best :");
    let llm =
        place.oaif("judge --input pairs.jsonl --judge llm --judge-model tiny --judge-template template.txt");
    let likelihood = place.oaif("judge --input pairs.jsonl --judge likelihood --judge-model tiny");
    for judged in [llm.rows(), likelihood.rows()] {
        assert_judged(&judged[..1], &["invalid"]);
        assert_judged(&judged[4..], &["tie"]);
        assert!(judged[1]["p_first"].is_number(), "the others are judged: {}", judged[1]);
        assert!(
            judged[0]["why"].as_str().unwrap().contains("the limit of the judge is 128"),
            "{}",
            judged[0]
        );
    }
    let shorter = "judge --input pairs.jsonl --judge likelihood --judge-model tiny --judge-max-length 8";
    let why = place.oaif(shorter).rows()[0]["why"].to_string();
    assert!(why.contains("the limit of the judge is 8"), "{why}");
}

#[test]
fn an_exported_model_scores_as_its_adapter_does() {
    let Some(place) = Place::with(&["tiny", "tiny_lora"]) else { return };
    place.write("rows.jsonl", completions());
    let score = |model: &str| -> Vec<f64> {
        let rows = place.oaif(&format!("score --input rows.jsonl --model {model}")).rows();
        rows.iter().map(|row| number(row, "logp")).collect()
    };
    let expected = score("tiny --adapter tiny_lora/");
    for (dtype, tolerance) in [("f32", 1e-4), ("f16", 0.05), ("bf16", 0.5)] {
        place
            .oaif(&format!("export --model tiny --adapter tiny_lora/ --dtype {dtype} --output {dtype}"))
            .done();
        for (a, b) in score(dtype).into_iter().zip(&expected) {
            assert_close(a, *b, tolerance);
        }
    }
    place.refuses(
        "export --model tiny --output tiny_lora --dtype f8",
        2,
        &["--dtype", "float32, bfloat16, float16, q8_0"],
    );
    place.refuses("export --model tiny --output f32", 2, &["--output", "f32", "is not empty"]);
    place.write("file", "mine");
    place.refuses("export --model tiny --output file/x", 1, &["file"]);
}

#[test]
fn an_exported_reward_model_rates_as_its_adapter_does() {
    let Some(place) = Place::with(&["tiny", "tiny_reward_lora"]) else { return };
    place.write("pairs.jsonl", JUDGED);
    let judge = |model: &str| -> Vec<f64> {
        let flags = "judge --judge reward --input pairs.jsonl --judge-model";
        place.oaif(&format!("{flags} {model}")).rows().iter().map(|row| number(row, "p_first")).collect()
    };
    let adapter = "tiny --judge-adapter tiny_reward_lora";
    let expected = judge(adapter);
    place.oaif("export --model tiny --adapter tiny_reward_lora --output merged").done();
    for (a, b) in judge("merged").into_iter().zip(&expected) {
        assert_close(a, *b, 1e-5);
    }
    // An adapter in place of the model: the error names both remedies.
    let ways = [
        "--judge-model: tiny_reward_lora is a LoRA adapter, not a model",
        "give --judge reward --judge-model tiny --judge-adapter tiny_reward_lora, or merge it first",
        "`oaif export --model tiny --adapter tiny_reward_lora --output merged`",
    ];
    place.refuses("judge --judge reward --input pairs.jsonl --judge-model tiny_reward_lora", 2, &ways);
    // The end-of-sequence token after a response is read, too.
    assert_ne!(judge(&format!("{adapter} --judge-no-append-eos")), expected);
    place.refuses("generate --model merged --prompt a", 1, &["is a reward model", "use it as the judge"]);
    place.refuses("export --model merged --output merged.gguf", 2, &["gguf", "reward model", "folder"]);
}
