//! The output formats of results: table, JSON lines, CSV, Markdown. Each row is printed as soon as it is measured.

use std::path::Path;

use serde_json::{Value, json};

use super::about::About;
use crate::bench::Ceilings;
use crate::bench::{Earlier, Measurement};
use crate::cli::args::Form;
use crate::cli::print;
use crate::error::{Error, Result};

pub(super) struct Output {
    form: Form,
    earlier: Option<Earlier>,
    /// The file of [`Output::earlier`].
    file: String,
    suites: Vec<&'static str>,
    /// Cases that [`Output::earlier`] does not have.
    new: Vec<String>,
    /// The last cells of each CSV line.
    about: Vec<String>,
}

const CSV: [&str; 30] = [
    "suite",
    "case",
    "model",
    "shape",
    "weights",
    "tokens",
    "runs",
    "ms",
    "min_ms",
    "max_ms",
    "us_per_token",
    "gflops",
    "gigabytes_per_second",
    "bound",
    "percent_of_ceiling",
    "launches",
    "submits",
    "host_percent",
    "memory_bytes",
    "earlier_ms",
    "ratio",
    "ceiling_gflops",
    "ceiling_gigabytes_per_second",
    "version",
    "commit",
    "date",
    "gpu",
    "backend",
    "driver",
    "tier",
];

impl Output {
    pub fn new(form: Form, earlier: Option<(&Path, Earlier)>, suites: Vec<&'static str>) -> Output {
        let file = earlier.as_ref().map_or_else(String::new, |(path, _)| path.display().to_string());
        let earlier = earlier.map(|(_, earlier)| earlier);
        Output { form, earlier, file, suites, new: Vec::new(), about: Vec::new() }
    }

    /// Prints program, GPU, ceilings, and their differences from the earlier benchmark.
    pub fn begin(&mut self, about: &About) -> Result<()> {
        let (gpu, c) = (&about.gpu, &about.ceilings);
        let commit = about.commit.unwrap_or_default();
        let ceilings = format!(
            "{:.1} GFLOP/s multiply-add, {:.1} GB/s, {:.1} µs per launch, {:.0} µs per submit",
            c.gflops, c.gigabytes_per_second, c.launch_us, c.submit_us
        );
        let program = format!("oaif {} {commit}", about.version).trim_end().to_owned();
        let chosen = format!("tier {}, matrix products with f16 weights: {}", about.tier, about.arithmetic);
        match self.form {
            Form::Json => print(serde_json::to_value(about).expect("numbers and names"))?,
            Form::Csv => {
                let tier = serde_json::to_value(about.tier).expect("a name");
                let tier = tier.as_str().map_or_else(|| tier.to_string(), str::to_owned);
                self.about =
                    [about.version, commit, &about.date, &gpu.name, &gpu.backend, &gpu.driver, &tier]
                        .map(quoted)
                        .into();
                print(CSV.join(","))?;
            }
            Form::Markdown => print(format!(
                "{}, {}, {} ({}, {}); {chosen}. Ceilings: {ceilings}. Median, fastest and slowest of {} runs.",
                program, about.date, gpu.name, gpu.backend, gpu.driver, about.runs
            ))?,
            Form::Table => print(format!(
                "{} ({}, {}); {program}, {}\nceilings: {ceilings}\n{chosen}; {} runs",
                gpu.name, gpu.backend, gpu.driver, about.date, about.runs
            ))?,
        }
        match &self.earlier {
            None => Ok(()),
            Some(earlier) => {
                let then = then(&earlier.about, about);
                let text = match then.is_empty() {
                    true => format!("compared with {}", self.file),
                    false => format!("compared with {}, where {}", self.file, then.join("; ")),
                };
                self.note(json!({"compare": self.file, "then": earlier.about}), &text)
            }
        }
    }

    /// Prints a row that is not a measurement; for CSV, to standard error.
    fn note(&self, row: Value, text: &str) -> Result<()> {
        match self.form {
            Form::Json => print(row),
            Form::Table => print(text),
            Form::Markdown => print(format!("\n{text}")),
            Form::Csv => {
                crate::cli::console::say(format_args!("oaif: {text}"));
                Ok(())
            }
        }
    }

    fn ratio_title(&self) -> &'static str {
        if self.earlier.is_some() { "ratio" } else { "" }
    }

    /// `model`: the description of the model, if any.
    pub fn heading(&self, suite: &str, model: Option<&str>) -> Result<()> {
        match self.form {
            Form::Json | Form::Csv => Ok(()),
            Form::Table => {
                let model = model.map_or_else(String::new, |model| format!("{model}\n"));
                let line = format!(
                    "\n{model}{suite:<52} {:>9} {:>9} {:>9} {:>8} {:>7} {:>20} {:>8} {:>6}",
                    "ms",
                    "min",
                    "max",
                    "GFLOP/s",
                    "GB/s",
                    "of ceiling",
                    "launches",
                    self.ratio_title()
                );
                print(line.trim_end())
            }
            Form::Markdown => {
                let ratio = if self.earlier.is_some() { [" ratio |", "---:|"] } else { ["", ""] };
                print(format!(
                    "\n| {suite} | shape | ms | min | max | µs/token | GFLOP/s | GB/s | of ceiling |{}\n\
                     |---|---|---:|---:|---:|---:|---:|---:|---|{}",
                    ratio[0], ratio[1]
                ))
            }
        }
    }

    pub fn measurement(&mut self, m: &Measurement, ceilings: &Ceilings) -> Result<()> {
        let then = self.earlier.as_mut().and_then(|earlier| earlier.ms_of(m));
        if self.earlier.is_some() && then.is_none() {
            self.new.push(m.label());
        }
        let ratio = then.map(|then| m.ms / then);
        match self.form {
            Form::Json => {
                let mut row = serde_json::to_value(m).expect("numbers and names");
                if let Some((then, ratio)) = then.zip(ratio) {
                    (row["earlier_ms"], row["ratio"]) = (then.into(), ratio.into());
                }
                print(row)
            }
            Form::Csv => print(self.csv_line(m, then, ceilings)),
            Form::Markdown => print(markdown_line(m, self.earlier.is_some().then_some(ratio))),
            Form::Table => print(table_lines(m, ratio)),
        }
    }

    pub fn skipped(&self, suite: &str, case: &str, why: &Error) -> Result<()> {
        let text = format!("{case}: skipped: {why}");
        self.note(json!({"suite": suite, "case": case, "skipped": why.to_string()}), &text)
    }

    pub fn summary(&self, what: &str, ratio: f64) -> Result<()> {
        self.note(json!({"summary": what, "ratio": ratio}), &format!("{what}: {ratio:.3}"))
    }

    /// Prints the ceilings after a suite, compared with those before it.
    pub fn end_suite(&self, suite: &str, before: Ceilings, after: Ceilings) -> Result<()> {
        let percent = |after: f64, before: f64| 100.0 * (after / before - 1.0);
        let (gflops, bandwidth) = (
            percent(after.gflops, before.gflops),
            percent(after.gigabytes_per_second, before.gigabytes_per_second),
        );
        let row = json!({"suite": suite, "ceilings_before": before, "ceilings_after": after,
            "drift_percent": {"gflops": gflops, "gigabytes_per_second": bandwidth}});
        let text = format!(
            "ceilings after {suite}: {:.1} GFLOP/s ({gflops:+.1}%), {:.1} GB/s ({bandwidth:+.1}%)",
            after.gflops, after.gigabytes_per_second
        );
        self.note(row, &text)
    }

    /// Prints the cases that only one of the two benchmarks has.
    pub fn end(&self) -> Result<()> {
        let Some(earlier) = &self.earlier else { return Ok(()) };
        let gone = earlier.unseen(&self.suites);
        if self.form == Form::Json {
            return print(json!({"only_earlier": gone, "only_now": self.new}));
        }
        for (what, names) in [("only in the earlier benchmark", &gone), ("only in this benchmark", &self.new)]
        {
            for name in names {
                self.note(Value::Null, &format!("{what}: {name}"))?;
            }
        }
        Ok(())
    }

    fn csv_line(&self, m: &Measurement, then: Option<f64>, ceilings: &Ceilings) -> String {
        let facts = &m.facts;
        let number = |n: Option<f64>| n.map_or_else(String::new, |n| n.to_string());
        let text = |text: &Option<String>| quoted(text.as_deref().unwrap_or_default());
        let mut cells = vec![
            facts.suite.to_owned(),
            quoted(&facts.case),
            text(&facts.model),
            quoted(&facts.shape),
            text(&facts.weights),
            number(facts.tokens.map(|n| n as f64)),
            m.runs.to_string(),
        ];
        let numbers = [Some(m.ms), Some(m.min_ms), Some(m.max_ms), m.us_per_token(), Some(m.gflops)];
        cells.extend(numbers.into_iter().chain([Some(m.gigabytes_per_second)]).map(number));
        cells.push(m.bound.to_owned());
        let numbers = [
            Some(m.percent_of_ceiling),
            Some(m.launches),
            Some(m.submits),
            Some(m.host_percent),
            facts.memory_bytes.map(|n| n as f64),
            then,
            then.map(|then| m.ms / then),
            Some(ceilings.gflops),
            Some(ceilings.gigabytes_per_second),
        ];
        cells.extend(numbers.map(number));
        cells.extend(self.about.iter().cloned());
        cells.join(",")
    }
}

/// The differences of machine and program between `then` and `now`, which affect the ratios as well.
fn then(then: &Value, now: &About) -> Vec<String> {
    let now = serde_json::to_value(now).expect("numbers and names");
    let mut out = Vec::new();
    let facts =
        [("GPU", "/gpu/name"), ("backend", "/gpu/backend"), ("driver", "/gpu/driver"), ("tier", "/tier")];
    for (what, pointer) in facts {
        if let Some(then) = then.pointer(pointer).filter(|then| now.pointer(pointer) != Some(*then)) {
            out.push(format!("the {what} was {then}"));
        }
    }
    let commit = |about: &Value| about["commit"].as_str().unwrap_or_default().to_owned();
    if commit(then) != commit(&now) {
        out.push(format!("the commit was {}", then["commit"]));
    }
    let ceilings = [("multiply-add", "gflops"), ("bandwidth", "gigabytes_per_second")];
    for (what, key) in ceilings {
        let of = |about: &Value| about["ceilings"][key].as_f64().filter(|n| *n > 0.0);
        if let (Some(then), Some(now)) = (of(then), of(&now)) {
            out.push(format!("the {what} ceiling is {:.2} times the earlier one", now / then));
        }
    }
    out
}

/// A cell of CSV.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// `ratio`: `None` without a comparison.
fn markdown_line(m: &Measurement, ratio: Option<Option<f64>>) -> String {
    let facts = &m.facts;
    let of_model = |part: &Option<String>| part.iter().map(|part| format!("; {part}")).collect::<String>();
    let shape = format!("{}{}{}", facts.shape, of_model(&facts.weights), of_model(&facts.model));
    let us = m.us_per_token().map_or_else(String::new, |us| format!("{us:.2}"));
    let ratio = ratio.map_or_else(String::new, |ratio| {
        format!(" {} |", ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.3}")))
    });
    format!(
        "| {} | {} | {:.3} | {:.3} | {:.3} | {us} | {:.2} | {:.2} | {:.1} % {} |{ratio}",
        facts.case.replace('|', "\\|"),
        shape.replace('|', "\\|"),
        m.ms,
        m.min_ms,
        m.max_ms,
        m.gflops,
        m.gigabytes_per_second,
        m.percent_of_ceiling,
        m.bound
    )
}

/// The line of the table, followed by the details of suites with a model.
fn table_lines(m: &Measurement, ratio: Option<f64>) -> String {
    let name = match m.facts.suite {
        "kernels" => format!("{} ({})", m.facts.case, m.facts.shape),
        _ => m.facts.case.clone(),
    };
    let ceiling = format!("{:.1}% {}", m.percent_of_ceiling, m.bound);
    let ratio = ratio.map_or_else(String::new, |ratio| format!(" {ratio:>6.3}"));
    let mut lines = format!(
        "{name:<52} {:>9.3} {:>9.3} {:>9.3} {:>8.2} {:>7.2} {ceiling:>20} {:>8.0}{ratio}",
        m.ms, m.min_ms, m.max_ms, m.gflops, m.gigabytes_per_second, m.launches
    );
    if m.facts.suite == "kernels" {
        return lines;
    }
    let mut more = Vec::new();
    if let Some(us) = m.us_per_token() {
        more.push(format!("{us:.2} µs per token, {:.0} tokens/s", 1e6 / us));
    }
    if let Some(launches) = m.facts.launches_per_layer {
        more.push(format!("{launches} launches per layer"));
    }
    more.push(format!("host {:.1}%", m.host_percent));
    more.push(format!("{:.1} submits", m.submits));
    more.push(format!("{} GPU objects created after the first run", m.made_after_first));
    if let Some(bytes) = m.facts.memory_bytes {
        more.push(format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64));
    }
    lines.push_str(&format!("\n    {}", more.join(", ")));
    if !m.phases.is_empty() {
        let phase = |p: &crate::bench::Phase| format!("{} {:.0} ms ({:.0}%)", p.phase, p.ms, p.percent);
        lines.push_str(&format!("\n    {}", m.phases.iter().map(phase).collect::<Vec<_>>().join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Facts;
    use crate::bench::tests::measurement;

    fn measured(case: &str) -> Measurement {
        let mut facts = Facts::bare("step", case, "C 8 V 16");
        (facts.model, facts.weights, facts.tokens) =
            (Some("tiny".into()), Some("float32, frozen".into()), Some(4));
        measurement(&facts)
    }

    #[test]
    fn a_cell_with_a_comma_is_quoted_and_a_line_has_a_cell_for_each_column() {
        assert_eq!((&*quoted("a b"), &*quoted("a,b"), &*quoted("a\"b")), ("a b", "\"a,b\"", "\"a\"\"b\""));
        let mut out = Output::new(Form::Csv, None, vec!["step"]);
        out.about = vec!["x".into(); 7];
        let c = Ceilings { gflops: 10.0, gigabytes_per_second: 5.0, launch_us: 1.0, submit_us: 1.0 };
        let line = out.csv_line(&measured("sft"), Some(1.0), &c);
        // Only the cell of the weights has a comma.
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), CSV.len() + 1, "{line}");
        assert_eq!(cells[..6], ["step", "sft", "tiny", "C 8 V 16", "\"float32", " frozen\""]);
        assert!(line.contains(",1,2,10,5,x,"), "earlier time, ratio, ceilings: {line}");
    }

    #[test]
    fn a_row_of_markdown_has_as_many_cells_as_its_heading() {
        let row = markdown_line(&measured("a|b"), Some(Some(0.5)));
        assert!(
            row.starts_with("| a\\|b | C 8 V 16; float32, frozen; tiny | 2.000 | 1.000 | 4.000 | 500.00 |"),
            "{row}"
        );
        assert!(row.ends_with("| 40.0 % bandwidth | 0.500 |"), "{row}");
        assert!(markdown_line(&measured("sft"), Some(None)).ends_with("| – |"));
        assert!(markdown_line(&measured("sft"), None).ends_with("bandwidth |"));
    }

    #[test]
    fn a_table_shows_the_ratio_only_with_a_comparison() {
        let first = |ratio| table_lines(&measured("sft"), ratio).lines().next().unwrap().to_owned();
        assert!(first(Some(1.25)).ends_with(" 7  1.250"), "{}", first(Some(1.25)));
        assert!(first(None).ends_with(" 7"));
    }
}
