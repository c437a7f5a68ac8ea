//! Implicit prompts of preference rows.

use serde_json::Value;

use super::column::{Row, Why, check_kind};
use super::{Columns, Conversation, Text};

/// Returns [prompt, chosen, rejected] of a preference row whose prompt is the common beginning of both responses;
/// `None` for a row that is not a preference or has an explicit prompt.
pub(super) fn pair_with_implicit_prompt(row: &Row, columns: &Columns) -> Result<Option<[Text; 3]>, Why> {
    if !row.has(&columns.chosen) || !row.has(&columns.rejected) {
        return Ok(None);
    }
    let list = |column| row.get(column).map(|value| value.is_some_and(Value::is_array));
    let whole = list(&columns.chosen)? && list(&columns.rejected)?;
    if row.has(&columns.prompt) && !(whole && row.get(&columns.prompt)?.is_some_and(Value::is_string)) {
        return Ok(None);
    }
    let (chosen, rejected) = (row.text(&columns.chosen)?, row.text(&columns.rejected)?);
    check_kind(&columns.rejected, &rejected, &chosen)?;
    let no_prompt = format!(
        "no column \"{}\", and \"{}\" and \"{}\" have no common beginning that could be the prompt",
        columns.prompt, columns.chosen, columns.rejected
    );
    split_common_prompt(chosen, rejected).map(Some).ok_or(no_prompt)
}

fn split_common_prompt(chosen: Text, rejected: Text) -> Option<[Text; 3]> {
    match (chosen, rejected) {
        (Text::Chat(a), Text::Chat(b)) => {
            let (mut prompt, mut rejected, variables) = (a.messages, b.messages, a.variables);
            // Each side keeps its last message, even if both are the same.
            let longest = prompt.len().min(rejected.len()).saturating_sub(1);
            let shared = prompt.iter().zip(&rejected).take(longest).take_while(|(x, y)| x == y).count();
            let (chosen, rejected) = (prompt.split_off(shared), rejected.split_off(shared));
            let chat = |messages| Text::Chat(Conversation { messages, variables: variables.clone() });
            (shared > 0).then(|| [prompt, chosen, rejected].map(chat))
        }
        (Text::Plain(a), Text::Plain(b)) => {
            let shared: usize =
                a.chars().zip(b.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
            let end = prompt_end(&a[..shared])?;
            Some([&a[..end], &a[end..], &b[end..]].map(|s| Text::Plain(s.to_owned())))
        }
        _ => None,
    }
}

/// Returns the end of the prompt within the common beginning of two responses. Responses may happen to start with the
/// same words, so the prompt ends at the last speaker marker, or else before the last white space, which belongs to the
/// responses, since most tokenizers join it to the word after it.
fn prompt_end(shared: &str) -> Option<usize> {
    const MARKER: &str = "\n\nAssistant:";
    let end = match shared.rfind(MARKER) {
        Some(start) => start + MARKER.len(),
        None => shared.rfind(char::is_whitespace)?,
    };
    (!shared[..end].trim().is_empty()).then_some(end)
}
