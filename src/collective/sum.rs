//! Sums of the ranks' numbers.
//!
//! Each rank adds up a part of them, in the ranks' order, and gives the sums to all: every number is added up once, in one
//! order, so that a run on n ranks gives the same bits each time, on each of them. Of B bytes a rank sends 2 B (n − 1) / n,
//! which is the least that an all-reduce can do with.

use serde::{Deserialize, Serialize};

use super::ranks::{Ranks, part_of};
use crate::error::{Error, Result};

/// How numbers are sent. They are added up in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SumDtype {
    /// As they are.
    #[default]
    F32,
    /// In half of the bytes: what is sent is rounded to 8 bits of precision, each rank's numbers and the sums.
    Bf16,
}

impl SumDtype {
    /// Bytes of a number.
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

    /// Calls `each` with every number and its place.
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
    /// Puts in the place of each number its sum over all ranks, each of which gives as many.
    ///
    /// # Errors
    /// [`Error::Ranks`] where one cannot be reached, or gave another count.
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
    /// Everyone's numbers, in the ranks' order.
    ///
    /// # Errors
    /// [`Error::Ranks`] where one cannot be reached.
    pub async fn exchange(&self, mine: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        if self.is_alone() {
            return Ok(vec![mine]);
        }
        let all = self.all_gather(SumDtype::F32.pack(&mine)).await?;
        Ok(all.iter().map(|bytes| numbers(bytes)).collect())
    }

    /// All ranks' numbers one after the other, on rank 0; elsewhere none.
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
        false => Err(Error::Ranks(format!("rank {rank} sent {} bytes where {expected} belong", bytes.len()))),
    }
}
