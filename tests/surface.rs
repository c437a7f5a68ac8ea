//! The library's surface, docs/surface.rs, is what the crate exports outside of `oaif::unstable`: a change of it shows in
//! review. What of an exported type names something unstable is as unstable as that, and is not listed.
//!
//!     UPDATE_SURFACE=1 cargo test --test surface

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, ItemMod, TraitItem, Type, UseTree, Visibility};

const LISTING: &str = "docs/surface.rs";

/// What signatures may name besides the surface: the standard library's, and what serves as such.
const COMMON: &[&str] = &[
    "Arc",
    "AsRef",
    "BTreeMap",
    "Box",
    "Display",
    "Duration",
    "Error",
    "Fn",
    "From",
    "Future",
    "Into",
    "IntoIterator",
    "Iterator",
    "Item",
    "Option",
    "Output",
    "Path",
    "PathBuf",
    "Result",
    "Self",
    "Send",
    "String",
    "Sync",
    "Value",
    "Vec",
    "bool",
    "f32",
    "f64",
    "i32",
    "i64",
    "io",
    "serde_json",
    "std",
    "str",
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
    "web_time",
    "wgpu",
];

/// A source file's items, and the module that it is.
struct Source {
    module: String,
    items: Vec<Item>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, module: &str, out: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let child = if name == "mod" { module.to_owned() } else { format!("{module}::{name}") };
        if path.is_dir() {
            sources(&path, &child, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let items = syn::parse_file(&fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
                .items;
            out.push(Source { module: child, items });
        }
    }
}

/// What `lib.rs` exports: for each of its modules (the root's is empty) the paths of the items.
fn exported(items: &[Item], module: &str, out: &mut Vec<(String, Vec<String>)>) {
    let mut paths = Vec::new();
    for item in items {
        match item {
            Item::Use(item) if matches!(item.vis, Visibility::Public(_)) => {
                leaves(&item.tree, "", &mut paths)
            }
            Item::Mod(ItemMod { content: Some((_, items)), ident, .. }) => {
                exported(items, &ident.to_string(), out)
            }
            _ => {}
        }
    }
    out.push((module.to_owned(), paths));
}

fn leaves(tree: &UseTree, prefix: &str, out: &mut Vec<String>) {
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &format!("{prefix}{}::", path.ident), out),
        UseTree::Name(name) => out.push(format!("{prefix}{}", name.ident)),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, prefix, out)),
        UseTree::Rename(_) | UseTree::Glob(_) => panic!("an export is named as what it is"),
    }
}

fn name_of(item: &Item) -> Option<(&syn::Ident, &Visibility)> {
    Some(match item {
        Item::Struct(x) => (&x.ident, &x.vis),
        Item::Enum(x) => (&x.ident, &x.vis),
        Item::Trait(x) => (&x.ident, &x.vis),
        Item::Fn(x) => (&x.sig.ident, &x.vis),
        Item::Const(x) => (&x.ident, &x.vis),
        Item::Type(x) => (&x.ident, &x.vis),
        _ => return None,
    })
}

/// Finds the definition of an exported path: in its module, in one below it, or wherever that re-exports it from.
fn definition<'s>(sources: &'s [Source], path: &str) -> (&'s Source, &'s Item) {
    let path = path.trim_start_matches("crate::").trim_start_matches("unstable::");
    let (module, name) = path.rsplit_once("::").unwrap_or(("", path));
    let found = |inside: &str| -> Vec<(&Source, &Item)> {
        let of = |source: &'s Source| source.items.iter().map(move |item| (source, item));
        let inside = format!("{inside}::");
        let is = |source: &Source, item: &Item| {
            format!("{}::", source.module).starts_with(&inside)
                && name_of(item)
                    .is_some_and(|(ident, vis)| ident == name && matches!(vis, Visibility::Public(_)))
        };
        sources.iter().flat_map(of).filter(|(source, item)| is(source, item)).collect()
    };
    let mut candidates = found(&format!("::{module}").replace("::::", "::"));
    if candidates.is_empty() {
        candidates = found("");
    }
    // The nearest to where it is exported.
    candidates.sort_by_key(|(source, _)| source.module.len());
    *candidates.first().unwrap_or_else(|| panic!("{path} is defined nowhere"))
}

/// Whether everything that a signature names is stable.
struct Names<'n> {
    stable: &'n BTreeSet<String>,
    unstable: bool,
}

impl Visit<'_> for Names<'_> {
    fn visit_path(&mut self, path: &syn::Path) {
        let name = path.segments.last().unwrap().ident.to_string();
        let is_generic = name.len() == 1;
        let outside = path.segments.len() > 1 && path.segments[0].ident == "wgpu";
        if !is_generic && !outside && !self.stable.contains(&name) && !COMMON.contains(&name.as_str()) {
            self.unstable = true;
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, _: &Attribute) {}
}

fn is_stable(stable: &BTreeSet<String>, visit: impl FnOnce(&mut Names)) -> bool {
    let mut names = Names { stable, unstable: false };
    visit(&mut names);
    !names.unstable
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

fn is_hidden(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|a| {
        a.path().is_ident("doc")
            && matches!(&a.meta, syn::Meta::List(list) if list.tokens.to_string() == "hidden")
    })
}

/// Without docs, and what serves the inside.
fn bare(attrs: &mut Vec<Attribute>) {
    attrs.retain(|a| ["derive", "non_exhaustive", "cfg"].iter().any(|kept| a.path().is_ident(kept)));
}

fn bare_fields(fields: &mut Fields, of_enum: bool, stable: &BTreeSet<String>) {
    if let Fields::Named(named) = fields {
        let kept = std::mem::take(&mut named.named).into_iter().filter(|field| {
            (of_enum || is_public(&field.vis))
                && !is_hidden(&field.attrs)
                && is_stable(stable, |n| n.visit_type(&field.ty))
        });
        named.named = kept.collect();
    }
    fields.iter_mut().for_each(|field| bare(&mut field.attrs));
}

/// The item as its user sees it.
fn outline(item: &Item, stable: &BTreeSet<String>) -> Item {
    let mut item = item.clone();
    match &mut item {
        Item::Struct(x) => {
            bare(&mut x.attrs);
            bare_fields(&mut x.fields, false, stable);
            if matches!(&x.fields, Fields::Unnamed(fields) if !fields.unnamed.iter().all(|f| is_public(&f.vis)))
            {
                x.fields = Fields::Unit;
            }
        }
        Item::Enum(x) => {
            bare(&mut x.attrs);
            for variant in &mut x.variants {
                bare(&mut variant.attrs);
                bare_fields(&mut variant.fields, true, stable);
            }
        }
        Item::Trait(x) => {
            bare(&mut x.attrs);
            x.items.retain(
                |item| matches!(item, TraitItem::Fn(f) if is_stable(stable, |n| n.visit_signature(&f.sig))),
            );
            for item in &mut x.items {
                let TraitItem::Fn(f) = item else { continue };
                bare(&mut f.attrs);
                f.default = f.default.as_ref().map(|_| syn::parse_quote!({}));
            }
        }
        Item::Fn(x) => {
            bare(&mut x.attrs);
            *x.block = syn::parse_quote!({});
        }
        Item::Const(x) => {
            bare(&mut x.attrs);
            *x.expr = syn::parse_quote!(..);
        }
        Item::Type(x) => bare(&mut x.attrs),
        _ => {}
    }
    item
}

/// Inherent methods, and the traits of this crate and the standard library that somebody implements by hand.
fn implementations(sources: &[Source], of: &str, top: &str, stable: &BTreeSet<String>) -> Vec<ItemImpl> {
    let mut out = Vec::new();
    for source in
        sources.iter().filter(|source| top.is_empty() || source.module.starts_with(&format!("::{top}")))
    {
        for item in &source.items {
            let Item::Impl(found) = item else { continue };
            let Type::Path(path) = &*found.self_ty else { continue };
            if path.path.segments.last().unwrap().ident != of {
                continue;
            }
            let mut found = found.clone();
            bare(&mut found.attrs);
            match &found.trait_ {
                Some((_, path, _)) => {
                    let name = path.segments.last().unwrap().ident.to_string();
                    if !["From", "Default", "IntoAnnotationQueue", "Annotator", "Display", "Debug"]
                        .contains(&name.as_str())
                        || !is_stable(stable, |n| {
                            path.segments.iter().for_each(|s| n.visit_path_arguments(&s.arguments))
                        })
                    {
                        continue;
                    }
                    found.items.clear();
                }
                None => {
                    found.items.retain(|item| match item {
                        ImplItem::Fn(f) => {
                            is_public(&f.vis)
                                && !is_hidden(&f.attrs)
                                && is_stable(stable, |n| n.visit_signature(&f.sig))
                        }
                        ImplItem::Const(c) => is_public(&c.vis) && is_stable(stable, |n| n.visit_type(&c.ty)),
                        _ => false,
                    });
                    if found.items.is_empty() {
                        continue;
                    }
                    for item in &mut found.items {
                        match item {
                            ImplItem::Fn(f) => {
                                bare(&mut f.attrs);
                                f.block = syn::parse_quote!({});
                            }
                            ImplItem::Const(c) => {
                                bare(&mut c.attrs);
                                c.expr = syn::parse_quote!(..);
                            }
                            _ => {}
                        }
                    }
                }
            }
            out.push(found);
        }
    }
    out
}

/// The listing, and how many items it has.
fn listing() -> (String, usize) {
    let mut all = Vec::new();
    sources(&root().join("src"), "", &mut all);
    let lib = syn::parse_file(&fs::read_to_string(root().join("src/lib.rs")).unwrap()).unwrap();
    let mut modules = Vec::new();
    exported(&lib.items, "", &mut modules);
    modules.sort();
    let mut stable = BTreeSet::new();
    for (_, paths) in &modules {
        stable.extend(paths.iter().map(|path| path.rsplit("::").next().unwrap().to_owned()));
    }
    let (mut text, mut count) = (String::new(), 0);
    for (module, paths) in &modules {
        let mut items: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for path in paths.iter().filter(|path| *path != "wgpu") {
            let (source, item) = definition(&all, path);
            let name = path.rsplit("::").next().unwrap();
            let top = source.module.trim_start_matches("::").split("::").next().unwrap();
            let outlined = std::iter::once(outline(item, &stable));
            let impls = implementations(&all, name, top, &stable).into_iter().map(Item::Impl);
            items.insert(name.to_owned(), outlined.chain(impls).collect());
            count += 1;
        }
        let items = items.into_values().flatten().collect();
        let code = prettyplease::unparse(&syn::File { shebang: None, attrs: Vec::new(), items });
        match module.as_str() {
            "" => text.push_str(&code),
            _ => {
                let indented: String =
                    code.lines().map(|line| format!("    {line}\n").replace("    \n", "\n")).collect();
                text.push_str(&format!("\npub mod {module} {{\n{indented}}}\n"));
            }
        }
    }
    let head = format!(
        "// The surface of the crate, {count} items, as tests/surface.rs lists it: UPDATE_SURFACE=1 cargo test --test surface.\n\
         // Bodies, private fields and what is of oaif::unstable are left out; options have a setter for each field.\n\n"
    );
    (head + &text, count)
}

#[test]
fn the_surface_is_what_the_listing_says() {
    let (now, _) = listing();
    let path = root().join(LISTING);
    if std::env::var_os("UPDATE_SURFACE").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let listed = fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<String>>();
    let (old, new) = (lines(&listed), lines(&now));
    let gone: Vec<_> = old.difference(&new).collect();
    let come: Vec<_> = new.difference(&old).collect();
    assert!(
        listed == now,
        "{LISTING} is out of date, run UPDATE_SURFACE=1 cargo test --test surface\n- {gone:#?}\n+ {come:#?}"
    );
}

#[test]
fn the_examples_of_applications_use_nothing_unstable() {
    let mut files: Vec<PathBuf> = ["embed.rs", "own_device.rs", "generate.rs", "align.rs"]
        .map(|file| root().join("examples").join(file))
        .into();
    files.extend(
        fs::read_dir(root().join("examples/desktop/src")).unwrap().map(|entry| entry.unwrap().path()),
    );
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(!text.contains("unstable"), "{}", file.display());
    }
}
