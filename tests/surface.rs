//! The public API of the library, docs/surface.rs, is what the crate exports outside of `oaif::unstable`: the file
//! makes changes visible in review. Methods and fields of exported types that name an unstable type are unstable as
//! well and are not listed, nor are the setters derived by `Setters`, one per field, and implementations written by
//! macros.
//!
//!     UPDATE_SURFACE=1 cargo test --test surface

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, ItemMod, TraitItem, Type, UseTree, Visibility};

const LISTING: &str = "docs/surface.rs";

/// Foreign traits whose manual implementations are listed.
const TRAITS: [&str; 9] =
    ["From", "TryFrom", "FromStr", "Default", "Clone", "PartialEq", "Debug", "Display", "Serialize"];

/// The items of a source file, and its module.
struct Source {
    module: String,
    items: Vec<Item>,
}

/// An item of the public API, with its cfg attributes.
struct Export {
    path: String,
    cfg: Vec<Attribute>,
}

impl Export {
    fn name(&self) -> &str {
        self.path.rsplit("::").next().unwrap()
    }
}

struct Surface {
    sources: Vec<Source>,
    /// The exports of each module (the root has an empty name).
    modules: Vec<(String, Vec<Export>)>,
    /// Names of the types that are not exported.
    unstable: BTreeSet<String>,
    /// Names of exported traits.
    traits: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn parsed(path: &Path) -> Vec<Item> {
    let text = fs::read_to_string(path).unwrap();
    syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())).items
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
            out.push(Source { module: child, items: parsed(&path) });
        }
    }
}

/// The exports of `lib.rs`. All are re-exported from `unstable`; an item defined in `lib.rs` itself would be missed.
fn exported(items: &[Item], module: &str, out: &mut Vec<(String, Vec<Export>)>) {
    let mut exports = Vec::new();
    for item in items {
        match item {
            Item::Use(item) if is_public(&item.vis) => {
                let cfg: Vec<_> = item.attrs.iter().filter(|a| a.path().is_ident("cfg")).cloned().collect();
                let mut paths = Vec::new();
                leaves(&item.tree, "", &mut paths);
                exports.extend(paths.into_iter().map(|path| Export { path, cfg: cfg.clone() }));
            }
            Item::Mod(ItemMod { content: Some((_, items)), ident, vis, .. }) => {
                assert!(is_public(vis), "{ident} is for re-exports");
                exported(items, &ident.to_string(), out);
            }
            Item::Use(_) | Item::Mod(_) => {}
            other => {
                panic!("lib.rs defines {:?}: define it in a module", name_of(other).map(|(name, _)| name))
            }
        }
    }
    out.push((module.to_owned(), exports));
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

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

fn is_hidden(attrs: &[Attribute]) -> bool {
    let hidden =
        |a: &Attribute| matches!(&a.meta, syn::Meta::List(list) if list.tokens.to_string() == "hidden");
    attrs.iter().any(|a| a.path().is_ident("doc") && hidden(a))
}

/// Removes docs and internal attributes.
fn bare(attrs: &mut Vec<Attribute>) {
    attrs.retain(|a| ["derive", "non_exhaustive", "cfg"].iter().any(|kept| a.path().is_ident(kept)));
}

/// Finds out whether a signature names something unstable.
struct Names<'n> {
    unstable: &'n BTreeSet<String>,
    found: bool,
}

impl Visit<'_> for Names<'_> {
    fn visit_path(&mut self, path: &syn::Path) {
        let last = path.segments.last().unwrap().ident.to_string();
        let first = path.segments[0].ident.to_string();
        let is_anothers = path.segments.len() > 1 && ["Self", "fmt", "std", "wgpu"].contains(&first.as_str());
        self.found |= !is_anothers && self.unstable.contains(&last);
        syn::visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, _: &Attribute) {}
}

impl Surface {
    fn read() -> Surface {
        let (mut all, mut modules) = (Vec::new(), Vec::new());
        sources(&root().join("src"), "", &mut all);
        exported(&parsed(&root().join("src/lib.rs")), "", &mut modules);
        modules.sort_by(|a, b| a.0.cmp(&b.0));
        let exports = || modules.iter().flat_map(|(_, exports)| exports);
        let stable: BTreeSet<&str> = exports().map(Export::name).collect();
        let (mut unstable, mut traits) = (BTreeSet::new(), BTreeSet::new());
        for item in all.iter().flat_map(|source| &source.items) {
            let Some((name, _)) = name_of(item) else { continue };
            let name = name.to_string();
            match stable.contains(name.as_str()) {
                true if matches!(item, Item::Trait(_)) => drop(traits.insert(name)),
                false if !matches!(item, Item::Fn(_) | Item::Const(_)) => {
                    unstable.insert(name);
                }
                _ => {}
            }
        }
        Surface { sources: all, modules, unstable, traits }
    }

    fn is_stable(&self, visit: impl FnOnce(&mut Names)) -> bool {
        let mut names = Names { unstable: &self.unstable, found: false };
        visit(&mut names);
        !names.found
    }

    /// The definition of an exported path: in its module, in one below it, or in the module from which it is
    /// re-exported.
    fn definition(&self, path: &str) -> (&Source, &Item) {
        let path = path.trim_start_matches("crate::").trim_start_matches("unstable::");
        let (module, name) = path.rsplit_once("::").unwrap_or(("", path));
        let is = |item: &Item| name_of(item).is_some_and(|(n, vis)| n == name && is_public(vis));
        let found = |inside: &str| -> Vec<(&Source, &Item)> {
            let within =
                self.sources.iter().filter(|source| format!("{}::", source.module).starts_with(inside));
            within
                .flat_map(|source| source.items.iter().map(move |item| (source, item)))
                .filter(|(_, item)| is(item))
                .collect()
        };
        let within = if module.is_empty() { String::new() } else { format!("::{module}::") };
        let mut candidates = found(&within);
        if candidates.is_empty() {
            candidates = found("");
        }
        // The definition closest to the export.
        candidates.sort_by_key(|(source, _)| source.module.len());
        *candidates.first().unwrap_or_else(|| panic!("{path} is defined nowhere"))
    }

    fn outline_fields(&self, fields: &mut Fields, of_enum: bool) {
        match fields {
            Fields::Named(named) => {
                let kept = std::mem::take(&mut named.named).into_iter().filter(|field| {
                    let shown = (of_enum || is_public(&field.vis)) && !is_hidden(&field.attrs);
                    shown && self.is_stable(|n| n.visit_type(&field.ty))
                });
                named.named = kept.collect();
            }
            // Private fields are not part of the API.
            Fields::Unnamed(all) if !of_enum && !all.unnamed.iter().all(|field| is_public(&field.vis)) => {
                *fields = Fields::Named(syn::parse_quote!({}));
            }
            Fields::Unnamed(_) | Fields::Unit => {}
        }
        fields.iter_mut().for_each(|field| bare(&mut field.attrs));
    }

    /// The item as seen by a user.
    fn outline(&self, item: &Item, cfg: &[Attribute]) -> Item {
        let mut item = item.clone();
        match &mut item {
            Item::Struct(x) => {
                bare(&mut x.attrs);
                self.outline_fields(&mut x.fields, false);
                x.semi_token = None;
            }
            Item::Enum(x) => {
                bare(&mut x.attrs);
                for variant in &mut x.variants {
                    bare(&mut variant.attrs);
                    self.outline_fields(&mut variant.fields, true);
                }
            }
            Item::Trait(x) => {
                bare(&mut x.attrs);
                x.items.retain(
                    |item| matches!(item, TraitItem::Fn(f) if self.is_stable(|n| n.visit_signature(&f.sig))),
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
        let attrs = match &mut item {
            Item::Struct(x) => &mut x.attrs,
            Item::Enum(x) => &mut x.attrs,
            Item::Trait(x) => &mut x.attrs,
            Item::Fn(x) => &mut x.attrs,
            _ => return item,
        };
        if !attrs.iter().any(|a| a.path().is_ident("cfg")) {
            attrs.extend_from_slice(cfg);
        }
        item
    }

    /// The methods of a type and its implementations of foreign traits, or the implementors of a trait.
    fn implementations(&self, of: &str, top: &str) -> Vec<ItemImpl> {
        let mut out = Vec::new();
        let is_trait = self.traits.contains(of);
        for Source { module, items } in &self.sources {
            if !is_trait && !top.is_empty() && !format!("{module}::").starts_with(&format!("::{top}::")) {
                continue;
            }
            for item in items {
                let Item::Impl(found) = item else { continue };
                if self.concerns(found, of, is_trait)
                    && let Some(listed) = self.outline_impl(found)
                {
                    out.push(listed);
                }
            }
        }
        out
    }

    fn concerns(&self, found: &ItemImpl, of: &str, is_trait: bool) -> bool {
        let of_type =
            matches!(&*found.self_ty, Type::Path(path) if path.path.segments.last().unwrap().ident == of);
        match &found.trait_ {
            None => of_type,
            Some((_, path, _)) if is_trait => {
                path.segments.last().unwrap().ident == of && self.is_stable(|n| n.visit_type(&found.self_ty))
            }
            Some((_, path, _)) => {
                let name = path.segments.last().unwrap().ident.to_string();
                of_type && TRAITS.contains(&name.as_str()) && self.is_stable(|n| n.visit_path(path))
            }
        }
    }

    fn outline_impl(&self, found: &ItemImpl) -> Option<ItemImpl> {
        let mut found = found.clone();
        bare(&mut found.attrs);
        if found.trait_.is_some() {
            found.items.clear();
            return Some(found);
        }
        found.items.retain(|item| match item {
            ImplItem::Fn(f) => {
                is_public(&f.vis) && !is_hidden(&f.attrs) && self.is_stable(|n| n.visit_signature(&f.sig))
            }
            ImplItem::Const(c) => is_public(&c.vis) && self.is_stable(|n| n.visit_type(&c.ty)),
            _ => false,
        });
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
        (!found.items.is_empty()).then_some(found)
    }

    fn listing(&self) -> String {
        let (mut text, mut count) = (String::new(), 0);
        for (module, exports) in &self.modules {
            let mut items: BTreeMap<&str, Vec<Item>> = BTreeMap::new();
            for export in exports.iter().filter(|export| export.path != "wgpu") {
                let (source, item) = self.definition(&export.path);
                let top = source.module.trim_start_matches("::").split("::").next().unwrap();
                let outlined = std::iter::once(self.outline(item, &export.cfg));
                let impls = self.implementations(export.name(), top).into_iter().map(Item::Impl);
                items.insert(export.name(), outlined.chain(impls).collect());
                count += 1;
            }
            let items = items.into_values().flatten().collect();
            let code = prettyplease::unparse(&syn::File { shebang: None, attrs: Vec::new(), items });
            match module.as_str() {
                "" => text.push_str(&code),
                _ => {
                    let indent =
                        |line: &str| if line.is_empty() { "\n".into() } else { format!("    {line}\n") };
                    let indented: String = code.lines().map(indent).collect();
                    text.push_str(&format!("\npub mod {module} {{\n{indented}}}\n"));
                }
            }
        }
        let head = format!(
            "// The surface of the crate, {count} items, as tests/surface.rs lists it: UPDATE_SURFACE=1 cargo test --test surface.\n\
             // Bodies, private fields and what is of oaif::unstable are left out; options have a setter for each field.\n\n"
        );
        head + &text
    }
}

#[test]
fn the_public_api_matches_the_listing() {
    let now = Surface::read().listing();
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
    let examples = ["embed.rs", "own_device.rs", "generate.rs", "align.rs"]
        .map(|file| root().join("examples").join(file));
    let window =
        fs::read_dir(root().join("examples/desktop/src")).unwrap().map(|entry| entry.unwrap().path());
    for file in examples.into_iter().chain(window).chain([root().join("tests/embedding.rs")]) {
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(!text.contains("unstable"), "{}", file.display());
    }
}
