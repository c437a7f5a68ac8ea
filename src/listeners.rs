//! Functions that are called when something shared changes.

use std::sync::{Arc, Mutex, PoisonError};

type Listener = Arc<dyn Fn() -> bool + Send + Sync>;

/// Functions that are called after a change; each until it returns `false`.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<Listener>>);

impl Listeners {
    /// Adds a function.
    pub fn add(&self, listener: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(listener));
    }

    /// Calls all functions, which may add others.
    pub fn call(&self) {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let gone: Vec<Listener> = listeners.into_iter().filter(|listener| !listener()).collect();
        if !gone.is_empty() {
            let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.retain(|listener| !gone.iter().any(|gone| Arc::ptr_eq(gone, listener)));
        }
    }
}
