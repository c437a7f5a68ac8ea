//! `tojson` as `transformers` defines it: Python's `json.dumps` without HTML escaping.

use minijinja::value::{Kwargs, ObjectRepr, Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::python;

struct Dumps {
    ensure_ascii: bool,
    indent: Option<String>,
    separators: (String, String),
    sort_keys: bool,
    out: String,
}

/// The filter: `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn to_json(
    state: &mut State,
    value: &Value,
    positional: Rest<Value>,
    options: Kwargs,
) -> Result<String, Error> {
    let option = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let named: Option<Value> = options.get(name)?;
        Ok(positional.get(at).cloned().or(named).filter(|value| !value.is_none()))
    };
    let ensure_ascii = option(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = match option(1, "indent")? {
        None => None,
        Some(value) => Some(match value.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(i64::try_from(value)?.clamp(0, 64) as usize),
        }),
    };
    let between = if indent.is_some() { "," } else { ", " };
    let separators = match option(2, "separators")? {
        None => (between.to_owned(), ": ".to_owned()),
        Some(pair) => {
            let at = |index| pair.get_item_by_index(index).map(|text| python::str(&text));
            (at(0)?, at(1)?)
        }
    };
    let sort_keys = option(3, "sort_keys")?.is_some_and(|value| value.is_true());
    options.assert_all_used()?;
    let mut dumps = Dumps { ensure_ascii, indent, separators, sort_keys, out: String::new() };
    dumps.value(state, value, 1)?;
    Ok(dumps.out)
}

impl Dumps {
    fn value(&mut self, state: &mut State, value: &Value, depth: usize) -> Result<(), Error> {
        state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(state, value.as_str().unwrap_or_default())?,
            ValueKind::Undefined => return Err(not_json("an undefined value")),
            _ => {
                let Some(object) = value.as_object() else { return Err(not_json("a value of this type")) };
                match object.repr() {
                    ObjectRepr::Map => {
                        let mut pairs: Vec<_> = object.try_iter_pairs().into_iter().flatten().collect();
                        if self.sort_keys {
                            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                        }
                        let key_and_value =
                            |dumps: &mut Dumps, state: &mut State, (key, item): (Value, Value)| {
                                dumps.key(state, &key)?;
                                let colon = dumps.separators.1.clone();
                                dumps.write(state, &colon)?;
                                dumps.value(state, &item, depth + 1)
                            };
                        self.items(state, ('{', '}'), depth, pairs, key_and_value)?;
                    }
                    ObjectRepr::Seq => {
                        let items = object.try_iter().into_iter().flatten().collect();
                        let item = |dumps: &mut Dumps, state: &mut State, item: Value| {
                            dumps.value(state, &item, depth + 1)
                        };
                        self.items(state, ('[', ']'), depth, items, item)?;
                    }
                    _ => return Err(not_json("a value of this type")),
                }
            }
        }
        Ok(())
    }

    fn items<T>(
        &mut self,
        state: &mut State,
        (open, close): (char, char),
        depth: usize,
        items: Vec<T>,
        write: impl Fn(&mut Dumps, &mut State, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        let any = !items.is_empty();
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                let comma = self.separators.0.clone();
                self.write(state, &comma)?;
            }
            self.line(state, depth)?;
            write(self, state, item)?;
        }
        if any {
            self.line(state, depth - 1)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, state: &mut State, depth: usize) -> Result<(), Error> {
        if let Some(indent) = self.indent.clone() {
            self.out.push('\n');
            for _ in 0..depth {
                self.write(state, &indent)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, state: &mut State, text: &str) -> Result<(), Error> {
        state.consume_fuel(text.len() as u64 / 64)?;
        self.out.push_str(text);
        Ok(())
    }

    fn key(&mut self, state: &mut State, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(state, key.as_str().unwrap_or_default()),
            ValueKind::None => self.string(state, "null"),
            ValueKind::Bool => self.string(state, if key.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.string(state, &number(key)),
            _ => Err(not_json("a key that is a list or a map")),
        }
    }

    fn string(&mut self, state: &mut State, text: &str) -> Result<(), Error> {
        state.consume_fuel(text.len() as u64 / 64)?;
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && c > '~' => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
        Ok(())
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) if number.is_nan() => "NaN".to_owned(),
        Ok(number) if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        Ok(number) => python::float(number),
        Err(_) => value.to_string(),
    }
}

fn not_json(what: &str) -> Error {
    Error::new(ErrorKind::BadSerialization, format!("{what} cannot be written as JSON"))
}
