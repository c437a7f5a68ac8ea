//! Training rows of the policy and of the judges, held-out pairs, and the templates of the judges.

use serde_json::{Value, json};

use super::answers::{Noise, good, noisy};
use super::draw::Draw;
use super::language::{Fact, Post};
use super::oracle::{Instruction, Quality};
use crate::data::rows::{Prompt, Text};

/// The template of the `likelihood` judge: the text before a summary.
pub const LIKELIHOOD_TEMPLATE: &str = "most {{ instruction }} : {{ prompt }} summary : ";

/// The template of the `llm` judge. The instruction comes last, so that one training text can ask several questions
/// about a pair.
pub const PROMPTED_TEMPLATE: &str = "text : {{ prompt }}\nsummary 1 : {{ response_1 }}\nsummary 2 : {{ response_2 }}\nmost {{ instruction }} =\n";

/// Seeds that make the sets independent.
mod seed {
    pub const POLICY: u32 = 1;
    pub const LIKELIHOOD: u32 = 2;
    pub const PROMPTED: u32 = 3;
    pub const PROMPTS: u32 = 4;
    pub const HELD_OUT: u32 = 5;
}

/// A random stream for a row of a set. `run` distinguishes otherwise equal datasets (0: the shipped one).
fn stream(set: u32, run: u32, row: usize) -> Draw {
    Draw::new(set + 16 * run, row as u32)
}

/// A training row of π₀: a post and a noisy summary.
pub fn policy_row(run: u32, row: usize) -> Value {
    let mut draw = stream(seed::POLICY, run, row);
    let post = Post::draw(&mut draw);
    json!({"prompt": post.to_string(), "completion": noisy(&post, Noise::POLICY, &mut draw)})
}

/// A training row of a likelihood judge: an instruction, a post and a good summary.
pub fn likelihood_row(run: u32, row: usize) -> Value {
    let mut draw = stream(seed::LIKELIHOOD, run, row);
    let post = Post::draw(&mut draw);
    let instruction = draw.pick(&Instruction::ALL);
    let before = format!("most {} : {post} summary :", instruction.text());
    json!({"prompt": before, "completion": good(&post, instruction, &mut draw)})
}

/// Two different summaries of a post, of any quality, drawn with different noise.
pub fn draw_pair(draw: &mut Draw) -> (Post, [String; 2]) {
    let post = Post::draw(draw);
    loop {
        let first = noisy(&post, Noise::draw(draw), draw);
        let second = noisy(&post, Noise::draw(draw), draw);
        if first != second {
            return (post, [first, second]);
        }
    }
}

/// A training row of a prompted judge: a pair, followed, in random order, by all instructions under which one summary
/// is better, each with the verdict. At the start of training each fact is followed by whether it is right ("yes",
/// "no"); these marks become rarer as `progress` goes from 0 to 1.
pub fn prompted_row(run: u32, row: usize, progress: f64) -> Value {
    let mut draw = stream(seed::PROMPTED, run, row);
    let marks = ((0.8 - progress) / 0.5).clamp(0.0, 1.0);
    loop {
        let (post, summaries) = draw_pair(&mut draw);
        let qualities = summaries.each_ref().map(|summary| Quality::of(&post, summary));
        let mut questions = Vec::new();
        for i in draw_order(&mut draw) {
            let instruction = Instruction::ALL[i];
            let [first, second] = qualities.each_ref().map(|quality| instruction.utility(quality));
            if first != second {
                let verdict = if first > second { 1 } else { 2 };
                questions.push(format!("most {} = {verdict}", instruction.text()));
            }
        }
        if questions.is_empty() {
            continue;
        }
        let [first, second] = summaries.map(|summary| marked(&post, &summary, marks, &mut draw));
        let completion = format!("summary 1 : {first} summary 2 : {second} {}", questions.join(" "));
        return json!({"prompt": format!("text : {post}"), "completion": completion});
    }
}

fn draw_order(draw: &mut Draw) -> [usize; 4] {
    let mut order = [0, 1, 2, 3];
    (1..4).for_each(|i| order.swap(i, draw.below(i + 1)));
    order
}

/// The summary with "yes" or "no" after each fact, each mark with probability `share`.
fn marked(post: &Post, summary: &str, share: f64, draw: &mut Draw) -> String {
    let words: Vec<&str> = summary.split_whitespace().collect();
    let mut out = Vec::new();
    for (i, word) in words.iter().enumerate() {
        out.push(*word);
        let slot = i.checked_sub(1).and_then(|before| Fact::slot_of(words[before]));
        let Some(fact) = slot.and_then(|slot| Fact::with_value(slot, word)) else { continue };
        if draw.chance(share) {
            out.push(if post.facts.contains(&fact) { "yes" } else { "no" });
        }
    }
    out.join(" ")
}

/// A prompt for alignment (`held_out` false) or for evaluation.
pub fn prompt(held_out: bool, row: usize) -> Post {
    let set = if held_out { seed::HELD_OUT } else { seed::PROMPTS };
    Post::draw(&mut stream(set, 0, row))
}

/// The first `rows` prompts for alignment, in the form of a training run's dataset.
pub fn prompts(rows: usize) -> Vec<Prompt> {
    let row = |row| Prompt {
        prompt: Text::Plain(prompt(false, row).to_string()),
        reference: None,
        place: (row + 1).into(),
    };
    (0..rows).map(row).collect()
}

/// A held-out pair for measuring judges, with the utility of each summary under each of [`Instruction::ALL`].
pub fn held_out_pair(row: usize) -> Value {
    // Run 1 holds the pairs on which the training recipes were chosen.
    let mut draw = stream(seed::HELD_OUT, 2, row);
    let (post, [first, second]) = draw_pair(&mut draw);
    let utilities = [&first, &second].map(|summary| {
        let quality = Quality::of(&post, summary);
        Instruction::ALL.map(|instruction| instruction.utility(&quality))
    });
    json!({"prompt": post.to_string(), "response_1": first, "response_2": second, "utilities": utilities})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::Tokenizer;
    use crate::demo::language::tokenizer_json;
    use crate::files;
    use crate::judge::Pair;
    use crate::judge::template::JudgeTemplate;

    fn rows() -> Vec<Value> {
        let each = |row: usize| {
            let prompted = |progress| prompted_row(0, row, progress);
            [policy_row(0, row), likelihood_row(0, row), prompted(0.0), prompted(1.0), held_out_pair(row)]
        };
        (0..300).flat_map(each).collect()
    }

    fn tokenizer() -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        files::write_atomic(&path, tokenizer_json().to_string().as_bytes()).unwrap();
        Tokenizer::load(dir.path()).unwrap()
    }

    #[test]
    fn every_row_consists_of_known_words() {
        let tokenizer = tokenizer();
        for row in rows() {
            for text in row.as_object().unwrap().values().filter_map(Value::as_str) {
                let ids = tokenizer.encode(text).unwrap();
                assert_eq!(ids[0], 1, "no BOS: {text}");
                assert_eq!(ids.len(), text.split_whitespace().count() + 1, "{text}");
                assert!(!ids.contains(&0), "an unknown word: {text}");
                assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
            }
        }
    }

    #[test]
    fn judge_templates_render_the_text_of_the_training_rows() {
        let file = tempfile::NamedTempFile::new().unwrap();
        files::write_atomic(file.path(), PROMPTED_TEMPLATE.as_bytes()).unwrap();
        for row in (0..50).map(|row| prompted_row(0, row, 1.0)) {
            let text = format!("{} {}", row["prompt"].as_str().unwrap(), row["completion"].as_str().unwrap());
            let parts: Vec<&str> = text.split([':', '=']).map(str::trim).collect();
            let [_, prompt, first, second, ..] = parts[..] else { panic!("{text}") };
            let prompt = prompt.strip_suffix(" summary 1").unwrap();
            let response_1 = first.strip_suffix(" summary 2").unwrap();
            let (response_2, instruction) = second.split_once(" most ").unwrap();
            let template = JudgeTemplate::from_file(file.path()).unwrap();
            let rendered = template.with_instruction(instruction).unwrap();
            let rendered = rendered.render(&Pair { prompt, response_1, response_2 }).unwrap();
            assert!(text.starts_with(&rendered.replace('\n', " ")), "{rendered}\n{text}");
        }
        for row in (0..50).map(|row| likelihood_row(0, row)) {
            let learnt = row["prompt"].as_str().unwrap();
            let (instruction, rest) = learnt.strip_prefix("most ").unwrap().split_once(" : ").unwrap();
            let post = rest.strip_suffix(" summary :").unwrap();
            assert!(Post::parse(post).is_some(), "{learnt}");
            let shown = LIKELIHOOD_TEMPLATE.replace("{{ instruction }}", instruction);
            assert_eq!(shown.replace("{{ prompt }}", post).trim_end(), learnt);
        }
    }

    #[test]
    fn rows_are_reproducible_and_differ_between_runs() {
        assert_eq!(rows(), rows());
        assert_ne!(policy_row(0, 0), policy_row(1, 0));
        assert_ne!(prompt(false, 0), prompt(true, 0));
    }

    #[test]
    fn marks_are_correct_and_become_rarer() {
        let post = Post::parse("mia wears red keeps owls .").unwrap();
        let marked = |share| marked(&post, "mia wears red keeps cats keeps .", share, &mut Draw::new(1, 1));
        assert_eq!(marked(1.0), "mia wears red yes keeps cats no keeps .");
        assert_eq!(marked(0.0), "mia wears red keeps cats keeps .");
        let marks = |progress| {
            let count =
                |row| prompted_row(0, row, progress)["completion"].as_str().unwrap().matches(" yes").count();
            (0..100).map(count).sum::<usize>()
        };
        assert!(marks(0.3) > 2 * marks(0.6) && marks(0.6) > 0 && marks(0.8) == 0);
    }

    #[test]
    fn verdicts_are_those_of_the_oracle() {
        for row in 0..200 {
            let row = prompted_row(0, row, 1.0);
            let post = row["prompt"].as_str().unwrap().strip_prefix("text : ").unwrap();
            let post = Post::parse(post).unwrap();
            let text = row["completion"].as_str().unwrap().strip_prefix("summary 1 : ").unwrap();
            let (first, rest) = text.split_once(" summary 2 : ").unwrap();
            let (second, questions) = rest.split_once(" most ").unwrap();
            for question in questions.split(" most ") {
                let (quality, verdict) = question.split_once(" = ").unwrap();
                let instruction = Instruction::ALL.into_iter().find(|i| i.text() == quality).unwrap();
                let utility = |summary| instruction.utility(&Quality::of(&post, summary));
                let better = if utility(first) > utility(second) { "1" } else { "2" };
                assert_eq!(verdict, better, "{row}");
            }
        }
    }
}
