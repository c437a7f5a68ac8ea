use crate::Wait;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use web_time::Instant;

use super::super::{Human, SKIPPED, Tally};
use super::*;
use crate::judge::journal::Journalled;
use crate::judge::queue::{Ask, JudgeQueue, Said};
use crate::judge::{Judgement, Pair, Verdict};

const NONE: Duration = Duration::ZERO;

fn question(place: &str) -> Question {
    let pair = Pair { prompt: &format!("prompt {place}"), response_1: "one", response_2: "two" };
    Question::compare(place, &pair)
}

/// A desk with these questions that does not hold labels back.
fn desk(places: &[&str]) -> Arc<Desk> {
    let desk = Desk::new().holding(NONE);
    desk.put(places.iter().map(|place| question(place)).collect());
    Arc::new(desk)
}

fn given(shown: &Shown, choice: Pick) -> GivenLabel {
    let Shown { id, form, shown_first, .. } = shown.clone();
    GivenLabel { id, form, shown_first, choice, comment: None, seconds: 2.0 }
}

/// Labels the next pair.
fn label(desk: &Desk, choice: Pick) -> Shown {
    let shown = desk.view(None).pair.expect("a pair is open");
    desk.label(given(&shown, choice)).unwrap();
    shown
}

fn judgement(answer: &Answer) -> &Judgement {
    let Said::Judgement(judgement) = &answer.said else { panic!("{answer:?}") };
    judgement
}

/// A simple random number generator for tests.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

#[test]
fn a_label_reaches_its_pair_in_whichever_order_it_was_shown() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = random(seed);
    let questions: Vec<Question> = (0..2_000)
        .map(|i| {
            let (a, b) = (format!("better {i}"), format!("worse {i}"));
            let better_is_first = random().is_multiple_of(2);
            let (response_1, response_2) = if better_is_first { (a, b) } else { (b, a) };
            Question::new(
                &format!("{i}-0-1"),
                &format!("prompt {i}"),
                Ask::Compare { response_1, response_2 },
            )
        })
        .collect();
    let desk = Desk::new().holding(NONE);
    desk.put(questions.clone());
    questions.iter().for_each(|question| desk.prioritise(&question.id, (random() % 100) as f32));
    let mut orders = HashSet::new();
    for _ in 0..questions.len() {
        let shown = desk.view(None).pair.unwrap();
        let number = shown.prompt.strip_prefix("prompt ").unwrap();
        assert!(
            [&shown.first, &shown.second].iter().all(|text| text.ends_with(&format!(" {number}"))),
            "{shown:?}"
        );
        let choice = if shown.first.starts_with("better") { Pick::First } else { Pick::Second };
        orders.insert(shown.shown_first);
        desk.label(given(&shown, choice)).unwrap();
    }
    assert_eq!(orders.len(), 2, "both orders were shown");
    let answers = desk.take(NONE).unwrap();
    assert_eq!(answers.len(), questions.len());
    for answer in &answers {
        let question = questions.iter().find(|question| question.id == answer.id).unwrap();
        let pair = question.pair().unwrap();
        let preferred = match judgement(answer).verdict.label() {
            "1" => pair.response_1,
            "2" => pair.response_2,
            other => panic!("{other}"),
        };
        assert!(preferred.starts_with("better"), "{question:?} {answer:?}, seed {seed}");
    }
}

#[test]
fn ties_are_ties_and_a_skipped_pair_is_an_invalid_verdict() {
    let desk = desk(&["1", "2"]);
    label(&desk, Pick::Tie);
    label(&desk, Pick::Skip);
    let answers = desk.take(NONE).unwrap();
    assert_eq!(judgement(&answers[0]).verdict, Verdict::Tie);
    assert_eq!(judgement(&answers[1]).verdict, Verdict::Invalid { why: SKIPPED.into() });
    assert_eq!(answers[0].ms, 2_000.0);
    let Tally { open, given, ties, skipped, .. } = desk.view(None).counts;
    assert_eq!((open, given, ties, skipped), (0, 2, 1, 1));
}

#[test]
fn the_last_label_is_held_back_until_the_next_one_or_for_a_while() {
    let held = |hold| {
        let desk = Desk::new().holding(hold);
        desk.put(["1", "2", "3"].map(question).into());
        desk
    };
    let desk = held(Duration::from_secs(3600));
    let first = label(&desk, Pick::First);
    assert!(desk.take(NONE).unwrap().is_empty());
    label(&desk, Pick::First);
    let ids = |answers: Vec<Answer>| answers.into_iter().map(|answer| answer.id).collect::<Vec<_>>();
    assert_eq!(ids(desk.take(NONE).unwrap()), [first.id]);
    let hold = Duration::from_millis(150);
    let desk = held(hold);
    let started = Instant::now();
    label(&desk, Pick::First);
    assert_eq!(desk.take(Duration::from_secs(60)).unwrap().len(), 1);
    let took = started.elapsed();
    assert!(took >= hold && took < Duration::from_secs(30), "{took:?}");
    assert!(desk.take(Duration::from_millis(10)).unwrap().is_empty());
}

#[test]
fn a_label_is_held_back_for_five_seconds() {
    assert_eq!(Desk::new().hold, Duration::from_secs(5));
}

#[test]
fn an_undone_label_is_not_counted_and_its_pair_is_shown_next() {
    let desk = Desk::new();
    desk.put(["1", "2", "3"].map(question).into());
    assert!(matches!(desk.undo("1").unwrap_err(), Refusal::NothingToUndo));
    let shown = label(&desk, Pick::Second);
    assert!(desk.view(None).last.unwrap().undoable);
    assert_eq!(desk.undo(&shown.id).unwrap(), Pick::Second);
    let again = desk.view(None).pair.unwrap();
    assert_eq!((&again.id, again.form == shown.form), (&shown.id, false));
    assert_eq!(desk.view(None).counts, Tally { open: 3, ..Tally::default() });
    // The old form is out of date, the new one is not.
    assert!(matches!(desk.label(given(&shown, Pick::First)).unwrap_err(), Refusal::Stale));
    desk.label(given(&again, Pick::First)).unwrap();
    label(&desk, Pick::First);
    let answers = desk.take(NONE).unwrap();
    assert_eq!((answers.len(), &answers[0].id), (1, &shown.id));
    assert_eq!(
        judgement(&answers[0]).verdict,
        Order::of(&shown.id).label(Pick::First).judgement(Order::of(&shown.id)).verdict
    );
}

#[test]
fn labels_can_be_undone_one_after_the_other_until_the_trainer_has_them() {
    let desk = Desk::new();
    desk.put(["1", "2", "3"].map(question).into());
    let shown = [Pick::First, Pick::Tie, Pick::Skip].map(|choice| label(&desk, choice));
    assert!(matches!(desk.undo(&shown[0].id).unwrap_err(), Refusal::NotTheLast));
    desk.undo(&shown[2].id).unwrap();
    desk.undo(&shown[1].id).unwrap();
    assert_eq!(desk.view(None).counts, Tally { open: 2, given: 1, ..Tally::default() });
    // The pair that was undone last is shown first, as when going back page by page.
    assert_eq!(desk.view(None).pair.unwrap().id, shown[1].id);
    label(&desk, Pick::First);
    assert_eq!(desk.take(NONE).unwrap().len(), 1);
    desk.undo(&shown[1].id).unwrap();
    assert_eq!(desk.view(None).last, None);
    assert!(matches!(desk.undo(&shown[0].id).unwrap_err(), Refusal::NothingToUndo));
}

#[test]
fn an_undo_that_comes_too_late_says_so() {
    let desk = desk(&["1", "2"]);
    let shown = label(&desk, Pick::First);
    assert_eq!(desk.take(NONE).unwrap().len(), 1);
    assert!(!desk.view(None).last.unwrap().undoable);
    let refusal = desk.undo(&shown.id).unwrap_err().to_string();
    assert_eq!(refusal, "Too late to undo: the trainer already has this label.");
}

#[test]
fn a_label_for_a_pair_that_is_gone_or_labelled_or_shown_differently_is_refused() {
    let desk = desk(&["1", "2"]);
    let shown = desk.view(None).pair.unwrap();
    let refused = |given: GivenLabel| desk.label(given).unwrap_err();
    let gone = GivenLabel { id: "9-0".into(), ..given(&shown, Pick::First) };
    assert!(matches!(refused(gone), Refusal::Gone));
    let otherwise = GivenLabel { shown_first: 3 - shown.shown_first, ..given(&shown, Pick::First) };
    assert!(matches!(refused(otherwise), Refusal::Stale));
    // The form of one pair with the id of the other.
    let other = GivenLabel { id: question("2").id, ..given(&shown, Pick::First) };
    assert!(matches!(refused(other), Refusal::Stale));
    desk.label(given(&shown, Pick::First)).unwrap();
    assert!(matches!(refused(given(&shown, Pick::Second)), Refusal::Labelled));
    desk.withdraw();
    let second = GivenLabel { id: question("2").id, ..given(&shown, Pick::First) };
    assert!(matches!(refused(second), Refusal::Gone));
    desk.close("the run has ended");
    assert_eq!(
        refused(given(&shown, Pick::First)).to_string(),
        "The run accepts no more labels: the run has ended."
    );
}

#[test]
fn pairs_are_shown_by_priority_then_in_order_and_do_not_change_while_they_are_read() {
    let desk = desk(&["1", "2", "3"]);
    let reading = desk.view(None).pair.unwrap();
    assert_eq!(reading.id, question("1").id);
    desk.prioritise(&question("3").id, 0.5);
    desk.prioritise(&question("2").id, f32::NAN);
    desk.prioritise(&question("4").id, 0.7);
    assert_eq!(desk.view(Some(reading.form)).pair.unwrap(), reading);
    assert_eq!(desk.view(None).pair.unwrap().id, question("3").id);
    desk.put(vec![question("4")]);
    let order: Vec<String> = (0..4).map(|_| label(&desk, Pick::Tie).id).collect();
    assert_eq!(order, ["4", "3", "1", "2"].map(|place| question(place).id));
}

#[test]
fn labels_and_comments_survive_a_kill_and_are_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels.jsonl");
    let all = ["1", "2", "3", "4"].map(question);
    let desk = Desk::open(&path).unwrap();
    desk.put(all.to_vec());
    let one = label(&desk, Pick::First);
    let two = label(&desk, Pick::Tie);
    let three = label(&desk, Pick::Skip);
    desk.undo(&three.id).unwrap();
    let form = desk.view(None).pair.unwrap().form;
    desk.comment(&three.id, form, " neither is a story ").unwrap();
    // Simulates a kill: no destructors run, and the last line of the file may be incomplete.
    std::mem::forget(desk);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += "{\"id\":\"4-";
    std::fs::write(&path, text).unwrap();

    let desk = Arc::new(Desk::open(&path).unwrap());
    let mut human = Human::new(desk.clone());
    human.submit(all.to_vec()).unwrap();
    let answers = human.poll(NONE).wait().unwrap().answers;
    assert_eq!(answers.iter().map(|answer| &answer.id).collect::<Vec<_>>(), [&one.id, &two.id]);
    let order = Order::of(&one.id);
    assert_eq!(judgement(&answers[0]), &order.label(Pick::First).judgement(order));
    let view = desk.view(None);
    assert_eq!((view.counts.open, view.counts.given, view.counts.ties, view.counts.skipped), (2, 2, 1, 0));
    assert_eq!(view.pair.map(|pair| (pair.id, pair.comment)), Some((three.id, "neither is a story".into())));
    // A question that is asked again is answered again, as in a run that resumes from an earlier checkpoint.
    human.submit(vec![all[0].clone()]).unwrap();
    assert_eq!(human.poll(NONE).wait().unwrap().answers, answers[..1]);
    drop(human);
    assert_eq!(desk.view(None).pair, None, "pairs are removed with the queue that submitted them");
}

#[test]
fn a_label_that_was_not_taken_before_its_queue_ended_goes_to_the_next_queue() {
    let desk = Arc::new(Desk::new());
    let mut human = Human::new(desk.clone());
    human.submit(vec![question("1")]).unwrap();
    label(&desk, Pick::First);
    drop(human);
    let mut human = Human::new(desk.clone());
    human.submit(vec![question("1")]).unwrap();
    assert_eq!(human.poll(NONE).wait().unwrap().answers.len(), 1);
}

#[test]
fn a_closed_desk_returns_its_labels_and_then_an_error_with_the_reason() {
    let desk = Arc::new(Desk::new());
    let mut human = Human::new(desk.clone());
    human.submit(vec![question("1"), question("2")]).unwrap();
    label(&desk, Pick::First);
    desk.close("standard input has ended");
    assert_eq!(human.poll(NONE).wait().unwrap().answers.len(), 1);
    let error = human.poll(NONE).wait().unwrap_err().to_string();
    assert_eq!(error, "judge human: standard input has ended");
}

#[test]
fn a_person_gets_no_rating_questions_and_no_question_twice() {
    let desk = desk(&["1", "1"]);
    let rate = Question::new("2", "x", Ask::Rate { response: "y".into() });
    desk.put(vec![rate, question("1")]);
    assert_eq!(desk.view(None).counts.open, 1);
    let answers = desk.take(NONE).unwrap();
    assert!(matches!(&answers[..], [Answer { said: Said::Score(_), .. }]), "{answers:?}");
}

#[test]
fn a_comment_is_stored_with_its_label_and_a_long_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels.jsonl");
    let desk = Desk::open(&path).unwrap();
    desk.put(vec![question("1")]);
    let shown = desk.view(None).pair.unwrap();
    let long = "x".repeat(MAX_COMMENT + 1);
    assert!(matches!(desk.comment(&shown.id, shown.form, &long).unwrap_err(), Refusal::LongComment));
    let given = given(&shown, Pick::First);
    let too_long = GivenLabel { comment: Some(long), ..given.clone() };
    assert!(matches!(desk.label(too_long).unwrap_err(), Refusal::LongComment));
    desk.label(GivenLabel { comment: Some("\"a\"\n</textarea>".into()), seconds: f64::NAN, ..given })
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(r#""comment":"\"a\"\n</textarea>","seconds":0.0"#), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_label_that_cannot_be_written_is_not_accepted() {
    let desk = Desk::new();
    desk.lock().record = Some(crate::json_lines::JsonLines::on_a_full_disk());
    desk.put(vec![question("1")]);
    let shown = desk.view(None).pair.unwrap();
    let refusal = desk.label(given(&shown, Pick::First)).unwrap_err().to_string();
    assert!(refusal.starts_with("The label was not saved: cannot write"), "{refusal}");
    assert_eq!((desk.view(None).pair, desk.view(None).counts.given), (Some(shown), 0));
}

#[test]
fn listeners_are_called_on_changes_until_they_return_false() {
    let desk = Desk::new();
    let notified = Arc::new(AtomicUsize::new(0));
    let counter = notified.clone();
    desk.on_change(move || counter.fetch_add(1, Ordering::Relaxed) < 1);
    for place in ["1", "2", "3"] {
        desk.put(vec![question(place)]);
    }
    assert_eq!(notified.load(Ordering::Relaxed), 2);
    let version = desk.wait(0, NONE);
    let started = Instant::now();
    desk.wait(version, Duration::from_millis(20));
    assert!(started.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_poll_without_a_deadline_waits_for_the_next_label() {
    let desk = desk(&["1"]);
    let waiting = desk.clone();
    let answers = std::thread::spawn(move || waiting.take(Duration::MAX).unwrap());
    std::thread::sleep(Duration::from_millis(20));
    label(&desk, Pick::First);
    assert_eq!(answers.join().unwrap().len(), 1);
}

#[test]
fn with_the_runs_journal_no_question_is_asked_twice_and_no_label_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let [labels, judgements] = ["labels.jsonl", "judgements.jsonl"].map(|name| dir.path().join(name));
    let start = || {
        let desk = Arc::new(Desk::open(&labels).unwrap());
        let mut queue = Journalled::new(Box::new(Human::new(desk.clone())));
        queue.open(&judgements).unwrap();
        queue.submit(["1", "2", "3"].map(question).into()).unwrap();
        (desk, queue)
    };
    let (desk, mut queue) = start();
    let handed = label(&desk, Pick::First);
    let held = label(&desk, Pick::Second);
    let ids = |polled: Vec<Answer>| polled.into_iter().map(|answer| answer.id).collect::<Vec<_>>();
    assert_eq!(ids(queue.poll(NONE).wait().unwrap().answers), [handed.id.as_str()]);
    // Simulates a kill: the second label is in the desk's file, but not yet in the run's journal.
    std::mem::forget((desk, queue));
    let (desk, mut queue) = start();
    assert_eq!(ids(queue.poll(NONE).wait().unwrap().answers), [handed.id.as_str()]);
    let answers = queue.poll(NONE).wait().unwrap().answers;
    let order = Order::of(&held.id);
    assert_eq!(judgement(&answers[0]), &order.label(Pick::Second).judgement(order));
    assert_eq!((ids(answers), desk.view(None).counts.open), (vec![held.id], 1));
}
