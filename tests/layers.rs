//! In these modules the imports form no cycles: no two files need each other, directly or indirectly. A re-export in a
//! `mod.rs` counts for the file that defines the item.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ROOMS: [&str; 3] = ["gpu", "ops", "tuning"];

/// The code of each module, such as `gpu::shader::text`, without comments and unit tests.
fn modules(dir: &Path, module: &str, out: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let child = format!("{module}::{}", path.file_stem().unwrap().to_str().unwrap());
        if path.is_dir() {
            modules(&path, &child, out);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>();
        out.insert(
            child.strip_suffix("::mod").unwrap_or(&child).to_owned(),
            format!("\n{}", code.join("\n")),
        );
    }
}

/// Adds the paths of the use tree at the beginning of `text`, such as `a::{b, c::{d, e}}`; returns the rest of the
/// text.
fn expand<'a>(text: &'a str, prefix: &str, out: &mut Vec<String>) -> &'a str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (path, mut rest) = (format!("{prefix}{}", &text[..end]), &text[end..]);
    let Some(inner) = rest.strip_prefix('{') else {
        out.push(path);
        return rest;
    };
    rest = inner.trim_start();
    while !rest.starts_with('}') {
        rest = expand(rest, &path, out);
        // Skips `as name`.
        rest = &rest[rest.find([',', '}']).expect("a tree ends")..];
        rest = rest.trim_start_matches(',').trim_start();
    }
    &rest[1..]
}

/// All paths in `code` that begin with `start`, where `start` is not preceded by a part of a name.
fn paths(code: &str, start: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(start) {
        let inside_a_name = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        rest = match inside_a_name {
            true => &rest[at + start.len()..],
            false => expand(&rest[at..], "", &mut out),
        };
    }
    out
}

/// The module that defines the item of an absolute path.
fn defining(modules: &BTreeMap<String, String>, path: &str) -> String {
    let (mut module, mut names) = (String::new(), path.split("::").filter(|name| !name.is_empty()));
    while let Some(name) = names.next() {
        let child = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
        if modules.contains_key(&child) {
            module = child;
            continue;
        }
        let exported = children(modules, &module, " use ");
        let found = exported.into_iter().find(|path| path.rsplit("::").next() == Some(name));
        return found.map_or(module.clone(), |path| {
            let rest: Vec<&str> = names.collect();
            defining(modules, &[&format!("{module}::{path}"), rest.join("::").as_str()].join("::"))
        });
    }
    module
}

/// Paths that begin with a child of `module` and are preceded by `before`, without `before`.
fn children(modules: &BTreeMap<String, String>, module: &str, before: &str) -> Vec<String> {
    let Some(code) = modules.get(module) else { return Vec::new() };
    let names = modules.keys().filter_map(|other| other.strip_prefix(module)?.strip_prefix("::"));
    let mut out = Vec::new();
    for name in names.filter(|name| !name.contains("::")) {
        for (at, start) in code.match_indices(&format!("{before}{name}::")) {
            expand(&code[at + start.len()..], &format!("{name}::"), &mut out);
        }
    }
    out
}

#[test]
fn imports_within_a_module_form_no_cycles() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = BTreeMap::new();
    ROOMS.iter().for_each(|room| modules(&src.join(room), room, &mut all));
    let mut imports: BTreeSet<(String, String)> = BTreeSet::new();
    for (module, code) in &all {
        let mut named = children(&all, module, "\nuse ");
        named.iter_mut().for_each(|path| *path = format!("{module}::{path}"));
        for path in paths(code, "super::") {
            let (mut parent, mut path) = (module.as_str(), path.as_str());
            while let Some(rest) = path.strip_prefix("super::") {
                parent = parent.rsplit_once("::").map_or("", |(parent, _)| parent);
                path = rest;
            }
            named.push(format!("{parent}::{path}"));
        }
        for room in ROOMS {
            let found = paths(code, &format!("crate::{room}::"));
            named.extend(found.iter().map(|path| path.trim_start_matches("crate::").to_owned()));
        }
        let needed = named.iter().map(|path| defining(&all, path));
        imports.extend(needed.filter(|other| other != module).map(|other| (module.clone(), other)));
    }
    assert!(imports.len() > 100, "{} imports found", imports.len());
    // Modules that import nothing, or that are imported by none, are in no cycle.
    loop {
        let from: BTreeSet<_> = imports.iter().map(|(from, _)| from.clone()).collect();
        let to: BTreeSet<_> = imports.iter().map(|(_, to)| to.clone()).collect();
        let before = imports.len();
        imports.retain(|(a, b)| from.contains(b) && to.contains(a));
        if imports.len() == before {
            break;
        }
    }
    assert!(imports.is_empty(), "imports that form cycles: {imports:#?}");
}
