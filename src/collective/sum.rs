//! Sums over the ranks.
//!
//! Each rank adds up one part of the numbers, in the order of the ranks, and sends the sums to all. Every sum is
//! computed once, in one order, so that a run on n ranks gives the same bits every time and on every rank. For B bytes,
//! a rank sends 2 B (n − 1) / n, which is optimal for an all-reduce.

use serde::{Deserialize, Serialize};

use super::ranks::{Ranks, part_of};
use crate::error::{Error, Result};

/// The format in which numbers are sent. They are added up in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SumDtype {
    /// Unchanged.
    #[default]
    F32,
    /// Half of the bytes: the numbers of each rank and the sums are rounded to 8 bits of precision.
    Bf16,
}

impl SumDtype {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        match self {
            SumDtype::F32 => 4,
            SumDtype::Bf16 => 2,
        }
    }

    fn pack(self, numbers: &[f32]) -> Vec<u8> {
        match self {
            SumDtype::F32 => bytemuck::cast_slice(numbers).to_vec(),
            SumDtype::Bf16 => {
                numbers.iter().flat_map(|number| half::bf16::from_f32(*number).to_le_bytes()).collect()
            }
        }
    }

    /// Calls `each` with the index and value of every number.
    fn unpack(self, bytes: &[u8], mut each: impl FnMut(usize, f32)) {
        match self {
            SumDtype::F32 => {
                let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                numbers.enumerate().for_each(|(i, number)| each(i, number));
            }
            SumDtype::Bf16 => {
                let numbers = bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32());
                numbers.enumerate().for_each(|(i, number)| each(i, number));
            }
        }
    }
}

impl Ranks {
    /// Replaces each number by its sum over all ranks. Every rank must pass the same count.
    ///
    /// # Errors
    /// [`Error::Ranks`] if a rank cannot be reached or passed another count.
    pub async fn sum(&self, numbers: &mut [f32], dtype: SumDtype) -> Result<()> {
        if self.is_alone() {
            return Ok(());
        }
        let (len, size) = (numbers.len(), self.size());
        let parts = (0..size).map(|rank| dtype.pack(&numbers[part_of(len, rank, size)])).collect();
        let mine = self.part(len);
        let mut sums = vec![0.0; mine.len()];
        for (rank, bytes) in self.all_to_all(parts).await?.iter().enumerate() {
            check_length(rank, bytes, mine.len() * dtype.bytes())?;
            dtype.unpack(bytes, |i, number| sums[i] += number);
        }
        for (rank, bytes) in self.all_gather(dtype.pack(&sums)).await?.iter().enumerate() {
            let part = part_of(len, rank, size);
            check_length(rank, bytes, part.len() * dtype.bytes())?;
            let place = &mut numbers[part];
            dtype.unpack(bytes, |i, sum| place[i] = sum);
        }
        Ok(())
    }
}

impl Ranks {
    /// Returns the numbers of every rank, in the order of the ranks.
    ///
    /// # Errors
    /// [`Error::Ranks`] if a rank cannot be reached.
    pub async fn exchange(&self, mine: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        if self.is_alone() {
            return Ok(vec![mine]);
        }
        let all = self.all_gather(SumDtype::F32.pack(&mine)).await?;
        Ok(all.iter().map(|bytes| numbers(bytes)).collect())
    }

    /// Concatenates the numbers of all ranks on rank 0. Returns an empty list on the other ranks.
    ///
    /// # Errors
    /// As [`Ranks::exchange`].
    pub async fn to_first(&self, mine: &[f32]) -> Result<Vec<f32>> {
        let mut parts = vec![Vec::new(); self.size()];
        parts[0] = SumDtype::F32.pack(mine);
        let came = self.all_to_all(parts).await?;
        Ok(came.iter().flat_map(|bytes| numbers(bytes)).collect())
    }
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / 4];
    SumDtype::F32.unpack(bytes, |i, number| out[i] = number);
    out
}

fn check_length(rank: usize, bytes: &[u8], expected: usize) -> Result<()> {
    match bytes.len() == expected {
        true => Ok(()),
        false => {
            Err(Error::Ranks(format!("rank {rank} sent {} bytes, but {expected} were expected", bytes.len())))
        }
    }
}
