//! The texts of kernels and snippets, and the directives in them.

use std::collections::HashSet;
use std::fmt::Write;

use super::constants::Constant;
use super::interface::declare_params;
use super::key::KernelKey;
use crate::error::{Error, Result};

/// Lists shader files by name; a missing file is a compile error.
macro_rules! sources {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../shaders/", $folder, $name, ".wgsl")))),*]
    };
}

/// Every kernel: its name and its text. The file, the kernel's label and the function in `reference` have the same
/// name.
pub const KERNELS: &[(&str, &str)] = sources!["":
    "activation_backward",
    "activation_forward",
    "adafactor_cols",
    "adafactor_moments",
    "adafactor_rows",
    "adafactor_update",
    "adamw",
    "attention_backward_key_value",
    "attention_backward_key_value_tiled",
    "attention_backward_query",
    "attention_backward_query_tiled",
    "attention_decode",
    "attention_decode_combine",
    "attention_decode_split",
    "attention_forward",
    "attention_forward_tiled",
    "column_sum",
    "copy_columns",
    "decode_advance",
    "gated_backward",
    "gated_forward",
    "gather_rows",
    "gather_rows_backward",
    "global_norm",
    "linear_backward_input",
    "linear_backward_weight",
    "linear_forward",
    "logprob_backward",
    "logprob_forward",
    "mix",
    "multiply_add_ceiling",
    "norm_backward",
    "norm_forward",
    "policy_gradient",
    "preference_loss",
    "qkv_forward",
    "reduce_slices",
    "residual_add",
    "rotary",
    "sample_best",
    "sample_combine",
    "sample_histogram",
    "sample_threshold",
    "segment_sum",
    "segment_sum_backward",
    "sum_squares",
];

/// The snippets that kernels include with `//#include name`.
const SNIPPETS: &[(&str, &str)] = sources!["shared/":
    "activation",
    "attention",
    "attention_tile",
    "elements",
    "logits",
    "product_matvec",
    "product_nn_unrolled",
    "product_nt_cooperative",
    "product_nt_unrolled",
    "product_tiled",
    "product_tn_unrolled",
    "random",
    "row_part",
    "spans",
    "workgroup_sum",
];

/// Comes first in every kernel's source, after the declarations.
const PRELUDE: &str = include_str!("../../../shaders/prelude.wgsl");

/// A directive at the top of the source, for each of these constants that is on.
const DIRECTIVES: [(&str, &str); 3] = [
    ("COOPERATIVE", "enable f16;"),
    ("COOPERATIVE", "enable wgpu_cooperative_matrix;"),
    // naga assumes that the result of any function differs between invocations (even that of the workgroup's position),
    // and requires uniform control flow; this directive turns that check off.
    ("COOPERATIVE", "diagnostic(off, derivative_uniformity);"),
];

fn find(table: &'static [(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// Returns the kernel's whole source: constants, parameters, bindings, the prelude, then its text with every directive
/// expanded.
///
/// Directives are on lines of their own and nest:
/// `//#include snippet` inserts a snippet; a name in capitals is a constant that holds the snippet's name;
/// `//#if NAME` … `//#else` … `//#end` keeps the lines if the constant NAME is neither false nor 0;
/// `//#for i in LIMIT` … `//#end` repeats the lines with `${i}` = 0, 1, … below LIMIT: a number, a constant, or a
/// product or quotient of them.
///
/// # Errors
/// [`Error::Shader`] for an unknown kernel, snippet or constant, and for a constant, parameter or binding that the text
/// does not use.
pub fn assemble(key: &KernelKey) -> Result<String> {
    let fail = |why: String| Error::Shader { kernel: key.name.into(), why };
    let text = find(KERNELS, key.name).ok_or_else(|| fail("there is no such kernel".into()))?;
    let constants = Named(&key.constants);
    let mut known = HashSet::new();
    words_of(text, constants, &mut known).map_err(fail)?;
    for (i, (name, _)) in key.constants.iter().enumerate() {
        let is_directive = DIRECTIVES.iter().any(|(constant, _)| constant == name);
        if !is_directive && !known.contains(name.as_str()) {
            return Err(fail(format!("the constant {name} is not used")));
        }
        if key.constants[..i].iter().any(|(other, _)| other == name) {
            return Err(fail(format!("the constant {name} is given twice")));
        }
    }
    let mut body = String::with_capacity(text.len() * 2);
    expand(&text.lines().collect::<Vec<_>>(), constants, &mut body).map_err(fail)?;
    let mut used: HashSet<&str> = words(&body).collect();
    let members: HashSet<&str> =
        body.split("params.").skip(1).filter_map(|after| words(after).next()).collect();
    let mut out = String::new();
    for (constant, directive) in DIRECTIVES {
        if key.is_on(constant) {
            writeln!(out, "{directive}").unwrap();
        }
    }
    for (name, value) in &key.constants {
        match value {
            Constant::U32(value) => writeln!(out, "const {name}: u32 = {value}u;").unwrap(),
            Constant::Bool(value) => writeln!(out, "const {name}: bool = {value};").unwrap(),
            Constant::Snippet(_) => {}
        }
    }
    if let Some(unused) = key.params.iter().find(|p| !members.contains(p.name)) {
        return Err(fail(format!("the parameter {} is not used", unused.name)));
    }
    declare_params(&key.params, &mut out);
    for (i, binding) in key.bindings.iter().enumerate() {
        if !binding.is_used(|name| used.contains(name)) {
            return Err(fail(format!("the binding {} is not used", binding.name)));
        }
        binding.declare(i + 1, |name| used.contains(name), &mut out);
    }
    used.clear();
    out.push_str(PRELUDE);
    out.push_str(&body);
    Ok(out)
}

/// Returns the identifiers and numbers of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|w| !w.is_empty())
}

/// Collects every word of a text and of all snippets that it may include, ignoring conditions.
fn words_of<'a>(text: &'a str, constants: Named<'_>, known: &mut HashSet<&'a str>) -> Result<(), String> {
    for line in text.lines() {
        known.extend(words(line));
        if let Some(("include", name)) = directive(line) {
            words_of(constants.snippet(name)?, constants, known)?;
        }
    }
    Ok(())
}

/// Returns the directive on a line, and its argument.
fn directive(line: &str) -> Option<(&str, &str)> {
    let text = line.trim_start().strip_prefix("//#")?;
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    Some((name, rest.trim()))
}

/// Constants by name.
#[derive(Clone, Copy)]
struct Named<'a>(&'a [(String, Constant)]);

impl Named<'_> {
    fn get(self, name: &str) -> Result<Constant, String> {
        let found = self.0.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
        found.ok_or_else(|| format!("the constant {name} is not given"))
    }

    /// Returns the text of a snippet, given by its name or by a constant.
    fn snippet(self, name: &str) -> Result<&'static str, String> {
        let name = match name.starts_with(|c: char| c.is_ascii_uppercase()) {
            true => match self.get(name)? {
                Constant::Snippet(snippet) => snippet,
                _ => return Err(format!("the constant {name} is not the name of a snippet")),
            },
            false => name,
        };
        find(SNIPPETS, name).ok_or_else(|| format!("unknown snippet {name:?}"))
    }

    /// Evaluates a number, a constant, or a product or quotient of them.
    fn limit(self, text: &str) -> Result<u32, String> {
        let number = |word: &str| match word.parse() {
            Ok(number) => Ok(number),
            Err(_) => match self.get(word)? {
                Constant::U32(value) => Ok(value),
                _ => Err(format!("the constant {word} is not a number")),
            },
        };
        let mut parts = text.split_whitespace();
        let mut value = number(parts.next().unwrap_or_default())?;
        while let (Some(sign), Some(word)) = (parts.next(), parts.next()) {
            match sign {
                "*" => value *= number(word)?,
                "/" => value /= number(word)?,
                _ => return Err(format!("cannot parse the limit {text:?}")),
            }
        }
        Ok(value)
    }
}

/// Writes `lines` to `out` with their directives expanded.
fn expand(lines: &[&str], constants: Named<'_>, out: &mut String) -> Result<(), String> {
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        at += 1;
        match directive(line) {
            None => {
                out.push_str(line);
                out.push('\n');
            }
            Some(("include", name)) => {
                expand(&constants.snippet(name)?.lines().collect::<Vec<_>>(), constants, out)?;
            }
            Some(("if", name)) => {
                let (middle, end) = block(lines, at)?;
                let kept = if constants.get(name)?.is_on() { at..middle } else { (middle + 1).min(end)..end };
                expand(&lines[kept], constants, out)?;
                at = end + 1;
            }
            Some(("for", rest)) => {
                let (_, end) = block(lines, at)?;
                let (name, limit) =
                    rest.split_once(" in ").ok_or_else(|| format!("cannot parse {line:?}"))?;
                let body = lines[at..end].join("\n");
                for i in 0..constants.limit(limit)? {
                    let body = body.replace(&format!("${{{}}}", name.trim()), &i.to_string());
                    expand(&body.lines().collect::<Vec<_>>(), constants, out)?;
                }
                at = end + 1;
            }
            Some(_) => return Err(format!("cannot parse {line:?}")),
        }
    }
    Ok(())
}

/// Returns the lines of the `//#else` (of the `//#end` if there is none) and the `//#end` of a block that was opened
/// before `at`.
fn block(lines: &[&str], at: usize) -> Result<(usize, usize), String> {
    let (mut depth, mut middle) = (0, None);
    for (i, line) in lines.iter().enumerate().skip(at) {
        match directive(line) {
            Some(("if" | "for", _)) => depth += 1,
            Some(("else", _)) if depth == 0 => middle = Some(i),
            Some(("end", _)) if depth == 0 => return Ok((middle.unwrap_or(i), i)),
            Some(("end", _)) => depth -= 1,
            _ => {}
        }
    }
    Err("a block has no //#end".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str) -> KernelKey {
        KernelKey { name, constants: vec![], params: vec![], bindings: vec![] }
    }

    #[test]
    fn every_file_in_shaders_is_listed() {
        for (folder, table) in [("shaders", KERNELS), ("shaders/shared", SNIPPETS)] {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            let mut files: Vec<String> = std::fs::read_dir(root)
                .unwrap()
                .map(|e| e.unwrap().path())
                .filter(|p| p.is_file())
                .map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned())
                .filter(|name| name != "prelude")
                .collect();
            files.sort();
            let mut listed: Vec<String> = table.iter().map(|(n, _)| n.to_string()).collect();
            listed.sort();
            assert_eq!(files, listed, "{folder}");
        }
    }

    #[test]
    fn unused_and_missing_constants_parameters_and_bindings_are_errors() {
        let refused = |key: &KernelKey, why: &str| {
            let message = assemble(key).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        };
        refused(&key("no_such_kernel"), "there is no such kernel");
        refused(&key("residual_add"), "the constant TWO is not given");
        let on = |name: &str| (name.to_owned(), Constant::Bool(true));
        let off = |name: &str| (name.to_owned(), Constant::Bool(false));
        let constants = vec![on("TWO"), off("SCALE"), on("ADD"), on("ADDD")];
        refused(&KernelKey { constants, ..key("residual_add") }, "the constant ADDD is not used");
        let constants = vec![on("TWO"), off("SCALE"), on("ADD")];
        let params = vec![super::super::Parameter { name: "length", float: false }];
        refused(&KernelKey { constants, params, ..key("residual_add") }, "the parameter length is not used");
    }

    #[test]
    fn directives_nest() {
        let constants = [
            ("TWO".to_owned(), Constant::U32(2)),
            ("ON".to_owned(), Constant::Bool(true)),
            ("OFF".to_owned(), Constant::Bool(false)),
        ];
        let expand = |text: &str| {
            let mut out = String::new();
            expand(&text.lines().collect::<Vec<_>>(), Named(&constants), &mut out).map(|()| out)
        };
        let text = "//#for i in TWO\n//#if ON\na${i}\n//#else\nb\n//#end\n//#if OFF\nc\n//#else\nd${i}\n//#end\n//#end\ne";
        assert_eq!(expand(text).unwrap(), "a0\nd0\na1\nd1\ne\n");
        assert_eq!(expand("//#for i in TWO * 3 / 2\nx\n//#end").unwrap(), "x\nx\nx\n");
        for broken in
            ["//#if ON", "//#for i in THREE\n//#end", "//#if THREE\n//#end", "//#nothing", "//#include TWO"]
        {
            assert!(expand(broken).is_err(), "{broken}");
        }
    }
}
