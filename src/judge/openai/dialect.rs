//! What is learnt of a server: it says itself, in its answers, which parts of a request it does not take.

use super::options::{Api, OpenAiOptions};
use super::protocol::Prompt;

/// How many log-probabilities are asked for where those that were asked for are too many: OpenAI's and vLLM's limits.
const TOP: [u32; 2] = [20, 5];
/// Tokens for a verdict that is read from a text: quotation marks and emphasis are tokens of their own.
const TEXT_TOKENS: u32 = 8;
/// Tokens before the verdict where the first is blank.
const BLANK_TOKENS: u32 = 3;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// "1" or "2".
    Compare,
    /// 1 to 10.
    Rate,
}

/// How a server is asked. It changes as answers come; each change is made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Which of the address's bases is used.
    pub base: usize,
    /// How many log-probabilities are asked for.
    pub top: Option<u32>,
    completion_tokens: bool,
    no_temperature: bool,
    /// Answers begin with a blank token.
    blank: bool,
}

/// What is made of a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lesson {
    /// It is the question's, or the server's for good.
    None,
    /// Ask again, differently.
    Changed(Option<&'static str>),
}

impl Dialect {
    pub fn new(options: &OpenAiOptions) -> Dialect {
        let top = options.log_probabilities.then_some(options.most_probable);
        Dialect { base: 0, top, completion_tokens: false, no_temperature: false, blank: false }
    }

    /// The request for `text`.
    pub fn prompt<'a>(&self, options: &'a OpenAiOptions, text: &'a str, kind: Kind) -> Prompt<'a> {
        Prompt {
            api: options.api,
            model: &options.model,
            system: options.system.as_deref(),
            text,
            max_tokens: self.max_tokens(options, kind),
            completion_tokens: self.completion_tokens,
            temperature: (!self.no_temperature).then_some(options.temperature),
            top: self.top,
        }
    }

    /// The longest answer in tokens.
    pub fn max_tokens(&self, options: &OpenAiOptions, kind: Kind) -> u32 {
        let plain = match kind {
            _ if options.reasons => return options.max_tokens,
            Kind::Compare if options.ties => TEXT_TOKENS,
            // What is continued rather than answered goes on after the verdict.
            _ if self.top.is_none() && options.api == Api::Chat => TEXT_TOKENS,
            Kind::Compare => 1,
            // "10" may be two.
            Kind::Rate => 2,
        };
        plain + if self.blank { BLANK_TOKENS } else { 0 }
    }

    /// The server has refused a request (400, 403, 404 or 422) and says why. `bases`: how many there are.
    pub fn learn_from_refusal(&mut self, status: u16, message: &str, bases: usize, api: Api) -> Lesson {
        let message = message.to_lowercase();
        let names = |word: &str| message.contains(word);
        match status {
            // An unknown model is refused so as well, and is as unknown elsewhere.
            404 if self.base + 1 < bases && !names("model") => {
                self.base += 1;
                Lesson::Changed(None)
            }
            400 | 403 | 422 if self.top.is_some() && names("logprob") => {
                self.top = TOP.into_iter().find(|fewer| Some(*fewer) < self.top);
                Lesson::Changed(
                    self.top
                        .is_none()
                        .then_some("refuses to give log-probabilities: verdicts are read from its texts"),
                )
            }
            400 | 422 if !self.completion_tokens && api == Api::Chat && names("max_completion_tokens") => {
                self.completion_tokens = true;
                Lesson::Changed(None)
            }
            400 | 422 if !self.no_temperature && names("temperature") => {
                self.no_temperature = true;
                Lesson::Changed(Some(
                    "refuses the temperature and uses its own: its verdicts may differ from time to time",
                ))
            }
            _ => Lesson::None,
        }
    }

    /// The server gives no log-probabilities, though it takes the request.
    pub fn without_log_probabilities(&mut self) -> &'static str {
        self.top = None;
        "gives no log-probabilities: verdicts are read from its texts"
    }

    /// An answer was blank. True where a longer one may help.
    pub fn after_blank(&mut self) -> bool {
        !std::mem::replace(&mut self.blank, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> OpenAiOptions {
        OpenAiOptions::default()
    }

    #[test]
    fn a_server_is_asked_for_less_until_it_agrees() {
        let mut dialect = Dialect::new(&options());
        let mut told = |message| match dialect.learn_from_refusal(400, message, 1, Api::Chat) {
            Lesson::Changed(note) => {
                (dialect.top, dialect.completion_tokens, dialect.no_temperature, note.is_some())
            }
            Lesson::None => panic!("{message}"),
        };
        assert_eq!(
            told("Requested logprobs of 20, which is greater than max allowed: 5"),
            (Some(5), false, false, false)
        );
        assert_eq!(told("This model does not support logprobs"), (None, false, false, true));
        assert_eq!(told("Use 'max_completion_tokens' instead."), (None, true, false, false));
        assert_eq!(told("Unsupported value: 'temperature'"), (None, true, true, true));
        for message in ["logprobs", "max_completion_tokens", "temperature", "context length exceeded", ""] {
            assert_eq!(dialect.learn_from_refusal(400, message, 1, Api::Chat), Lesson::None, "{message}");
        }
    }

    #[test]
    fn another_base_is_tried_unless_the_model_is_unknown() {
        let mut dialect = Dialect::new(&options());
        let mut learn = |message| dialect.learn_from_refusal(404, message, 2, Api::Chat);
        assert_eq!(learn("The model `x` does not exist"), Lesson::None);
        assert_eq!(learn("Not Found"), Lesson::Changed(None));
        assert_eq!(learn("Not Found"), Lesson::None);
    }

    #[test]
    fn an_answer_is_as_long_as_it_must_be() {
        let (mut options, mut dialect) = (options(), Dialect::new(&options()));
        assert_eq!([Kind::Compare, Kind::Rate].map(|kind| dialect.max_tokens(&options, kind)), [1, 2]);
        assert_eq!((dialect.after_blank(), dialect.after_blank()), (true, false));
        assert_eq!(dialect.max_tokens(&options, Kind::Compare), 4);
        dialect.without_log_probabilities();
        assert_eq!(dialect.max_tokens(&options, Kind::Compare), 11);
        options.api = Api::Completions;
        assert_eq!([Kind::Compare, Kind::Rate].map(|kind| dialect.max_tokens(&options, kind)), [4, 5]);
        options.reasons = true;
        assert_eq!(dialect.max_tokens(&options, Kind::Compare), 512);
    }
}
