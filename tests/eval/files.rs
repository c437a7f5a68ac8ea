//! Files of AlpacaEval, MT-Bench and Arena-Hard, in the forms named in src/eval/files. The texts are our own.

use std::path::PathBuf;

use oaif::unstable::eval::comparison::{Decision, Decisions};
use oaif::unstable::eval::files::*;
use oaif::unstable::eval::judged::judged_models;

/// Writes a file into the folder of this test run.
fn file(name: &str, text: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("files");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn fails<T: std::fmt::Debug>(result: oaif::Result<T>, expected: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(expected), "{error:?} has no {expected:?}");
}

#[test]
fn alpaca_eval_outputs_and_annotations_read() {
    let outputs = file(
        "model_outputs.json",
        r#"[
  {"dataset": "helpful_base", "instruction": "Name a colour.", "output": "Blue.", "generator": "m", "extra": [1]},
  {"instruction": "Say \"hi\"], now.", "output": "hi {"}
]"#,
    );
    let set = read_alpaca_outputs(&outputs).unwrap();
    let outputs: Vec<_> = set.iter().map(|prompt| (&*prompt.text, prompt.reference.as_deref())).collect();
    assert_eq!(outputs, [("Name a colour.", Some("Blue.")), ("Say \"hi\"], now.", Some("hi {"))]);

    let judgements = file(
        "annotations.json",
        r#"[
{"instruction": "Name a colour.", "output_1": "Red", "generator_1": "base", "output_2": "Blue.", "generator_2": "m", "annotator": "j", "preference": 1.75, "raw_completion": {"x": "y"}},
{"instruction": "Say \"hi\"], now.", "output_1": "hi", "generator_1": "base", "output_2": "hi {", "generator_2": "m", "annotator": "j", "preference": 0},
{"instruction": "c", "output_1": "", "generator_1": "base", "output_2": "", "generator_2": "m", "annotator": "j", "preference": null}]"#,
    );
    let judged = read_judgements(&judgements).unwrap();
    assert_eq!(judged.benchmark, Benchmark::AlpacaEval);
    let outcomes: Vec<_> = judged.records.iter().map(|record| record.outcome().unwrap().unwrap()).collect();
    assert_eq!(Decisions::of(&outcomes), Decisions { wins: 1, ties: 1, losses: 0, invalid: 1 });
    assert_eq!(outcomes[0].preference(), Some(0.75));
    assert_eq!((outcomes[0].length_a, outcomes[0].length_b), (5.0, 3.0));
}

#[test]
fn an_alpaca_eval_row_without_a_required_key_is_an_error_with_its_line() {
    let rows = |name: &str, row: &str| {
        file(name, &format!("[\n{{\"instruction\": \"a\", \"output\": \"b\"}},\n\n{row}\n]"))
    };
    fails(read_alpaca_outputs(rows("o1.json", r#"{"instruction": "a"}"#)), "o1.json:4: no \"output\"");
    fails(read_alpaca_outputs(rows("o2.json", r#"{"output": "a"}"#)), "o2.json:4: no \"instruction\"");
    fails(
        read_alpaca_outputs(rows("o3.json", r#"{"instruction": 3, "output": ""}"#)),
        "is a number: give a text",
    );
    let row =
        r#"{"instruction": "a", "output_1": "", "generator_1": "b", "output_2": "", "generator_2": "m""#;
    fails(read_judgements(&file("a1.json", &format!("[{row}}}]"))), "a1.json:1: no \"preference\"");
    fails(read_judgements(&file("a2.json", &format!("[{row}, \"preference\": 2.5}}]"))), "give 1 to 2");
    fails(read_judgements(&file("a3.json", &format!("[{row}, \"preference\": \"2\"}}]"))), "give a number");
    fails(read_alpaca_outputs("/nowhere/at/all.json"), "cannot read");
}

#[test]
fn mt_bench_questions_and_judgements_read() {
    let questions = file(
        "question.jsonl",
        "{\"question_id\": 81, \"category\": \"writing\", \"turns\": [\"Write.\", \"Rewrite.\"]}\n\
         {\"question_id\": 101, \"category\": \"reasoning\", \"turns\": [\"Why?\", \"And?\"], \"reference\": [\"So.\", \"Thus.\"]}\n",
    );
    let pairs = file(
        "gpt-4_pair.jsonl",
        "{\"question_id\": 81, \"model_1\": \"gpt-x\", \"model_2\": \"gpt-y\", \"g1_winner\": \"model_1\", \"g2_winner\": \"model_2\", \"judge\": [\"gpt-4\", \"pair-v2\"], \"turn\": 1}\n\
         {\"question_id\": 81, \"model_1\": \"gpt-x\", \"model_2\": \"gpt-y\", \"g1_winner\": \"model_1\", \"g2_winner\": \"model_1\", \"judge\": [\"gpt-4\", \"pair-v2-multi-turn\"], \"turn\": 2}\n\
         {\"question_id\": 101, \"model_1\": \"gpt-x\", \"model_2\": \"gpt-y\", \"g1_winner\": \"tie\", \"g2_winner\": \"error\", \"judge\": \"gpt-4\"}\n",
    );
    let scores = file(
        "gpt-4_single.jsonl",
        "{\"question_id\": 81, \"model\": \"gpt-x\", \"judge\": [\"gpt-4\", \"single-v1\"], \"score\": 9.5, \"turn\": 1}\n\
         {\"question_id\": 101, \"model\": \"gpt-x\", \"judge\": [\"gpt-4\", \"single-v1\"], \"score\": -1, \"turn\": 2}\n",
    );
    let set = read_mt_bench_questions(questions).unwrap();
    assert_eq!((&*set[0].text, set[0].reference.as_deref()), ("Write.", None));
    assert_eq!((&*set[1].text, set[1].reference.as_deref()), ("Why?", Some("So.")));
    let judged = read_judgements(&pairs).unwrap();
    let decisions: Vec<_> =
        judged.records.iter().map(|record| record.outcome().unwrap().unwrap().decision()).collect();
    assert_eq!(decisions, [Some(Decision::Tie), Some(Decision::Win), None]);
    assert_eq!((judged.records[1].turn, judged.records[1].judge.as_deref()), (2, Some("gpt-4")));
    let scored = read_judgements(&scores).unwrap();
    assert_eq!((judged.benchmark, scored.benchmark), (Benchmark::MtBenchPairs, Benchmark::MtBenchScores));
    let verdicts: Vec<_> = scored.records.into_iter().map(|record| record.verdict).collect();
    assert_eq!(verdicts, [JudgedAs::Score(Some(9.5)), JudgedAs::Score(None)]);
}

#[test]
fn an_mt_bench_row_without_a_required_key_is_an_error_with_its_line() {
    let two =
        |name: &str, row: &str| file(name, &format!("{{\"question_id\": 1, \"turns\": [\"a\"]}}\n{row}\n"));
    fails(read_mt_bench_questions(two("q1.jsonl", r#"{"turns": ["a"]}"#)), "q1.jsonl:2: no \"question_id\"");
    fails(read_mt_bench_questions(two("q2.jsonl", r#"{"question_id": 2}"#)), "q2.jsonl:2: no \"turns\"");
    fails(read_mt_bench_questions(two("q3.jsonl", r#"{"question_id": 1, "turns": ["a"]}"#)), "occurs twice");
    fails(read_mt_bench_questions(two("q4.jsonl", r#"{"question_id": 2, "turns": []}"#)), "is empty");
    fails(
        read_mt_bench_questions(two("q5.jsonl", r#"{"question_id": 2, "turns": [7]}"#)),
        "has a number in it",
    );
    let pair = r#"{"question_id": 1, "model_1": "a", "model_2": "b", "g1_winner": "A", "g2_winner": "tie"}"#;
    fails(read_judgements(&file("p1.jsonl", pair)), "give model_1, model_2, tie or error");
    let score = "{\"model\": \"a\", \"score\": 3}\n{\"model\": \"a\", \"turn\": 1}";
    fails(read_judgements(&file("s1.jsonl", score)), "s1.jsonl:2: no \"score\"");
    let turn = r#"{"question_id": 1, "model": "a", "turn": 0, "score": 3}"#;
    fails(read_judgements(&file("s2.jsonl", turn)), "\"turn\" is 0");
}

#[test]
fn all_versions_of_arena_hard_can_be_read() {
    let new = file(
        "v2.jsonl",
        "{\"uid\":\"u1\",\"category\":\"hard_prompt\",\"subcategory\":\"coding\",\"prompt\":\"Sort.\"}\n",
    );
    let old = file(
        "v0.jsonl",
        "{\"question_id\":\"u1\",\"category\":\"arena\",\"turns\":[{\"content\":\"Sort.\"}]}\n",
    );
    for questions in [new, old] {
        assert_eq!(read_arena_hard_questions(&questions).unwrap()[0].text, "Sort.");
    }
    let judgements = file(
        "j.jsonl",
        "{\"uid\":\"u1\",\"category\":\"hard_prompt\",\"judge\":\"g\",\"model\":\"m\",\"baseline\":\"b\",\"games\":[{\"score\":\"B>>A\"},{\"score\":\"A>B\",\"judgment\":{}}]}\n\
         {\"uid\":\"u2\",\"judge\":\"g\",\"model\":\"m\",\"baseline\":\"b\",\"games\":[{\"score\":\"A=B\"},{\"score\":\"A<B\"}]}\n\
         {\"uid\":\"u3\",\"judge\":\"g\",\"model\":\"m\",\"baseline\":\"b\",\"games\":[{\"score\":\"A>B\"},null]}\n\
         {\"uid\":\"u4\",\"judge\":\"g\",\"model\":\"m\",\"games\":[{\"score\":null},{\"score\":\"A>B\"}]}\n",
    );
    let judged = read_judgements(&judgements).unwrap();
    assert_eq!(judged.benchmark, Benchmark::ArenaHard);
    let outcomes: Vec<_> = judged.records.iter().map(|record| record.outcome().unwrap().unwrap()).collect();
    assert_eq!(
        outcomes.iter().map(|o| o.preference()).collect::<Vec<_>>(),
        [Some(1.0), Some(0.25), None, None]
    );
    // u1: three wins (strong) and one; u2: half a win and a loss; u3 and u4 are excluded.
    assert!((arena_hard_win_rate(&judged.records).unwrap() - 4.5 / 6.0).abs() < 1e-12);
    assert_eq!(arena_hard_win_rate([]), None);
}

#[test]
fn an_arena_hard_row_without_a_required_key_is_an_error_with_its_line() {
    fails(
        read_arena_hard_questions(file("h1.jsonl", r#"{"uid": "a"}"#)),
        "h1.jsonl:1: no \"prompt\" and no \"turns\"",
    );
    let game = |games: &str| format!("{{\"uid\": \"a\", \"model\": \"m\", \"games\": {games}}}");
    fails(read_judgements(&file("h4.jsonl", &game("[null]"))), "1 games: give two");
    fails(read_judgements(&file("h5.jsonl", &game("[null, {\"score\": \"A\"}]"))), "score is \"A\"");
    fails(read_judgements(&file("h6.jsonl", &game("[{}, null]"))), "without a \"score\"");
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let samples = [
        r#"[{"instruction": "é", "output": "b", "output_1": "a", "generator_1": "x", "output_2": "b", "generator_2": "y", "preference": 1.5}]"#,
        r#"{"question_id": 1, "turns": ["a"], "category": "c", "model_id": "m", "choices": [{"turns": ["b"]}], "reference": ["r"]}"#,
        r#"{"question_id": 1, "model_1": "a", "model_2": "b", "g1_winner": "tie", "g2_winner": "tie", "judge": ["j", "p"], "model": "a", "score": 3, "turn": 2}"#,
        "index,preference,std_delta_len,instruction_difficulty,model\n0,0.5,-1.5,0.25,concise\n",
        r#"{"uid": "u", "prompt": "p", "model": "m", "baseline": "b", "messages": [{"role": "assistant", "content": {"answer": "x"}}], "games": [{"score": "A>B"}, null]}"#,
    ];
    const NOISE: &[u8] = b"{}[]\",:0n\\\n\xff";
    let mut random = oaif::unstable::eval::random::SplitMix::new(5, 0);
    for round in 0..150 {
        for sample in samples {
            let mut bytes = sample.as_bytes().to_vec();
            for _ in 0..=random.below(3) {
                let place = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[place] = NOISE[random.below(NOISE.len())],
                    1 => drop(bytes.remove(place)),
                    _ => bytes.truncate(place.max(1)),
                }
            }
            let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
            let path = folder.join("damaged.json");
            std::fs::write(&path, &bytes).unwrap();
            // None of these may panic (seed 5, in every round).
            let _ = (round, read_alpaca_outputs(&path), read_judgements(&path), read_alpaca_anchors(&path));
            let _ = (read_mt_bench_questions(&path), read_arena_hard_questions(&path));
        }
    }
}

/// Real files. OAIF_EVAL_FILES names a folder with copies of FastChat's mt_bench folder and arena-hard-auto's data.
#[test]
#[ignore = "needs copies of FastChat's and arena-hard-auto's data: OAIF_EVAL_FILES=FOLDER"]
fn real_files_can_be_read() {
    let folder = std::env::var("OAIF_EVAL_FILES").expect("set OAIF_EVAL_FILES");
    let at = |name: &str| format!("{folder}/{name}");
    assert_eq!(read_mt_bench_questions(at("mt_question.jsonl")).unwrap().len(), 80);
    for (questions, count) in [("ah01_question.jsonl", 500), ("ah2_question.jsonl", 750)] {
        assert_eq!(read_arena_hard_questions(at(questions)).unwrap().len(), count, "{questions}");
    }
    for name in ["mt_pair.jsonl", "mt_single.jsonl"] {
        let judgements = read_judgements(at(name).as_ref()).unwrap();
        judged_models(&judgements, None).unwrap().iter().for_each(|model| println!("{}", model.sentence()));
    }
    let outputs = read_alpaca_outputs(at("alpaca_outputs.json")).unwrap();
    assert_eq!(outputs.len(), 805);
}

#[test]
fn a_file_of_judgements_gives_the_results_of_its_benchmark() {
    let models =
        |name: &str, text: &str| judged_models(&read_judgements(&file(name, text)).unwrap(), None).unwrap();
    let row = |i: usize| {
        format!(
            "{{\"instruction\": \"{i}\", \"output_1\": \"aa\", \"generator_1\": \"base\", \"output_2\": \"{}\", \"generator_2\": \
             \"m\", \"annotator\": \"j\", \"preference\": {}}}\n",
            "b".repeat(i),
            if i < 6 { 1.9 } else { 1.2 }
        )
    };
    let alpaca = models("judged_a.json", &(0..8).map(row).collect::<String>());
    let figures = alpaca[0].compared.as_ref().unwrap();
    assert_eq!(figures.decisions, Decisions { wins: 6, ties: 0, losses: 2, invalid: 0 });
    assert!(
        (figures.mean_preference.unwrap().mean - 0.725).abs() < 1e-12 && figures.length_controlled.is_some()
    );
    assert!(alpaca[0].sentence().starts_with("m wins 75.0 % of 8 prompts against base (by j)"));

    let game = |judge: &str| {
        format!(
            "{{\"uid\": 1, \"judge\": \"{judge}\", \"model\": \"m\", \"games\": [{{\"score\": \"B>>A\"}}, {{\"score\": \"B>A\"}}]}}\n"
        )
    };
    let arena = models("judged_h.jsonl", &(game("k") + &game("j")));
    let names: Vec<_> = arena.iter().map(|model| model.judge.as_deref().unwrap()).collect();
    assert_eq!(names, ["j", "k"], "one result per judge");
    let figures = arena[0].compared.as_ref().unwrap();
    assert_eq!((figures.arena_hard, figures.win_rate), (Some(0.75), Some(0.5)));
    assert!(figures.length_controlled.is_none() && figures.order.unwrap().flipped.share == Some(1.0));

    let score =
        |turn: usize, score: f64| format!("{{\"model\": \"m\", \"turn\": {turn}, \"score\": {score}}}\n");
    let bench =
        models("judged_m.jsonl", &[score(1, 8.0), score(2, 5.0), score(1, 9.0), score(2, -1.0)].concat());
    assert_eq!(
        bench[0].sentence(),
        "m scores 7.33 over 3 responses; turn 1: 8.50; turn 2: 5.00; 1 without a score"
    );
    fails(read_judgements(&file("judged_x.jsonl", "{\"a\": 1}")), "has no judgements of AlpacaEval");
}
