//! Models: configuration and weights as Hugging Face stores them.

pub mod config;
pub mod safetensors_io;
