//! Which of several shapes of a kernel runs here: the same results, at different speeds on different adapters.

/// How the lanes that compute a tile get at the operand that they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Every lane loads all of it.
    Nothing,
    /// The lanes of a workgroup load it into workgroup memory.
    Workgroup,
    /// The lanes of a subgroup load it and hand it round.
    Subgroup,
    /// The lanes of a subgroup multiply matrices of so many rows and columns together, see
    /// [`super::Arithmetic::Cooperative`].
    Matrices(u32),
}

/// The tile of a matrix product that some lanes compute together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Tile {
    /// How they share.
    pub sharing: Sharing,
    /// Lanes.
    pub lanes: u32,
    /// Rows of a lane.
    pub down: u32,
    /// Columns: a multiple of 8, and of `lanes` in a subgroup.
    pub cols: u32,
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tile { sharing, lanes, down, cols } = self;
        let sharing = match sharing {
            Sharing::Nothing => "share nothing",
            Sharing::Workgroup => "share by workgroup memory",
            Sharing::Subgroup => "share in a subgroup",
            Sharing::Matrices(_) => "share cooperative matrices",
        };
        write!(f, "{down} x {cols} a lane, {lanes} lanes {sharing}")
    }
}

/// What runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A GPU.
    Gpu,
    /// A processor, by a software driver.
    Processor,
}

/// The choices for an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tuning {
    /// For products of a few rows, as when decoding.
    pub few_rows: Tile,
    /// For other products of rows.
    pub rows: Tile,
    /// For products of columns: a weight's gradient. Four rows a lane and 16 columns.
    pub columns: Tile,
    /// Whether attention is unrolled over the lanes of a subgroup: good for the 8 lanes of a processor; the compilers of
    /// GPUs spill thousands of registers over 32 or 64.
    pub unrolled_attention: bool,
    /// Lanes of a workgroup at least. A GPU runs 32 or 64 in step whether they have work or not.
    pub least_lanes: u32,
}

/// Lanes of a workgroup that shares by its memory: each loads one of the 64 vectors of a stage.
pub const STAGE: u32 = 64;

impl Tuning {
    /// What is likely to do well where nothing was measured.
    pub fn untuned(subgroup: Option<u32>, kind: DeviceKind) -> Tuning {
        let all = Tuning::candidates(subgroup);
        Tuning {
            few_rows: all.few_rows[0],
            rows: all.rows[0],
            columns: all.columns[0],
            unrolled_attention: kind == DeviceKind::Processor,
            least_lanes: if kind == DeviceKind::Processor { 1 } else { 32 },
        }
    }

    /// What there is to choose from; the first of each is the choice where nothing was measured.
    pub fn candidates(subgroup: Option<u32>) -> Candidates {
        let tile = |sharing, lanes, down, cols| Tile { sharing, lanes, down, cols };
        let direct = |down, cols| tile(Sharing::Nothing, 8, down, cols);
        let staged = tile(Sharing::Workgroup, STAGE, 4, 16);
        let mut all = Candidates {
            few_rows: vec![direct(1, 32), tile(Sharing::Workgroup, STAGE, 1, 16)],
            rows: vec![direct(4, 16), staged],
            columns: vec![direct(4, 16), staged],
        };
        if let Some(lanes) = subgroup {
            let wide = lanes.max(16);
            let shared = |down, cols| tile(Sharing::Subgroup, lanes, down, cols);
            all.few_rows.insert(0, shared(1, lanes.max(32)));
            all.rows.insert(0, shared(64 / wide, wide));
            all.columns.insert(0, shared(4, 16));
            if lanes <= 16 {
                all.rows.push(shared(2, 32));
            }
        }
        all
    }
}

/// The tiles that a [`Tuning`] chooses from.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// For [`Tuning::few_rows`].
    pub few_rows: Vec<Tile>,
    /// For [`Tuning::rows`].
    pub rows: Vec<Tile>,
    /// For [`Tuning::columns`].
    pub columns: Vec<Tile>,
}
