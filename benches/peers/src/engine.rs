//! What the benchmark asks of every engine.

/// Whatever went wrong, in a sentence.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A model on a device, with a batch to pass through it.
pub trait Engine {
    /// The GPU's name as the engine gives it.
    fn gpu(&self) -> String;

    /// Forward pass, and the gradients of every weight. Returns the mean cross-entropy of the next tokens, in nats,
    /// when everything has been computed.
    fn step(&mut self) -> Result<f64>;

    /// Euclidean norms of the gradients that one step gave, with the weights' Hugging Face names: several where the
    /// engine keeps their gradients as one.
    fn gradient_norms(&mut self) -> Result<Vec<(Vec<String>, f64)>>;
}

/// Euclidean norm.
pub fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| (*v as f64).powi(2)).sum::<f64>().sqrt()
}
