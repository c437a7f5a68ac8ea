//! What may be sent in all: requests, and money.

use super::options::OpenAiOptions;
use crate::judge::queue::Usage;

/// What is allowed, and what of it is used. Requests that are on their way are expected to cost what their length lets
/// expect, so that together they do not exceed what is left.
#[derive(Debug)]
pub(super) struct Budget {
    max_requests: Option<u64>,
    max_cost: Option<f64>,
    requests: u64,
    cost: f64,
    expected: f64,
}

impl Budget {
    pub fn new(options: &OpenAiOptions) -> Budget {
        let (max_requests, max_cost) = (options.max_requests, options.max_cost);
        Budget { max_requests, max_cost, requests: 0, cost: 0.0, expected: 0.0 }
    }

    /// Counts what was used by an earlier process.
    pub fn used_before(&mut self, usage: Usage) {
        self.requests += usage.requests;
        self.cost += usage.cost;
    }

    /// Whether so many more requests may be sent, and so much more be spent.
    pub fn allows(&self, requests: u64, cost: f64) -> bool {
        self.max_requests.is_none_or(|max| self.requests.saturating_add(requests) <= max)
            && self.max_cost.is_none_or(|max| self.cost + self.expected + cost <= max)
    }

    /// A request goes out.
    pub fn start(&mut self, expected: f64) {
        self.requests += 1;
        self.expected += expected;
    }

    /// It is back.
    pub fn finish(&mut self, expected: f64, cost: f64) {
        self.expected -= expected;
        self.cost += cost;
    }

    /// That nothing more is allowed, and the way out.
    pub fn spent(&self) -> String {
        let (requests, cost) = (self.requests, self.cost);
        let of = |max: String, option: &str| {
            format!(
                "the budget is spent ({max}): what was answered is kept; raise {option} and resume to go on"
            )
        };
        match (self.max_requests, self.max_cost) {
            // A question takes more than one request.
            (Some(max), _) if !self.allows(1, 0.0) || self.max_cost.is_none() => of(
                format!("{requests} of {max} requests, and the next question would exceed them"),
                "judge-max-requests",
            ),
            (_, max) => {
                let max = max.unwrap_or_default();
                of(format!("{cost:.4} of {max}, and the next question would exceed it"), "judge-max-cost")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_money_are_limits_of_their_own() {
        let options = OpenAiOptions { max_requests: Some(3), max_cost: Some(1.0), ..Default::default() };
        let mut budget = Budget::new(&options);
        budget.used_before(Usage { requests: 1, cost: 0.25, ..Usage::default() });
        assert!(budget.allows(2, 0.75) && !budget.allows(3, 0.0) && !budget.allows(1, 0.76));
        budget.start(0.5);
        assert!(budget.allows(1, 0.25) && !budget.allows(1, 0.26));
        budget.finish(0.5, 0.7);
        assert!(budget.allows(1, 0.0) && !budget.allows(1, 0.1));
        assert!(budget.spent().contains("judge-max-cost"), "{}", budget.spent());
        budget.start(0.0);
        assert!(budget.spent().contains("3 of 3 requests"), "{}", budget.spent());
    }
}
