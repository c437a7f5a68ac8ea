//! The subset of Thrift's compact protocol that Parquet's metadata uses.

/// The limit of nested values; Parquet needs less than ten levels.
const DEPTH: usize = 32;

/// A value. Numbers of all widths share a variant, and so do strings and bytes, whose content is dropped.
#[derive(Debug)]
pub(super) enum Thrift {
    Number(i64),
    Bytes,
    List(Vec<Thrift>),
    Struct(Vec<(i16, Thrift)>),
}

impl Thrift {
    /// Returns a field of a struct.
    pub fn field(&self, id: i16) -> Option<&Thrift> {
        match self {
            Thrift::Struct(fields) => fields.iter().find(|(field, _)| *field == id).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns a number in a struct.
    pub fn number(&self, id: i16) -> Option<i64> {
        match self.field(id)? {
            Thrift::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns a list in a struct.
    pub fn list(&self, id: i16) -> &[Thrift] {
        match self.field(id) {
            Some(Thrift::List(list)) => list,
            _ => &[],
        }
    }
}

/// Reads the struct at the beginning of `bytes`, and returns it with its length; `None` if it is invalid.
pub(super) fn read(bytes: &[u8]) -> Option<(Thrift, usize)> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.fields(0)?;
    Some((value, reader.at))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn pass(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|end| *end <= self.bytes.len())?;
        Some(())
    }

    fn fields(&mut self, depth: usize) -> Option<Thrift> {
        let (mut fields, mut id) = (Vec::new(), 0i16);
        loop {
            let header = self.byte()?;
            let kind = header & 0x0f;
            if kind == 0 {
                return Some(Thrift::Struct(fields));
            }
            id = match header >> 4 {
                0 => i16::try_from(self.number()?).ok()?,
                more => id.checked_add(more.into())?,
            };
            // In a field of a struct, the type itself encodes a boolean.
            let value = match kind {
                1 | 2 => Thrift::Number((kind == 1).into()),
                kind => self.value(kind, depth + 1)?,
            };
            fields.push((id, value));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Option<Thrift> {
        if depth > DEPTH {
            return None;
        }
        Some(match kind {
            1..=3 => Thrift::Number(self.byte()?.into()),
            4..=6 => Thrift::Number(self.number()?),
            7 => {
                self.pass(8)?;
                Thrift::Bytes
            }
            8 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.pass(length)?;
                Thrift::Bytes
            }
            9 | 10 => self.elements(depth)?,
            12 => self.fields(depth)?,
            // Parquet has no maps.
            _ => return None,
        })
    }

    fn elements(&mut self, depth: usize) -> Option<Thrift> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => usize::try_from(self.varint()?).ok()?,
            few => few.into(),
        };
        // Each element takes at least one byte.
        if count > self.bytes.len() - self.at {
            return None;
        }
        let values = (0..count).map(|_| self.value(header & 0x0f, depth + 1));
        values.collect::<Option<Vec<_>>>().map(Thrift::List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_struct_is_read_and_one_with_wrong_lengths_is_rejected() {
        // {1: 21, 2: [1, 2], 4: "ab", 5: {1: true}}
        let bytes = [0x15, 42, 0x19, 0x25, 2, 4, 0x28, 2, b'a', b'b', 0x1c, 0x11, 0, 0];
        let (value, length) = read(&bytes).unwrap();
        assert_eq!((length, value.number(1), value.list(2).len()), (bytes.len(), Some(21), 2));
        assert_eq!(value.field(5).and_then(|inner| inner.number(1)), Some(1));
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_none(), "{cut}");
        }
        // A list of 2^31 structs, a string of 2^62 bytes, and endlessly nested structs.
        assert!(read(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0]).is_none());
        assert!(read(&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0]).is_none());
        assert!(read(&[0x1c; 1000]).is_none());
    }
}
