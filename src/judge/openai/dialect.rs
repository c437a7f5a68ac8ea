//! Which request parameters a server accepts; learnt from its answers and errors.

use super::options::{Api, OpenAiOptions};
use super::protocol::Prompt;

/// The numbers of log-probabilities to try after the configured one was too many: the limits of OpenAI and vLLM.
const TOP: [u32; 2] = [20, 5];
/// The answer length in tokens for a verdict that is read from the text: quotation marks and emphasis take tokens, too.
const TEXT_TOKENS: u32 = 8;
/// Additional tokens if answers begin with a blank token.
const BLANK_TOKENS: u32 = 3;

/// The kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// "1" or "2".
    Compare,
    /// A rating from 1 to 10.
    Rate,
}

/// How requests to a server are written. It is adapted to the server's answers; each adaptation is made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    /// The index of the base URL in use.
    pub base: usize,
    /// The number of log-probabilities to request.
    pub top: Option<u32>,
    completion_tokens: bool,
    no_temperature: bool,
    /// Whether answers begin with a blank token.
    blank: bool,
}

/// The consequence of a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lesson {
    /// There is nothing to adapt: the cause is the question, or the server refuses all requests.
    None,
    /// Send the request again in the adapted form. The text is a note for the user.
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

    /// The limit on the answer length in tokens.
    pub fn max_tokens(&self, options: &OpenAiOptions, kind: Kind) -> u32 {
        let plain = match kind {
            _ if options.reasons => return options.max_tokens,
            Kind::Compare if options.ties => TEXT_TOKENS,
            // A completion model continues after the verdict, a chat model ends its answer.
            _ if self.top.is_none() && options.api == Api::Chat => TEXT_TOKENS,
            Kind::Compare => 1,
            // "10" may take two tokens.
            Kind::Rate => 2,
        };
        plain + if self.blank { BLANK_TOKENS } else { 0 }
    }

    /// Adapts to a refused request (400, 403, 404 or 422) with this error message. `bases`: the number of base URLs.
    pub fn learn_from_refusal(&mut self, status: u16, message: &str, bases: usize, api: Api) -> Lesson {
        let message = message.to_lowercase();
        let names = |word: &str| message.contains(word);
        match status {
            // An unknown model also gives 404; another base URL does not help then.
            404 if self.base + 1 < bases && !names("model") => {
                self.base += 1;
                Lesson::Changed(None)
            }
            400 | 403 | 422 if self.top.is_some() && names("logprob") => {
                self.top = TOP.into_iter().find(|fewer| Some(*fewer) < self.top);
                Lesson::Changed(
                    self.top
                        .is_none()
                        .then_some("does not support log-probabilities: verdicts are read from the text"),
                )
            }
            400 | 422 if !self.completion_tokens && api == Api::Chat && names("max_completion_tokens") => {
                self.completion_tokens = true;
                Lesson::Changed(None)
            }
            400 | 422 if !self.no_temperature && names("temperature") => {
                self.no_temperature = true;
                Lesson::Changed(Some(
                    "does not accept a temperature and uses its own: its verdicts may not be reproducible",
                ))
            }
            _ => Lesson::None,
        }
    }

    /// Adapts to a server that accepts the request but returns no log-probabilities.
    pub fn without_log_probabilities(&mut self) -> &'static str {
        self.top = None;
        "returns no log-probabilities: verdicts are read from the text"
    }

    /// Adapts to a blank answer. Returns true if a longer answer may help.
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
    fn unsupported_parameters_are_dropped_one_by_one() {
        let mut dialect = Dialect::new(&options());
        let mut after_refusal = |message| match dialect.learn_from_refusal(400, message, 1, Api::Chat) {
            Lesson::Changed(note) => {
                (dialect.top, dialect.completion_tokens, dialect.no_temperature, note.is_some())
            }
            Lesson::None => panic!("{message}"),
        };
        assert_eq!(
            after_refusal("Requested logprobs of 20, which is greater than max allowed: 5"),
            (Some(5), false, false, false)
        );
        assert_eq!(after_refusal("This model does not support logprobs"), (None, false, false, true));
        assert_eq!(after_refusal("Use 'max_completion_tokens' instead."), (None, true, false, false));
        assert_eq!(after_refusal("Unsupported value: 'temperature'"), (None, true, true, true));
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
    fn answers_are_limited_to_the_tokens_that_are_needed() {
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
