//! `oaif score`.

use serde_json::{Value, json};

use super::{warn_of, write_lines};
use crate::Wait;
use crate::cli::args::ScorePlan;
use crate::cli::console::{Console, warn};
use crate::data::encoder::{Encoder, at};
use crate::data::packing::Tree;
use crate::data::rows::{Completion, Message, Text, read_completions};
use crate::error::{Error, Result};
use crate::model::{Scored, score_all};
use crate::train::Policy;

pub fn run(plan: ScorePlan) -> Result<()> {
    let rows = read_completions(&plan.input, &plan.columns)?;
    let gpu = plan.gpu.open()?;
    let policy =
        Policy::frozen(&gpu, &plan.policy.model, plan.policy.adapter.as_deref(), plan.base_dtype).wait()?;
    warn_of(&policy.model);
    let context = policy.model.architecture().context;
    let encoder = policy.encoder();
    let mut cut = 0;
    let mut tree = |row: &Completion| -> Result<Tree> {
        let fail = |why: &str| row.place.error(why);
        let prompt =
            row.prompt.as_ref().ok_or_else(|| fail("has no \"prompt\", which the completion follows"))?;
        let tree = match &row.token_ids {
            Some(token_ids) => drawn(&encoder, prompt, row, token_ids).map_err(at(&row.place))?,
            None => {
                let encoded = encoder.encode(prompt, &[&row.completion], false).map_err(at(&row.place))?;
                cut += usize::from(encoded.cut > 0);
                encoded.tree
            }
        };
        if tree.responses[0].is_empty() {
            return Err(fail("has a completion without tokens: fill it in or drop the row"));
        }
        match tree.length() > context {
            true => {
                Err(fail(&format!("has {} tokens, the model takes {context}: shorten it", tree.length())))
            }
            false => Ok(tree),
        }
    };
    let trees = rows.iter().map(&mut tree).collect::<Result<Vec<_>>>()?;
    if cut > 0 {
        warn(format_args!(
            "in {cut} of {} rows the prompt's last tokens change when the completion is appended: the completion is scored from \
             the first token that differs",
            rows.len()
        ));
    }
    let mut console = Console::new();
    let mut watch = |done| console.progress("scoring", done, trees.len());
    let scores = score_all(&policy.model, &trees, &mut watch).wait()?;
    drop(console);
    if let Some(row) = scores.iter().position(|s| !s.logp().is_finite()) {
        let why = format!(
            "gives a log-probability that is not finite for line {} of {}: its weights are damaged, download them again",
            rows[row].place.line,
            plan.input.display()
        );
        return Err(Error::file(&plan.policy.model, why));
    }
    let row = |(tree, scored): (&Tree, &Scored)| -> Value {
        json!({
            "logp": scored.logp(),
            "num_tokens": scored.logps.len(),
            "token_ids": tree.responses[0],
            "token_logps": scored.logps,
        })
    };
    write_lines(plan.output.as_deref(), trees.iter().zip(&scores).map(row))
}

/// The tree of a completion given by its token ids, which must decode to the row's text with this model's tokenizer.
fn drawn(encoder: &Encoder, prompt: &Text, row: &Completion, token_ids: &[u32]) -> Result<Tree> {
    let prompt = encoder.prompt(prompt)?;
    let tokenizer = encoder.tokenizer;
    tokenizer.check(token_ids)?;
    let text = match &row.completion {
        Text::Plain(text) => text.clone(),
        Text::Chat(answer) => answer.messages.iter().map(Message::text).collect(),
    };
    // A stop string truncates the text but not the ids, and special tokens before it remain in the text.
    let decoded = |skip_special| tokenizer.decode_after(&prompt, token_ids, skip_special);
    if !decoded(true)?.starts_with(&text) && !decoded(false)?.starts_with(&text) {
        let why = "decode to another text than the row's: leave out the column, or score with the model that sampled them";
        return Err(Error::config("token_ids", why));
    }
    Ok(Tree { prompt, responses: vec![token_ids.to_vec()] })
}
