//! Tests the examples in README.md as doctests.

#![doc = include_str!("../README.md")]
