//! Files of AlpacaEval, MT-Bench and Arena-Hard, in the forms named in src/files; the texts are ours.

use std::path::PathBuf;

use oaif::eval::comparison::{Decision, Decisions};
use oaif::eval::files::*;

/// A file in a folder of this test run.
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
    assert_eq!(set.prompts[0].category.as_deref(), Some("helpful_base"));
    assert_eq!(set.prompts[0].answer("m").unwrap().turns, ["Blue."]);
    assert_eq!(set.prompts[1].answer("model_outputs").unwrap().turns, ["hi {"]);

    let annotations = file(
        "annotations.json",
        r#"[
{"instruction": "Name a colour.", "output_1": "Red", "generator_1": "base", "output_2": "Blue.", "generator_2": "m", "annotator": "j", "preference": 1.75, "raw_completion": {"x": "y"}},
{"instruction": "Say \"hi\"], now.", "output_1": "hi", "generator_1": "base", "output_2": "hi {", "generator_2": "m", "annotator": "j", "preference": 0},
{"instruction": "c", "output_1": "", "generator_1": "base", "output_2": "", "generator_2": "m", "annotator": "j", "preference": null}]"#,
    );
    let mut judged = read_alpaca_annotations(&annotations).unwrap();
    let outcomes: Vec<_> =
        judged.prompts.iter().map(|p| p.judgements[0].outcome(4.0, 3.0).unwrap().unwrap()).collect();
    assert_eq!(Decisions::of(&outcomes), Decisions { wins: 1, ties: 1, losses: 0, invalid: 1 });
    assert_eq!(outcomes[0].preference(), Some(0.75));
    judged.merge(set).unwrap();
    assert_eq!((judged.prompts.len(), judged.prompts[0].answers.len()), (3, 2));
}

#[test]
fn an_alpaca_eval_row_without_what_is_needed_names_its_line() {
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
    fails(read_alpaca_annotations(file("a1.json", &format!("[{row}}}]"))), "a1.json:1: no \"preference\"");
    fails(
        read_alpaca_annotations(file("a2.json", &format!("[{row}, \"preference\": 2.5}}]"))),
        "give 1 to 2",
    );
    fails(
        read_alpaca_annotations(file("a3.json", &format!("[{row}, \"preference\": \"2\"}}]"))),
        "give a number",
    );
    fails(read_alpaca_outputs("/nowhere/at/all.json"), "cannot read");
}

#[test]
fn mt_bench_questions_answers_and_judgements_join() {
    let questions = file(
        "question.jsonl",
        "{\"question_id\": 81, \"category\": \"writing\", \"turns\": [\"Write.\", \"Rewrite.\"]}\n\
         {\"question_id\": 101, \"category\": \"reasoning\", \"turns\": [\"Why?\", \"And?\"], \"reference\": [\"So.\", \"Thus.\"]}\n",
    );
    let answers = file(
        "gpt-x.jsonl",
        "{\"question_id\": 81, \"answer_id\": \"z\", \"model_id\": \"gpt-x\", \"choices\": [{\"index\": 0, \"turns\": [\"old\", \"b\"]}], \"tstamp\": 1.5}\n\
         {\"question_id\": 81, \"answer_id\": \"y\", \"model_id\": \"gpt-x\", \"choices\": [{\"index\": 0, \"turns\": [\"new\", \"b\"]}], \"tstamp\": 2.5}\n",
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
    let mut set = read_mt_bench_questions(questions).unwrap();
    for other in [
        read_mt_bench_answers(answers).unwrap(),
        read_mt_bench_pairs(pairs).unwrap(),
        read_mt_bench_scores(scores).unwrap(),
    ] {
        set.merge(other).unwrap();
    }
    assert_eq!(set.prompts.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["81", "101"]);
    assert_eq!(set.prompts[0].answer("gpt-x").unwrap().turns, ["new", "b"]);
    assert_eq!(set.prompts[1].answer("reference").unwrap().turns, ["So.", "Thus."]);
    let judgements = &set.prompts[0].judgements;
    let verdict = |i: usize| judgements[i].outcome(1.0, 1.0).unwrap().unwrap().decision();
    assert_eq!((verdict(0), verdict(1)), (Some(Decision::Tie), Some(Decision::Win)));
    assert_eq!((judgements[1].turn, judgements[1].judge.as_deref()), (2, Some("gpt-4")));
    assert_eq!(judgements[2].verdict, JudgedAs::Score(Some(9.5)));
    assert_eq!(set.prompts[1].judgements[0].outcome(1.0, 1.0).unwrap().unwrap().decision(), None);
    assert_eq!(set.prompts[1].judgements[1].verdict, JudgedAs::Score(None));
}

#[test]
fn an_mt_bench_row_without_what_is_needed_names_its_line() {
    let two =
        |name: &str, row: &str| file(name, &format!("{{\"question_id\": 1, \"turns\": [\"a\"]}}\n{row}\n"));
    fails(read_mt_bench_questions(two("q1.jsonl", r#"{"turns": ["a"]}"#)), "q1.jsonl:2: no \"question_id\"");
    fails(read_mt_bench_questions(two("q2.jsonl", r#"{"question_id": 2}"#)), "q2.jsonl:2: no \"turns\"");
    fails(
        read_mt_bench_questions(two("q3.jsonl", r#"{"question_id": 1, "turns": ["a"]}"#)),
        "is there twice",
    );
    fails(read_mt_bench_questions(two("q4.jsonl", r#"{"question_id": 2, "turns": []}"#)), "is empty");
    fails(
        read_mt_bench_questions(two("q5.jsonl", r#"{"question_id": 2, "turns": [7]}"#)),
        "has a number in it",
    );
    let answer =
        |choices: &str| format!("{{\"question_id\": 1, \"model_id\": \"m\", \"choices\": {choices}}}");
    fails(read_mt_bench_answers(file("m1.jsonl", &answer("[]"))), "m1.jsonl:1: no \"turns\"");
    fails(read_mt_bench_answers(file("m2.jsonl", &answer("{}"))), "give a list");
    let pair = r#"{"question_id": 1, "model_1": "a", "model_2": "b", "g1_winner": "A", "g2_winner": "tie"}"#;
    fails(read_mt_bench_pairs(file("p1.jsonl", pair)), "give model_1, model_2, tie or error");
    let score = r#"{"question_id": 1, "model": "a", "turn": 1}"#;
    fails(read_mt_bench_scores(file("s1.jsonl", score)), "no \"score\"");
    let turn = r#"{"question_id": 1, "model": "a", "turn": 0, "score": 3}"#;
    fails(read_mt_bench_scores(file("s2.jsonl", turn)), "\"turn\" is 0");
}

#[test]
fn arena_hard_of_all_versions_reads() {
    let new = file(
        "v2.jsonl",
        "{\"uid\":\"u1\",\"category\":\"hard_prompt\",\"subcategory\":\"coding\",\"prompt\":\"Sort.\"}\n",
    );
    let old = file(
        "v0.jsonl",
        "{\"question_id\":\"u1\",\"category\":\"arena\",\"turns\":[{\"content\":\"Sort.\"}]}\n",
    );
    assert_eq!(read_arena_hard_questions(&new).unwrap().prompts[0].turns, ["Sort."]);
    assert_eq!(read_arena_hard_questions(&old).unwrap().prompts[0].turns, ["Sort."]);
    let answers = file(
        "a.jsonl",
        "{\"uid\":\"u1\",\"ans_id\":\"k\",\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Sort.\"},{\"role\":\"assistant\",\"content\":{\"answer\":\"Sorted.\"}}],\"metadata\":{}}\n\
         {\"uid\":\"u2\",\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":\"Plain.\"}]}\n",
    );
    let answers_old = file(
        "a_old.jsonl",
        "{\"question_id\":\"u1\",\"model_id\":\"m\",\"choices\":[{\"index\":0,\"turns\":[{\"content\":\"Sorted.\",\"token_len\":2}]}]}\n",
    );
    let judgements = file(
        "j.jsonl",
        "{\"uid\":\"u1\",\"category\":\"hard_prompt\",\"judge\":\"g\",\"model\":\"m\",\"baseline\":\"b\",\"games\":[{\"score\":\"B>>A\"},{\"score\":\"A>B\",\"judgment\":{}}]}\n\
         {\"uid\":\"u2\",\"judge\":\"g\",\"model\":\"m\",\"baseline\":\"b\",\"games\":[{\"score\":\"A=B\"},{\"score\":\"A<B\"}]}\n\
         {\"uid\":\"u3\",\"judge\":\"g\",\"model\":\"m\",\"baseline\":\"b\",\"games\":[{\"score\":\"A>B\"},null]}\n\
         {\"uid\":\"u4\",\"judge\":\"g\",\"model\":\"m\",\"games\":[{\"score\":null},{\"score\":\"A>B\"}]}\n",
    );
    let mut set = read_arena_hard_questions(new).unwrap();
    set.merge(read_arena_hard_answers(answers).unwrap()).unwrap();
    set.merge(read_arena_hard_judgements(judgements).unwrap()).unwrap();
    assert_eq!(set.prompts[0].answer("m").unwrap().turns, ["Sorted."]);
    assert_eq!(
        read_arena_hard_answers(answers_old).unwrap().prompts[0].answer("m").unwrap().turns,
        ["Sorted."]
    );
    let outcomes: Vec<_> =
        set.prompts.iter().map(|p| p.judgements[0].outcome(1.0, 1.0).unwrap().unwrap()).collect();
    assert_eq!(
        outcomes.iter().map(|o| o.preference()).collect::<Vec<_>>(),
        [Some(1.0), Some(0.25), None, None]
    );
    // u1: three wins (strong) and one; u2: half a win and a loss; u3 and u4 are left out.
    let all = set.prompts.iter().flat_map(|p| &p.judgements);
    assert!((arena_hard_win_rate(all).unwrap() - 4.5 / 6.0).abs() < 1e-12);
    assert_eq!(arena_hard_win_rate([]), None);
}

#[test]
fn an_arena_hard_row_without_what_is_needed_names_its_line() {
    fails(
        read_arena_hard_questions(file("h1.jsonl", r#"{"uid": "a"}"#)),
        "h1.jsonl:1: no \"prompt\" and no \"turns\"",
    );
    fails(
        read_arena_hard_answers(file("h2.jsonl", r#"{"uid": "a", "model": "m", "messages": []}"#)),
        "no message of the assistant",
    );
    let one = r#"{"uid": "a", "model": "m", "messages": [{"role": "assistant", "content": 5}]}"#;
    fails(read_arena_hard_answers(file("h3.jsonl", one)), "has no \"answer\"");
    let game = |games: &str| format!("{{\"uid\": \"a\", \"model\": \"m\", \"games\": {games}}}");
    fails(read_arena_hard_judgements(file("h4.jsonl", &game("[null]"))), "1 games: give two");
    fails(
        read_arena_hard_judgements(file("h5.jsonl", &game("[null, {\"score\": \"A\"}]"))),
        "score is \"A\"",
    );
    fails(read_arena_hard_judgements(file("h6.jsonl", &game("[{}, null]"))), "without a \"score\"");
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let samples = [
        r#"[{"instruction": "é", "output": "b", "output_1": "a", "generator_1": "x", "output_2": "b", "generator_2": "y", "preference": 1.5}]"#,
        r#"{"question_id": 1, "turns": ["a"], "category": "c", "model_id": "m", "choices": [{"turns": ["b"]}], "reference": ["r"]}"#,
        r#"{"question_id": 1, "model_1": "a", "model_2": "b", "g1_winner": "tie", "g2_winner": "tie", "judge": ["j", "p"], "model": "a", "score": 3, "turn": 2}"#,
        r#"{"uid": "u", "prompt": "p", "model": "m", "baseline": "b", "messages": [{"role": "assistant", "content": {"answer": "x"}}], "games": [{"score": "A>B"}, null]}"#,
    ];
    const NOISE: &[u8] = b"{}[]\",:0n\\\n\xff";
    let mut random = oaif::eval::random::SplitMix::new(5, 0);
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
            // None of these may panic (seed 5, whatever the round).
            let _ = (
                round,
                read_alpaca_outputs(&path),
                read_alpaca_annotations(&path),
                read_mt_bench_questions(&path),
            );
            let _ = (read_mt_bench_answers(&path), read_mt_bench_pairs(&path), read_mt_bench_scores(&path));
            let _ = (
                read_arena_hard_questions(&path),
                read_arena_hard_answers(&path),
                read_arena_hard_judgements(&path),
            );
        }
    }
}

/// Real files: OAIF_EVAL_FILES names a folder with copies of FastChat's mt_bench folder and of arena-hard-auto's data.
#[test]
#[ignore = "needs copies of FastChat's and arena-hard-auto's data: OAIF_EVAL_FILES=FOLDER"]
fn real_files_read() {
    let folder = std::env::var("OAIF_EVAL_FILES").expect("set OAIF_EVAL_FILES");
    let at = |name: &str| format!("{folder}/{name}");
    let mut mt = read_mt_bench_questions(at("mt_question.jsonl")).unwrap();
    mt.merge(read_mt_bench_answers(at("mt_reference.jsonl")).unwrap()).unwrap();
    assert_eq!(mt.prompts.len(), 80);
    println!(
        "MT-Bench: 80 questions, {} with an answer of gpt-4",
        mt.prompts.iter().filter(|p| p.answer("gpt-4").is_some()).count()
    );
    for (questions, answers, count) in
        [("ah01_question.jsonl", "ah01_answer.jsonl", 500), ("ah2_question.jsonl", "ah2_answer.jsonl", 750)]
    {
        let mut set = read_arena_hard_questions(at(questions)).unwrap();
        set.merge(read_arena_hard_answers(at(answers)).unwrap()).unwrap();
        assert_eq!(set.prompts.len(), count);
        assert!(set.prompts.iter().all(|p| p.answers.len() == 1), "{questions}");
    }
    let pairs = read_mt_bench_pairs(at("mt_pair.jsonl")).unwrap();
    let judgements: Vec<_> = pairs.prompts.iter().flat_map(|p| &p.judgements).collect();
    let outcomes: Vec<_> = judgements.iter().map(|j| j.outcome(1.0, 1.0).unwrap().unwrap()).collect();
    println!("MT-Bench pairs: {} judgements, {:?}", judgements.len(), Decisions::of(&outcomes));
    let scores = read_mt_bench_scores(at("mt_single.jsonl")).unwrap();
    let scores: Vec<_> = scores.prompts.iter().flat_map(|p| &p.judgements).collect();
    let given = scores.iter().filter(|j| matches!(j.verdict, JudgedAs::Score(Some(_)))).count();
    println!("MT-Bench scores: {} judgements, {given} with a score", scores.len());
    let outputs = read_alpaca_outputs(at("alpaca_outputs.json")).unwrap();
    assert_eq!(outputs.prompts.len(), 805);
}
