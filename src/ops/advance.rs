//! Moving the sequences that are being generated on by one token.

use crate::gpu::{Groups, Launch, Recorder, Tensor, Work, read, write};

/// The state of the slots that generate, all with S rows.
#[derive(Clone, Copy)]
pub struct DecodeSlots {
    /// The token that each slot reads next, (S, 1).
    pub tokens: Tensor,
    /// Its position, (S, 1).
    pub positions: Tensor,
    /// The cache rows that it sees, its own the last, (S, 4).
    pub spans: Tensor,
    /// (active, generated so far, limit, 0), (S, 4).
    pub slots: Tensor,
    /// What was generated, (S, LEN).
    pub history: Tensor,
}

/// Gives each active slot its sampled token: notes it, stops at `eos` (E, 1) or the limit, else moves on.
pub fn decode_advance(r: &mut Recorder, sampled: Tensor, eos: Tensor, s: DecodeSlots) {
    r.launch(Launch {
        kernel: "decode_advance",
        constants: vec![],
        params: vec![
            ("slots", sampled.rows.into()),
            ("eos", eos.rows.into()),
            ("len", s.history.cols.into()),
        ],
        args: vec![
            read("sampled", sampled),
            read("eos", eos),
            write("tokens", s.tokens),
            write("positions", s.positions),
            write("spans", s.spans).vec4(),
            write("slots", s.slots).vec4(),
            write("history", s.history),
        ],
        groups: Groups::over(sampled.rows, 64),
        work: Work { flops: 0.0, bytes: 64.0 },
    });
}
