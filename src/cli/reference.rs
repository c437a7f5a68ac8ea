//! The pages of `docs/reference` that are made from the program: flags, keys of configuration files, metrics. The test below
//! compares them with the committed files; `UPDATE_REFERENCE=1 cargo test --lib reference` writes them.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::{Arg, Command};
use syn::{Attribute, Field, Item, Lit, Meta, Type};

use super::{command, presets};

const TRAINING: [&str; 4] = ["align", "sft", "dpo", "reward"];

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a flag belongs on the page.
fn is_shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
}

/// `-m`, `--model <DIR|NAME>`
fn usage(arg: &Arg) -> String {
    let values: String = match arg.get_action().takes_values() {
        true => arg.get_value_names().unwrap_or_default().iter().map(|name| format!(" {name}")).collect(),
        false => String::new(),
    };
    // A bar ends a cell, also within code.
    let values: String = values.replace('|', "\\|");
    let Some(long) = arg.get_long() else { return format!("`{}`", values.trim()) };
    let short = arg.get_short().map(|letter| format!("`-{letter}`, ")).unwrap_or_default();
    format!("{short}`--{long}{values}`")
}

/// The help of a flag with its values and its default.
fn description(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values = arg.get_possible_values();
    let named: Vec<String> = values
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}` ({help})", value.get_name()),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if !named.is_empty() && arg.get_action().takes_values() {
        write!(text, ". One of {}", named.join(", ")).unwrap();
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        write!(text, " [default: {}]", defaults.join(" ")).unwrap();
    }
    cell(&text)
}

fn flags_page() -> String {
    let mut all = command();
    all.build();
    let mut page = "# Flags\n\nGenerated from the program; `oaif COMMAND --help` prints the same. Names may be written with \
                    underscores (`--learning_rate`).\n"
        .to_owned();
    for sub in all.get_subcommands().filter(|sub| sub.get_name() != "help") {
        write!(page, "\n## oaif {}\n\n{}.\n", sub.get_name(), sub.get_about().unwrap_or_default()).unwrap();
        let mut groups: Vec<(String, Vec<&Arg>)> = Vec::new();
        for arg in sub.get_arguments().filter(|arg| is_shown(arg)) {
            let heading = arg.get_help_heading().unwrap_or("Options").to_owned();
            match groups.iter_mut().find(|(name, _)| *name == heading) {
                Some((_, args)) => args.push(arg),
                None => groups.push((heading, vec![arg])),
            }
        }
        for (heading, args) in groups {
            write!(page, "\n**{heading}**\n\n| flag | |\n|---|---|\n").unwrap();
            args.iter().for_each(|arg| writeln!(page, "| {} | {} |", usage(arg), description(arg)).unwrap());
        }
    }
    page
}

/// What a key of a configuration file is set to.
fn kind(arg: &Arg) -> &'static str {
    match (arg.get_action().takes_values(), arg.get_action()) {
        (false, _) => "true or false",
        (true, clap::ArgAction::Append) => "a list",
        _ if arg.get_num_args().is_some_and(|n| n.max_values() > 1) => "a list",
        _ => "a value",
    }
}

fn config_page() -> String {
    let mut all = command();
    all.build();
    let mut page = "# Configuration files\n\nGenerated from the program. `--config FILE` reads flags from a YAML, TOML or JSON file. \
                    Each key is the name of a flag, with dashes or underscores. Relative paths start at the working folder. A flag \
                    on the command line replaces the one in the file, and the file replaces the flags of `--preset`. A run writes \
                    its flags to `run.json`, which `--config` reads as well.\n\n## Keys of the training commands\n\n\
                    Flags are described in [flags.md](flags.md).\n\n| key | is set to | commands |\n|---|---|---|\n"
        .to_owned();
    let mut keys: BTreeMap<&str, (&'static str, Vec<&str>)> = BTreeMap::new();
    let training: Vec<&Command> =
        all.get_subcommands().filter(|sub| TRAINING.contains(&sub.get_name())).collect();
    for sub in &training {
        for arg in sub.get_arguments().filter(|arg| is_shown(arg) && arg.get_id() != "config") {
            if let Some(long) = arg.get_long() {
                keys.entry(long).or_insert((kind(arg), Vec::new())).1.push(sub.get_name());
            }
        }
    }
    for (key, (kind, commands)) in keys {
        let commands = if commands.len() == training.len() { "all".to_owned() } else { commands.join(", ") };
        writeln!(page, "| `{key}` | {kind} | {commands} |").unwrap();
    }
    page += "\n## Presets\n\n`--preset NAME` uses one of these files, which are in `examples/configs`. Several presets can be given; \
             the last one takes precedence.\n";
    for (name, commands, yaml) in presets::all() {
        write!(page, "\n### {name}\n\nFor `oaif {}`.\n\n```yaml\n{yaml}```\n", commands.join("`, `oaif "))
            .unwrap();
    }
    page
}

/// The text of doc comments.
fn doc(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        if let Meta::NameValue(pair) = &attribute.meta
            && let syn::Expr::Lit(literal) = &pair.value
            && let Lit::Str(line) = &literal.lit
        {
            text += &line.value();
        }
    }
    text.trim().to_owned()
}

/// The name of a field in JSON, and whether its own fields stand in its place; `None` where it is not written.
fn serialised(field: &Field) -> Option<(String, bool)> {
    let mut name = field.ident.as_ref()?.to_string();
    let (mut flat, mut skipped) = (false, false);
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute
            .parse_nested_meta(|meta| {
                match meta.path.get_ident().map(ToString::to_string).as_deref() {
                    Some("rename") => name = meta.value()?.parse::<syn::LitStr>()?.value(),
                    Some("flatten") => flat = true,
                    Some("skip") => skipped = true,
                    _ if meta.input.peek(syn::Token![=]) => drop(meta.value()?.parse::<syn::Expr>()?),
                    _ => {}
                }
                Ok(())
            })
            .unwrap();
    }
    (!skipped).then_some((name, flat))
}

/// The last name in a type: `UpdateReport` of `Option<UpdateReport>`.
fn inner(of: &Type) -> String {
    let Type::Path(path) = of else { return String::new() };
    let last = path.path.segments.last().unwrap();
    match &last.arguments {
        syn::PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
            Some(syn::GenericArgument::Type(of)) => inner(of),
            _ => last.ident.to_string(),
        },
        _ => last.ident.to_string(),
    }
}

/// Rows of the metrics of a struct, then those of the structs in it, each with its own heading.
fn metrics_of(name: &str, structs: &BTreeMap<String, syn::ItemStruct>, page: &mut String) {
    let Some(of) = structs.get(name) else { return };
    let mut parts = Vec::new();
    let mut rows = String::new();
    for field in &of.fields {
        let Some((key, flat)) = serialised(field) else { continue };
        match flat {
            true => parts.push(inner(&field.ty)),
            false => writeln!(rows, "| `{key}` | {} |", cell(&doc(&field.attrs))).unwrap(),
        }
    }
    if parts == ["Phases"] {
        writeln!(rows, "| `time/PHASE_ms` | {} |", cell(&doc(&structs["Phases"].attrs))).unwrap();
    }
    let about = if name == "StepReport" { "The step itself.".to_owned() } else { doc(&of.attrs) };
    let (heading, rest) = about.split_once(". ").unwrap_or((about.trim_end_matches('.'), ""));
    let rest = if rest.is_empty() { String::new() } else { format!("{}\n\n", cell(rest)) };
    if !rows.is_empty() {
        write!(page, "\n## {heading}\n\n{rest}| key | |\n|---|---|\n{rows}").unwrap();
    }
    parts.iter().for_each(|part| metrics_of(part, structs, page));
}

fn metrics_page() -> String {
    let mut structs = BTreeMap::new();
    for source in [include_str!("../train/report.rs"), include_str!("../eval/ensemble.rs")] {
        for item in syn::parse_file(source).unwrap().items {
            if let Item::Struct(one) = item {
                structs.insert(one.ident.to_string(), one);
            }
        }
    }
    let mut page = "# Metrics\n\nGenerated from the source. Each step adds a row to `metrics.jsonl` in the run folder, a JSON object \
                    with these keys. Names are those of TRL where TRL has one. Keys of parts that a kind of training does not have \
                    are absent. `--log json` prints the same row as the event `step`.\n"
        .to_owned();
    metrics_of("StepReport", &structs, &mut page);
    page
}

// Flags are missing from the pages without the features that they belong to.
#[cfg_attr(
    not(all(feature = "demo", feature = "http", feature = "parquet", feature = "ui")),
    ignore = "the pages are those of the default features"
)]
#[test]
fn the_reference_is_what_the_program_has() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference");
    let pages = [("flags.md", flags_page()), ("config.md", config_page()), ("metrics.md", metrics_page())];
    for (name, page) in pages {
        let path = format!("{folder}/{name}");
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == page,
            "{path} is out of date: UPDATE_REFERENCE=1 cargo test --lib reference writes it"
        );
    }
}
