//! Dataset rows, chat templates and the tokenizer.

pub mod chat;
pub mod encoder;
pub mod packing;
pub mod rows;
pub mod tokenizer;
