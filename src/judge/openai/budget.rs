//! Limits on the total number of requests and on the total cost.

use super::options::OpenAiOptions;
use crate::judge::queue::Usage;

/// The limits and what has been used of them. Requests in flight count with their expected cost, so that together they
/// do not exceed the limit.
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

    /// Adds the usage of earlier processes.
    pub fn used_before(&mut self, usage: Usage) {
        self.requests += usage.requests;
        self.cost += usage.cost;
    }

    /// Whether `requests` more requests may be sent and `cost` more may be spent.
    pub fn allows(&self, requests: u64, cost: f64) -> bool {
        self.max_requests.is_none_or(|max| self.requests.saturating_add(requests) <= max)
            && self.max_cost.is_none_or(|max| self.cost + self.expected + cost <= max)
    }

    /// Records that a request is sent.
    pub fn start(&mut self, expected: f64) {
        self.requests += 1;
        self.expected += expected;
    }

    /// Records that a request has ended.
    pub fn finish(&mut self, expected: f64, cost: f64) {
        self.expected -= expected;
        self.cost += cost;
    }

    /// The message that the budget is spent, with the way out.
    pub fn spent(&self) -> String {
        let (requests, cost) = (self.requests, self.cost);
        let of = |max: String, option: &str| {
            format!("the budget is spent ({max}): the answers so far are kept; raise {option} and resume")
        };
        match (self.max_requests, self.max_cost) {
            // A question may take more than one request.
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
    fn requests_and_cost_are_limited_separately() {
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
