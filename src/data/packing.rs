//! Packing sequences into one stream of token rows: prefix trees, no batch axis, no padding.

/// A prompt and the responses that follow it. The prompt's rows are computed once for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Token ids of each response, at least one each.
    pub responses: Vec<Vec<u32>>,
}

impl Tree {
    /// The number of rows of the tree. A response's last token is only predicted, so it takes no row.
    pub fn rows(&self) -> usize {
        self.prompt.len() + self.responses.iter().map(|r| r.len().saturating_sub(1)).sum::<usize>()
    }

    /// The number of target rows: one for each response token.
    pub fn targets(&self) -> usize {
        self.responses.iter().map(Vec::len).sum()
    }

    /// The length of the longest sequence.
    pub fn length(&self) -> usize {
        self.prompt.len() + self.responses.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Returns the same sequences with the prompt repeated for each response.
    pub fn unshared(&self) -> Vec<Tree> {
        let alone = |r: &Vec<u32>| Tree { prompt: self.prompt.clone(), responses: vec![r.clone()] };
        self.responses.iter().map(alone).collect()
    }
}

/// The inverse index of a gather: for each row of the table, the positions that gathered it. It allows the gradient of
/// a gather to be computed without atomics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inverse {
    /// Rows of the table, (U).
    pub rows: Vec<u32>,
    /// The start of each row's positions in `order`, (U + 1).
    pub offsets: Vec<u32>,
    /// Positions of the gathered stream, sorted by row, then position.
    pub order: Vec<u32>,
}

impl Inverse {
    /// The inverse for the rows that occur.
    pub fn of(indices: &[u32]) -> Inverse {
        let mut order: Vec<u32> = (0..indices.len() as u32).collect();
        order.sort_by_key(|t| (indices[*t as usize], *t));
        let mut inverse = Inverse { order, ..Inverse::default() };
        for (at, t) in inverse.order.iter().enumerate() {
            let row = indices[*t as usize];
            if inverse.rows.last() != Some(&row) {
                inverse.rows.push(row);
                inverse.offsets.push(at as u32);
            }
        }
        inverse.offsets.push(indices.len() as u32);
        inverse
    }

    /// The inverse for every row below `rows`, whether it occurs or not.
    pub fn of_all(indices: &[u32], rows: usize) -> Inverse {
        let mut order: Vec<u32> = (0..indices.len() as u32).collect();
        order.sort_by_key(|t| (indices[*t as usize], *t));
        let mut offsets = vec![0u32; rows + 1];
        for row in indices {
            offsets[*row as usize + 1] += 1;
        }
        for row in 0..rows {
            offsets[row + 1] += offsets[row];
        }
        Inverse { rows: (0..rows as u32).collect(), offsets, order }
    }
}

/// Trees laid out end to end: prompt, response 1, response 2, … They have passed the checks of
/// [`Stream`](crate::model::stream::Stream).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Token ids, (N).
    pub ids: Vec<u32>,
    /// The key rows that each row attends to, (N): start and end of the prefix, start and end of its own sequence. The
    /// ranges are half-open, and the row itself is the last key. The number of keys is the row's position in its
    /// sequence plus one.
    pub spans: Vec<[u32; 4]>,
    /// The end of the rows that attend to this row as a key, (N). The range starts at the row itself.
    pub ends: Vec<u32>,
    /// The row that predicts each target, (T).
    pub target_rows: Vec<u32>,
    /// The token that is predicted, (T).
    pub target_ids: Vec<u32>,
    /// The first target of each sequence, and the number of targets, (S + 1).
    pub offsets: Vec<u32>,
}

/// A prompt, branches that follow it, and tokens that may follow each branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChoiceTree {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Token ids of each branch, at least one each.
    pub branches: Vec<Vec<u32>>,
    /// The tokens whose probabilities are computed after each branch.
    pub choices: Vec<u32>,
}

impl ChoiceTree {
    /// The number of rows of the tree.
    pub fn rows(&self) -> usize {
        self.prompt.len() + self.branches.iter().map(Vec::len).sum::<usize>()
    }
}

impl Packed {
    /// Each row's position in its sequence, (N).
    pub fn positions(&self) -> Vec<u32> {
        self.spans.iter().map(|s| (s[1] - s[0] + s[3] - s[2]).saturating_sub(1)).collect()
    }

    /// Packs `trees` in order. Each branch is a sequence. Its targets are the choices, all predicted by its last token.
    pub fn of_choices<'a>(trees: impl IntoIterator<Item = &'a ChoiceTree>) -> Packed {
        let mut packed = Packed { offsets: vec![0], ..Packed::default() };
        for tree in trees {
            let start = packed.prompt(&tree.prompt, tree.rows());
            for branch in &tree.branches {
                assert!(!branch.is_empty(), "a branch needs at least one token");
                let last = packed.branch(start, tree.prompt.len(), branch);
                packed.target_rows.extend(tree.choices.iter().map(|_| last));
                packed.target_ids.extend(&tree.choices);
                packed.offsets.push(packed.target_ids.len() as u32);
            }
        }
        packed
    }

    /// Packs `trees` in order. Sequences are numbered tree by tree, response by response.
    pub fn new<'a>(trees: impl IntoIterator<Item = &'a Tree>) -> Packed {
        let mut packed = Packed { offsets: vec![0], ..Packed::default() };
        for tree in trees {
            packed.push(tree);
        }
        packed
    }

    fn push(&mut self, tree: &Tree) {
        let start = self.prompt(&tree.prompt, tree.rows());
        for response in &tree.responses {
            assert!(!response.is_empty(), "a response needs at least one token");
            let own = self.ids.len() as u32;
            self.branch(start, tree.prompt.len(), &response[..response.len() - 1]);
            for (i, id) in response.iter().enumerate() {
                let prompt_end = start + tree.prompt.len() as u32;
                self.target_rows.push(if i == 0 { prompt_end - 1 } else { own + i as u32 - 1 });
                self.target_ids.push(*id);
            }
            self.offsets.push(self.target_ids.len() as u32);
        }
    }

    /// Adds the prompt of a tree with `rows` rows in total; returns its first row.
    fn prompt(&mut self, prompt: &[u32], rows: usize) -> u32 {
        assert!(!prompt.is_empty(), "a prompt needs at least one token");
        let start = self.ids.len() as u32;
        for (i, id) in prompt.iter().enumerate() {
            let row = start + i as u32;
            self.row(*id, [start, start, start, row + 1], start + rows as u32);
        }
        start
    }

    /// Adds tokens that follow the prompt at row `start`; returns their last row.
    fn branch(&mut self, start: u32, prompt: usize, ids: &[u32]) -> u32 {
        let own = self.ids.len() as u32;
        let end = own + ids.len() as u32;
        for (i, id) in ids.iter().enumerate() {
            let row = own + i as u32;
            self.row(*id, [start, start + prompt as u32, own, row + 1], end);
        }
        end.wrapping_sub(1)
    }

    fn row(&mut self, id: u32, span: [u32; 4], end: u32) {
        self.ids.push(id);
        self.spans.push(span);
        self.ends.push(end);
    }

    /// The number of sequences.
    pub fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Packed {
        let a = Tree { prompt: vec![1, 5, 6], responses: vec![vec![7, 8, 2], vec![9]] };
        let b = Tree { prompt: vec![1], responses: vec![vec![3, 2]] };
        Packed::new([&a, &b])
    }

    #[test]
    fn rows_of_a_pair_are_prompt_plus_responses() {
        let pair = Tree { prompt: vec![0; 400], responses: vec![vec![0; 50], vec![0; 50]] };
        assert_eq!(pair.rows(), 498);
        assert_eq!(pair.unshared().iter().map(Tree::rows).sum::<usize>(), 898);
    }

    #[test]
    fn the_first_token_of_each_response_is_predicted_by_the_prompts_last_row() {
        let p = example();
        assert_eq!(p.ids, [1, 5, 6, 7, 8, 1, 3]);
        assert_eq!(p.target_rows, [2, 3, 4, 2, 5, 6]);
        assert_eq!(p.target_ids, [7, 8, 2, 9, 3, 2]);
        assert_eq!(p.offsets, [0, 3, 4, 6]);
    }

    #[test]
    fn key_spans_and_query_ends_agree() {
        let p = example();
        for (query, span) in p.spans.iter().enumerate() {
            for key in 0..p.ids.len() as u32 {
                let seen = (span[0]..span[1]).contains(&key) || (span[2]..span[3]).contains(&key);
                let from_key = (key..p.ends[key as usize]).contains(&(query as u32));
                assert_eq!(seen, from_key, "query {query}, key {key}");
            }
        }
    }

    #[test]
    fn an_inverse_lists_every_position_once_under_its_row() {
        let indices = [4, 1, 4, 0, 1, 4];
        let sparse = Inverse::of(&indices);
        assert_eq!((sparse.rows, sparse.offsets), (vec![0, 1, 4], vec![0, 1, 3, 6]));
        assert_eq!(sparse.order, [3, 1, 4, 0, 2, 5]);
        let dense = Inverse::of_all(&indices, 6);
        assert_eq!(dense.offsets, [0, 1, 3, 3, 3, 6, 6]);
        assert_eq!(dense.order, [3, 1, 4, 0, 2, 5]);
    }
}
