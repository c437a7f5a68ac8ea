//! Labelling by a person in the terminal, without the page: pairs are printed to standard error, labels are read from standard
//! input as keys or lines.

mod input;

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use self::input::{Keys, Lines, SavedTerminal};
use super::console::ask;
use super::printable::printable;
use crate::judge::human::{Desk, GivenLabel, Pick, Shown, Tally};
use crate::train::Requests;

/// How often to check for a new pair.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Labels within this time after a pair is shown are ignored: a key that was pressed twice must not label the next pair.
const DEBOUNCE: Duration = Duration::from_millis(250);

/// An input of the person.
#[derive(Clone, Debug, PartialEq)]
enum Command {
    Label(Pick),
    Undo,
    Comment(String),
    Stop,
    /// Not a known command.
    Unknown,
}

/// A source of commands.
trait Input {
    /// Waits for the next command; `None` at the end of the input.
    fn next(&mut self) -> io::Result<Option<Command>>;

    /// Whether commands are single keys, which may be pressed twice by mistake.
    fn is_keys(&self) -> bool;

    /// The line that lists the commands.
    fn help(&self) -> &'static str;
}

/// Labelling in the terminal. Restores the terminal when dropped, even while the thread still waits for a key.
pub(crate) struct Labelling {
    _terminal: Option<SavedTerminal>,
}

impl Labelling {
    /// Starts to show the pairs of the desk. Commands are single keys if both standard input and standard error are a
    /// terminal, else lines. The end of the input closes the desk.
    pub fn start(desk: Arc<Desk>, requests: Arc<Requests>) -> Labelling {
        let keys = io::stdin().is_terminal() && io::stderr().is_terminal();
        // The thread may wait for input until the program exits.
        thread::spawn(move || {
            let mut say = |text: &str| ask(text);
            match keys {
                true => label(&desk, &requests, &mut Keys::new(), &mut say),
                false => label(&desk, &requests, &mut Lines::new(io::stdin().lock()), &mut say),
            }
        });
        Labelling { _terminal: SavedTerminal::of_standard_input().filter(|_| keys) }
    }
}

/// Shows pairs and reads labels until the input or the labelling ends.
fn label(desk: &Desk, requests: &Requests, input: &mut dyn Input, say: &mut dyn FnMut(&str)) {
    let (mut form, mut version, mut waits) = (None, 0, false);
    let mut came = Instant::now();
    loop {
        let view = desk.view(form);
        if view.closed.is_some() || requests.stops() {
            return;
        }
        let Some(pair) = view.pair else {
            if !std::mem::replace(&mut waits, true) {
                say("waiting for the next pairs");
            }
            version = desk.wait(version, CHECK_INTERVAL);
            continue;
        };
        if form != Some(pair.form) {
            say(&shown(&pair, &view.counts, input.help()));
            (form, waits, came) = (Some(pair.form), false, Instant::now());
        }
        let command = match input.next() {
            Ok(Some(command)) => command,
            // Ctrl-C also raises a signal, which stops the run.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return,
            Ok(None) => return desk.close("standard input ended before all pairs were labelled"),
            Err(e) => return desk.close(format!("standard input cannot be read ({e})")),
        };
        let soon = input.is_keys() && came.elapsed() < DEBOUNCE;
        match command {
            Command::Label(_) if soon => {}
            Command::Label(choice) => {
                let Shown { id, form, shown_first, .. } = pair;
                let seconds = came.elapsed().as_secs_f64();
                match desk.label(GivenLabel { id, form, shown_first, choice, comment: None, seconds }) {
                    Ok(()) => say(&format!("  {}", said(choice))),
                    Err(refusal) => say(&format!("  {refusal}")),
                }
            }
            Command::Undo => match view.last.map(|last| desk.undo(&last.id)) {
                Some(Ok(choice)) => say(&format!("  undone: {}", said(choice))),
                Some(Err(refusal)) => say(&format!("  {refusal}")),
                None => say("  There is no label to undo."),
            },
            Command::Comment(text) => match desk.comment(&pair.id, pair.form, &text) {
                Ok(()) => say("  The comment is saved."),
                Err(refusal) => say(&format!("  {refusal}")),
            },
            Command::Stop => {
                requests.ask_to_stop();
                return say("  stopping; the labels so far are kept");
            }
            Command::Unknown => say(&format!("  {}", input.help())),
        }
        // A pair whose label was undone is shown before the current one.
        if desk.view(form).counts.open > view.counts.open {
            form = None;
        }
    }
}

fn said(choice: Pick) -> &'static str {
    match choice {
        Pick::First => "response 1 is better",
        Pick::Second => "response 2 is better",
        Pick::Tie => "tie",
        Pick::Skip => "skipped",
    }
}

/// The text of a pair for the terminal. Control characters are escaped, so its texts cannot move the cursor.
fn shown(pair: &Shown, counts: &Tally, help: &str) -> String {
    let mut out = format!("\n--- {} left, {} labelled", counts.open, counts.given);
    if let Some(seconds) = counts.seconds_left {
        write!(out, ", about {:.0} min remaining", (seconds / 60.0).ceil()).expect("a String takes all");
    }
    for (title, text) in [("Prompt", &pair.prompt), ("Response 1", &pair.first), ("Response 2", &pair.second)]
    {
        let text = if text.trim().is_empty() { "(empty)".into() } else { printable(text.trim_end()) };
        write!(out, "\n\n{title}\n  {}", text.trim_start_matches(' ').replace('\n', "\n  "))
            .expect("a String takes all");
    }
    if !pair.comment.is_empty() {
        write!(out, "\n\nComment\n  {}", printable(&pair.comment).replace('\n', "\n  "))
            .expect("a String takes all");
    }
    out + "\n\n" + help
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Pair;
    use crate::judge::queue::Question;

    fn desk(pairs: usize) -> Desk {
        let desk = Desk::new().holding(Duration::from_secs(60));
        let question = |i: usize| {
            let pair = Pair { prompt: "a\u{1b}[2J\nb", response_1: " one", response_2: "" };
            Question::compare(&i.to_string(), &pair)
        };
        desk.put((0..pairs).map(question).collect());
        desk
    }

    /// The messages printed while these lines are read.
    fn read(desk: &Desk, requests: &Requests, lines: &str) -> Vec<String> {
        let mut printed = Vec::new();
        label(desk, requests, &mut Lines::new(lines.as_bytes()), &mut |text| printed.push(text.to_owned()));
        printed
    }

    #[test]
    fn lines_label_undo_and_comment_and_the_end_of_the_input_closes_the_desk() {
        let (desk, requests) = (desk(4), Requests::default());
        let printed = read(&desk, &requests, "1\nu\nc rather odd\n2\ntie\nSKIP\nwhat\n");
        let shown = printed.iter().filter(|text| text.contains("Response 1")).count();
        assert_eq!(shown, 6, "{printed:#?}");
        let said: Vec<&str> = printed.iter().filter_map(|text| text.strip_prefix("  ")).collect();
        assert_eq!(
            said[..6],
            [
                "response 1 is better",
                "undone: response 1 is better",
                "The comment is saved.",
                "response 2 is better",
                "tie",
                "skipped"
            ]
        );
        assert!(said[6].starts_with("1, 2"), "{said:?}");
        let view = desk.view(None);
        assert_eq!(
            (view.counts.given, view.counts.ties, view.counts.skipped, view.counts.open),
            (3, 1, 1, 1)
        );
        assert_eq!(view.closed.as_deref(), Some("standard input ended before all pairs were labelled"));
    }

    #[test]
    fn the_stop_command_ends_the_run_and_leaves_the_desk_open() {
        let (desk, requests) = (desk(1), Requests::default());
        read(&desk, &requests, "q\n1\n");
        assert!(requests.stops());
        assert_eq!((desk.view(None).closed, desk.view(None).counts.given), (None, 0));
    }

    #[test]
    fn control_characters_are_escaped_and_empty_responses_are_marked() {
        let desk = desk(1);
        let text = &read(&desk, &Requests::default(), "")[0];
        assert!(text.contains("Prompt\n  a\\u{1b}[2J\n  b\n") && text.contains("(empty)"), "{text}");
        assert!(text.contains("\n  one\n"), "{text}");
    }

    #[test]
    fn a_key_that_is_pressed_twice_labels_one_pair() {
        /// When each key was asked for.
        #[derive(Default)]
        struct Twice(Vec<Instant>);
        impl Input for Twice {
            fn next(&mut self) -> io::Result<Option<Command>> {
                if self.0.is_empty() {
                    thread::sleep(DEBOUNCE);
                }
                self.0.push(Instant::now());
                Ok((self.0.len() <= 2).then_some(Command::Label(Pick::First)))
            }
            fn is_keys(&self) -> bool {
                true
            }
            fn help(&self) -> &'static str {
                ""
            }
        }
        for _ in 0..100 {
            let (desk, mut twice) = (desk(3), Twice::default());
            label(&desk, &Requests::default(), &mut twice, &mut |_| {});
            // On a busy machine the second key may come later than meant.
            if twice.0[2] - twice.0[0] < DEBOUNCE {
                assert_eq!(desk.view(None).counts.given, 1);
                return;
            }
        }
        panic!("the two keys never came within {DEBOUNCE:?}");
    }
}
