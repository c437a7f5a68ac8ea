//! Mutations of bytes, and of JSON values if the input contains some.

use serde_json::{Map, Value, json};

/// SplitMix64, a small random number generator.
pub struct Mutator(u64);

/// Numbers, words and texts that often break parsers.
const TOKENS: [&str; 40] = [
    "",
    "null",
    "true",
    "-1",
    "0",
    "1e308",
    "18446744073709551615",
    "9223372036854775807",
    "2147483648",
    "NaN",
    "Infinity",
    "\"",
    "\\u0000",
    "\\ud83d",
    "{",
    "}",
    "[",
    "]",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "<s>",
    "</s>",
    "<unk>",
    "\u{feff}",
    "\r\n",
    "▁",
    "é",
    "\u{200d}",
    "../",
    "namespace()",
    "range(99999)",
    "for x in messages",
    "endfor",
    "set a = a ~ a",
    "raise_exception('x')",
    "[[[[[[[[",
    "tojson(indent=999999999)",
];

impl Mutator {
    /// The mutator for execution `number` under `seed`.
    pub fn new(seed: u64, number: u64) -> Mutator {
        Mutator(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in 0..limit; 0 if the limit is 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// An input of the corpus with one to four mutations.
    pub fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.of(corpus).clone();
        for _ in 0..1 + self.below(4) {
            let as_json: Option<Value> = serde_json::from_slice(&input).ok();
            match as_json {
                Some(mut value) if self.below(3) > 0 => {
                    self.change(&mut value, 0);
                    input = value.to_string().into_bytes();
                }
                _ => self.bytes(&mut input, corpus),
            }
        }
        input
    }

    fn bytes(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = at + self.below((input.len() - at + 1).min(64));
        match self.below(8) {
            0 => {
                let bit = 1 << self.below(8);
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= bit;
                }
            }
            1 => drop(input.drain(at..end)),
            2 => input.truncate(at),
            3 => {
                let byte = self.next() as u8;
                input.insert(at, byte);
            }
            4 => {
                let copy = input[at..end].to_vec();
                let times = 1 + self.below(8);
                input.splice(at..at, copy.repeat(times));
            }
            5 => {
                let other = self.of(corpus);
                let from = self.below(other.len() + 1);
                let to = from + self.below(other.len() - from + 1);
                input.splice(at..end, other[from..to].iter().copied());
            }
            6 if at + 8 <= input.len() => {
                let number = *self.of(&[0u64, 1, 7, 8, 255, 1 << 20, 1 << 31, 1 << 40, 1 << 62, u64::MAX]);
                input[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            _ => {
                let token = self.of(&TOKENS).as_bytes();
                input.splice(at..end, token.iter().copied());
            }
        }
    }

    /// Mutates the value, or a value within it.
    fn change(&mut self, value: &mut Value, depth: usize) {
        match value {
            Value::Object(map) if !map.is_empty() && self.below(6) > 0 => {
                let key = map.keys().nth(self.below(map.len())).expect("below its length").clone();
                match self.below(8) {
                    0 => drop(map.remove(&key)),
                    1 => {
                        let moved = map.remove(&key).expect("it is there");
                        map.insert((*self.of(&TOKENS)).to_owned(), moved);
                    }
                    _ => self.change(map.get_mut(&key).expect("it is there"), depth + 1),
                }
            }
            Value::Array(list) if !list.is_empty() && self.below(6) > 0 => {
                let at = self.below(list.len());
                match self.below(8) {
                    0 => drop(list.remove(at)),
                    1 => {
                        let copy = list[at].clone();
                        list.extend(std::iter::repeat_n(copy, 1 + self.next() as usize % 5));
                    }
                    _ => self.change(&mut list[at], depth + 1),
                }
            }
            Value::String(text) if self.below(2) == 0 => {
                let mut bytes = text.clone().into_bytes();
                self.bytes(&mut bytes, &[TOKENS.join(" ").into_bytes()]);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            _ => *value = self.value(depth),
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        let token = (*self.of(&TOKENS)).to_owned();
        match self.below(12) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.next()),
            3 => json!(-(self.below(1 << 40) as i64)),
            4 => json!(*self.of(&[0i64, 1, -1, 2, 7, 512, 65_536, i32::MAX as i64, 1 << 32, i64::MAX])),
            5 => json!(f64::from_bits(self.next()).clamp(-1e300, 1e300)),
            6 => json!(token.repeat(1 + self.below(40))),
            7 => json!([]),
            8 => json!(Map::new()),
            9 if depth < 8 => json!([self.value(depth + 1), self.value(depth + 1)]),
            10 if depth < 8 => Value::Object(Map::from_iter([(token, self.value(depth + 1))])),
            _ => json!(token),
        }
    }
}
