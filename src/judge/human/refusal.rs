//! Why something that a person asked of the desk was not done.

use super::desk::MAX_COMMENT;
use crate::error::Error;

/// A refusal: a sentence for the person. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The pair is not on the desk.
    #[error("This pair is no longer open, so the label was not taken.")]
    Gone,
    /// The pair has a label.
    #[error("This pair has a label already, so this one was not taken.")]
    Labelled,
    /// The form was made before the pair was opened again, or for another pair.
    #[error("This form is out of date, so the label was not taken: look at the pair again.")]
    Stale,
    /// There is no label to undo.
    #[error("There is no label to undo.")]
    NothingToUndo,
    /// The label is with the training.
    #[error("Too late to undo: the training has this label already.")]
    TooLate,
    /// Another label was given since.
    #[error("Another label was given since, so nothing was undone.")]
    NotTheLast,
    /// The comment is too long.
    #[error("The comment has more than {MAX_COMMENT} characters: shorten it.")]
    LongComment,
    /// Nobody waits for labels any more.
    #[error("The run takes no more labels: {0}.")]
    Closed(String),
    /// The file could not be written.
    #[error("The label was not taken: {0}.")]
    Unwritten(Error),
}
