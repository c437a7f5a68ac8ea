//! The interface of all engines.

/// The error is a message.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A model on a device, with a batch to pass through it.
pub trait Engine {
    /// The GPU's name as reported by the engine.
    fn gpu(&self) -> String;

    /// Runs the forward pass and computes the gradients of every weight. Returns the mean cross-entropy of the next
    /// tokens, in nats, when everything is computed.
    fn step(&mut self) -> Result<f64>;

    /// Returns the Euclidean norms of the gradients of one step, with the weights' Hugging Face names: several names if
    /// the engine stores their gradients as one.
    fn gradient_norms(&mut self) -> Result<Vec<(Vec<String>, f64)>>;
}

/// Euclidean norm.
pub fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| (*v as f64).powi(2)).sum::<f64>().sqrt()
}
