//! Random values that cannot be guessed.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// The number of latest pages whose requests are accepted.
const PAGES: usize = 256;

/// 128 bits from the operating system, in hexadecimal digits.
pub(super) fn random() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::config("ui", format!("the system provides no random numbers ({e})")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Compares two secrets in constant time.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// The values given to pages; a request proves with it that it comes from one of them.
#[derive(Default)]
pub(super) struct PageValues(Mutex<VecDeque<String>>);

impl PageValues {
    /// Issues a value for a new page.
    pub fn issue(&self) -> Result<String> {
        let value = random()?;
        let mut issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if issued.len() == PAGES {
            issued.pop_front();
        }
        issued.push_back(value.clone());
        Ok(value)
    }

    /// Whether a page was given this value.
    pub fn knows(&self, value: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|issued| same(issued, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_128_bits_and_differ() {
        let (a, b) = (random().unwrap(), random().unwrap());
        assert_eq!((a.len(), b.len()), (32, 32));
        assert!(a != b && same(&a, &a.clone()) && !same(&a, &b) && !same(&a, &a[1..]));
    }

    #[test]
    fn the_values_of_the_latest_pages_are_known() {
        let values = PageValues::default();
        let issued: Vec<String> = (0..=PAGES).map(|_| values.issue().unwrap()).collect();
        assert!(!values.knows(&issued[0]) && !values.knows(""));
        assert!(issued[1..].iter().all(|value| values.knows(value)));
    }
}
