//! Random arguments, and whether they follow the rules of the calls.

use oaif::unstable::data::packing::Tree;
use oaif::unstable::model::stream::Capacity;

/// The vocabulary size of tests/fixtures/tiny.
pub const VOCAB: u32 = 96;
pub const CONTEXT: usize = 128;
pub const CAPACITY: Capacity = Capacity { tokens: 150, targets: 140, sequences: 4 };

/// Random numbers from a seed (SplitMix64).
pub struct Draws(pub u64);

impl Draws {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly one of `good`, sometimes one of `bad`.
    pub fn mostly<T: Clone>(&mut self, good: &[T], bad: &[T]) -> T {
        if self.once_in(4) { self.of(bad) } else { self.of(good) }
    }

    pub fn ids(&mut self, lengths: &[usize]) -> Vec<u32> {
        let length = self.of(lengths);
        let mut ids: Vec<u32> = (0..length).map(|_| self.below(VOCAB as usize) as u32).collect();
        if length > 0 && self.once_in(12) {
            let at = self.below(length);
            ids[at] = self.of(&[VOCAB, VOCAB + 1, 512, i32::MAX as u32, u32::MAX - 1, u32::MAX]);
        }
        ids
    }

    pub fn tree(&mut self, responses: &[usize]) -> Tree {
        let prompt = self.ids(&[1, 1, 2, 3, 5, 8, 9, 20, 0, 120, 127, 128, 129, 3000]);
        let responses = (0..self.of(responses)).map(|_| self.ids(&[1, 1, 2, 3, 4, 7, 9, 0, 140]));
        Tree { prompt, responses: responses.collect() }
    }
}

pub fn known(ids: &[u32]) -> bool {
    !ids.is_empty() && ids.iter().all(|id| *id < VOCAB)
}

/// Whether the prompt and every response have at least one token, all tokens are in the vocabulary, and the length is
/// within the context; the last token of a response takes no row, so it may lie one beyond the context.
pub fn readable(tree: &Tree) -> bool {
    let rows = |response: &Vec<u32>| tree.prompt.len() + response.len() - 1;
    known(&tree.prompt)
        && tree.prompt.len() <= CONTEXT
        && tree.responses.iter().all(|r| known(r) && rows(r) <= CONTEXT)
}

pub fn fits(trees: &[Tree]) -> bool {
    let all: Vec<&Vec<u32>> = trees.iter().flat_map(|t| &t.responses).collect();
    let prompts: usize = trees.iter().map(|t| t.prompt.len()).sum();
    let targets: usize = all.iter().map(|r| r.len()).sum();
    prompts + targets - all.len() <= CAPACITY.tokens
        && targets <= CAPACITY.targets
        && all.len() <= CAPACITY.sequences
}
