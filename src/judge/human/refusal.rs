//! Why the desk refused a request of a person.

use super::desk::MAX_COMMENT;
use crate::error::Error;

/// A refusal: a sentence for the person. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The pair is not on the desk.
    #[error("This pair is no longer open, so the label was not saved.")]
    Gone,
    /// The pair has a label.
    #[error("This pair already has a label, so this one was not saved.")]
    Labelled,
    /// The form belongs to an earlier presentation of the pair, or to another pair.
    #[error("This form is out of date, so the label was not saved: look at the pair again.")]
    Stale,
    /// There is no label to undo.
    #[error("There is no label to undo.")]
    NothingToUndo,
    /// The trainer has taken the label.
    #[error("Too late to undo: the trainer already has this label.")]
    TooLate,
    /// Another label was given since.
    #[error("Another label was given since, so nothing was undone.")]
    NotTheLast,
    /// The comment is too long.
    #[error("The comment has more than {MAX_COMMENT} characters: shorten it.")]
    LongComment,
    /// The desk is closed.
    #[error("The run accepts no more labels: {0}.")]
    Closed(String),
    /// The file could not be written.
    #[error("The label was not saved: {0}.")]
    Unwritten(Error),
}
