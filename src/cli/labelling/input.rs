//! Reads commands as keys of a terminal, or as lines of any other input.

use std::io::{self, BufRead};

use ::console::{Key, Term};

use super::{Command, Input};
use crate::judge::human::Pick;

/// The command of a letter, except for comments.
fn command(letter: char) -> Command {
    match letter.to_ascii_lowercase() {
        '1' => Command::Label(Pick::First),
        '2' => Command::Label(Pick::Second),
        't' => Command::Label(Pick::Tie),
        's' => Command::Label(Pick::Skip),
        'u' => Command::Undo,
        'q' => Command::Stop,
        _ => Command::Unknown,
    }
}

/// Single keys of the terminal.
pub(super) struct Keys(Term);

impl Keys {
    pub fn new() -> Keys {
        Keys(Term::stderr())
    }
}

impl Input for Keys {
    fn next(&mut self) -> io::Result<Option<Command>> {
        Ok(Some(match self.0.read_key()? {
            Key::Char('c' | 'C') => {
                self.0.write_str("comment: ")?;
                Command::Comment(self.0.read_line()?)
            }
            // Ctrl-D: the end of the input.
            Key::Char('\u{4}') => return Ok(None),
            Key::Char(letter) => command(letter),
            _ => Command::Unknown,
        }))
    }

    fn is_keys(&self) -> bool {
        true
    }

    fn help(&self) -> &'static str {
        "1, 2: this response is better   t: tie   s: skip   u: undo   c: comment   q: stop"
    }
}

/// Lines of a file or a pipe.
pub(super) struct Lines<R>(R);

impl<R: BufRead> Lines<R> {
    pub fn new(lines: R) -> Lines<R> {
        Lines(lines)
    }
}

impl<R: BufRead> Input for Lines<R> {
    fn next(&mut self) -> io::Result<Option<Command>> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Ok(Some(match word.to_ascii_lowercase().as_str() {
            "c" | "comment" => Command::Comment(rest.trim().to_owned()),
            "1" | "2" | "t" | "tie" | "s" | "skip" | "u" | "undo" | "q" | "stop" if rest.is_empty() => {
                // "stop" has the same first letter as "skip".
                if word.eq_ignore_ascii_case("stop") {
                    Command::Stop
                } else {
                    command(word.chars().next().unwrap_or(' '))
                }
            }
            _ => Command::Unknown,
        }))
    }

    fn is_keys(&self) -> bool {
        false
    }

    fn help(&self) -> &'static str {
        "1, 2: this response is better   t: tie   s: skip   u: undo   c TEXT: comment   q: stop"
    }
}

/// The saved settings of the terminal, restored when dropped: a thread that still waits for a key has turned off echo.
pub(super) struct SavedTerminal(#[cfg(unix)] rustix::termios::Termios);

impl SavedTerminal {
    /// `None` if standard input is not a terminal.
    pub fn of_standard_input() -> Option<SavedTerminal> {
        #[cfg(unix)]
        return rustix::termios::tcgetattr(io::stdin()).ok().map(SavedTerminal);
        #[cfg(not(unix))]
        return None;
    }
}

impl Drop for SavedTerminal {
    fn drop(&mut self) {
        #[cfg(unix)]
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_command_and_other_lines_are_unknown() {
        let mut lines = Lines::new(
            "1\n 2 \r\nT\nskip\nstop\nundo\nC two words\ncomment\n12\n1 2\n\n\u{1b}\nq".as_bytes(),
        );
        let mut commands = Vec::new();
        while let Some(command) = lines.next().unwrap() {
            commands.push(command);
        }
        let comment = |text: &str| Command::Comment(text.into());
        use Pick::{First, Second, Skip, Tie};
        let labels = [First, Second, Tie, Skip].map(Command::Label);
        let others = [Command::Stop, Command::Undo, comment("two words"), comment("")];
        let unknown = std::iter::repeat_n(Command::Unknown, 4);
        let expected: Vec<Command> =
            labels.into_iter().chain(others).chain(unknown).chain([Command::Stop]).collect();
        assert_eq!(commands, expected);
    }
}
