//! Tests that every implementation of `Collective` has to pass: over TCP (`main.rs`) and over MPI (`tests/mpi.rs`).

use oaif::block_on;
use oaif::unstable::collective::Collective;

/// Random numbers, the same on all ranks (splitmix64).
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A size: often empty or small, sometimes large.
    fn size(&mut self) -> usize {
        match self.next() % 10 {
            0..=2 => 0,
            3..=6 => (self.next() % 100) as usize,
            7..=8 => (self.next() % 100_000) as usize,
            _ => (self.next() % 3_000_000) as usize,
        }
    }
}

/// The bytes sent from one rank to another in an operation. Every rank can generate them.
pub fn content(seed: u64, from: usize, to: usize, size: usize) -> Vec<u8> {
    let mut draw = Draw(seed ^ ((from as u64) << 32) ^ ((to as u64) << 48));
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend(draw.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn must_equal(found: &[Vec<u8>], expected: &[Vec<u8>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (rank, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(found == expected, "{what}: from rank {rank}: {} bytes, not {}", found.len(), expected.len());
    }
}

type Check<'a> = Box<dyn FnOnce() + 'a>;

/// Posts one random operation. The returned check waits for it and compares the result.
fn post<'a>(ranks: &'a dyn Collective, draw: &mut Draw, size: &dyn Fn(&mut Draw) -> usize) -> Check<'a> {
    let (me, n, seed) = (ranks.rank(), ranks.size(), draw.next());
    match draw.next() % 4 {
        0 => {
            let sizes: Vec<usize> = (0..n).map(|_| size(draw)).collect();
            let task = ranks.all_gather(content(seed, me, 0, sizes[me]));
            Box::new(move || {
                let expected: Vec<_> = (0..n).map(|from| content(seed, from, 0, sizes[from])).collect();
                must_equal(&block_on(task).unwrap(), &expected, "all_gather");
            })
        }
        1 => {
            let sizes: Vec<usize> = (0..n * n).map(|_| size(draw)).collect();
            let task = ranks.all_to_all((0..n).map(|to| content(seed, me, to, sizes[me * n + to])).collect());
            Box::new(move || {
                let expected: Vec<_> =
                    (0..n).map(|from| content(seed, from, me, sizes[from * n + me])).collect();
                must_equal(&block_on(task).unwrap(), &expected, "all_to_all");
            })
        }
        2 => {
            let size = size(draw);
            // The bytes of the other ranks are ignored.
            let task = ranks.broadcast(if me == 0 { content(seed, 0, 0, size) } else { vec![7; me * 3] });
            Box::new(move || {
                must_equal(&[block_on(task).unwrap()], &[content(seed, 0, 0, size)], "broadcast")
            })
        }
        _ => {
            let task = ranks.barrier();
            Box::new(move || block_on(task).unwrap())
        }
    }
}

/// Random operations one by one, many at once, with dropped futures, and large ones.
pub fn run(ranks: &dyn Collective, seed: u64) {
    let draw = &mut Draw(seed);
    let any = |draw: &mut Draw| draw.size();
    for _ in 0..40 {
        post(ranks, draw, &any)();
    }
    for _ in 0..5 {
        let mut checks: Vec<Check> = (0..8).map(|_| post(ranks, draw, &any)).collect();
        while !checks.is_empty() {
            // In a different order on each rank; some are never awaited.
            let at = (draw.next() as usize + ranks.rank()) % checks.len();
            let check = checks.swap_remove(at);
            if !checks.len().is_multiple_of(3) {
                check();
            }
        }
    }
    // Every rank sends a large part to every rank at once.
    let large = |draw: &mut Draw| 20_000_000 + (draw.next() % 1000) as usize;
    for _ in 0..4 {
        post(ranks, draw, &large)();
    }
    block_on(ranks.barrier()).unwrap();
}
