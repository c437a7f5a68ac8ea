//! Conversion of Parquet rows to JSON.

use ::parquet::record::{Field, List, Row};
use serde_json::{Map, Number, Value};

const BYTES: &str = "bytes, which are not text";
const NO_NUMBER: &str = "a number that is not finite (NaN or Infinity)";

/// Returns the columns of a row, those with a value that JSON cannot represent, and the size of its texts in bytes.
pub(super) fn columns(row: Row) -> (Map<String, Value>, Vec<(String, &'static str)>, u64) {
    let (mut columns, mut unusable, mut read) = (Map::new(), Vec::new(), 0);
    for (name, field) in row.into_columns() {
        let mut conversion = Conversion::default();
        let value = conversion.value(field);
        read += conversion.bytes + 8;
        match conversion.unusable {
            Some(what) => unusable.push((name, what)),
            None => drop(columns.insert(name, value)),
        }
    }
    (columns, unusable, read)
}

/// The state of the conversion of one value.
#[derive(Default)]
struct Conversion {
    unusable: Option<&'static str>,
    bytes: u64,
}

impl Conversion {
    fn value(&mut self, field: Field) -> Value {
        match field {
            Field::Null => Value::Null,
            Field::Bool(b) => b.into(),
            Field::Byte(n) => n.into(),
            Field::Short(n) => n.into(),
            Field::Int(n) => n.into(),
            Field::Long(n) => n.into(),
            Field::UByte(n) => n.into(),
            Field::UShort(n) => n.into(),
            Field::UInt(n) => n.into(),
            Field::ULong(n) => n.into(),
            Field::Float16(n) => self.number(f64::from(n)),
            Field::Float(n) => self.number(n.into()),
            Field::Double(n) => self.number(n),
            Field::Str(text) => {
                self.bytes += text.len() as u64;
                Value::String(text)
            }
            Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
                // Strings that were written without the string type.
                Ok(text) => self.value(Field::Str(text.to_owned())),
                Err(_) => self.is(BYTES),
            },
            Field::Group(row) => {
                let field = |(name, field)| (name, self.value(field));
                Value::Object(row.into_columns().into_iter().map(field).collect())
            }
            Field::ListInternal(list) => self.list(list),
            Field::MapInternal(map) => {
                let entry = |(key, value): &(Field, Field)| {
                    let key = match self.value(key.clone()) {
                        Value::String(text) => text,
                        other => other.to_string(),
                    };
                    (key, self.value(value.clone()))
                };
                Value::Object(map.entries().iter().map(entry).collect())
            }
            // Dates, times and decimals are formatted as text.
            other => Value::String(other.to_string()),
        }
    }

    fn list(&mut self, list: List) -> Value {
        self.bytes += list.len() as u64;
        Value::Array(list.elements().iter().map(|field| self.value(field.clone())).collect())
    }

    fn number(&mut self, number: f64) -> Value {
        Number::from_f64(number).map_or_else(|| self.is(NO_NUMBER), Value::Number)
    }

    fn is(&mut self, what: &'static str) -> Value {
        self.unusable = Some(what);
        Value::Null
    }
}
