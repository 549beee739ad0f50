//! Circles of imports: modules of one package that need each other.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    ItemMod, ItemUse, Path, UseTree,
    visit::{self, Visit},
};

use crate::sources::{Source, is_for_tests};

/// Which module of a package names which others, by their paths: `request::validate`.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The circles of a package's modules: each a set of modules that reach one another. A module and
/// those within it may name each other freely; tests are left out.
///
/// # Errors
/// When a file is no Rust.
pub fn of(package: &str, sources: &[Source]) -> syn::Result<Vec<BTreeSet<String>>> {
    let own: Vec<_> = sources
        .iter()
        .filter(|source| source.is_shipped && source.package() == package)
        .filter_map(|source| Some((module(source)?, source)))
        .collect();
    let known: BTreeSet<_> = own.iter().map(|(module, _)| module.join("::")).collect();
    let mut imports = Imports::new();
    for (module, source) in &own {
        let mut walk = Walk {
            module,
            named: Vec::new(),
        };
        walk.visit_file(&source.parsed()?);
        let name = module.join("::");
        let named = walk.named.iter().filter_map(|path| longest(path, &known));
        let others = named.filter(|other| !is_within(other, &name) && !is_within(&name, other));
        imports.insert(name.clone(), others.collect());
    }
    Ok(circles(&imports))
}

/// The module that a path leads to: its longest beginning that is one.
fn longest(path: &[String], known: &BTreeSet<String>) -> Option<String> {
    let beginnings = (1..=path.len())
        .rev()
        .map(|length| path[..length].join("::"));
    beginnings.into_iter().find(|name| known.contains(name))
}

/// Whether a module is the other or lies within it.
fn is_within(inner: &str, outer: &str) -> bool {
    inner == outer
        || inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with("::"))
}

/// The path of a file's module within its package; `None` of the root.
fn module(source: &Source) -> Option<Vec<String>> {
    let (_, within) = source.path.split_once("/src/")?;
    let path: Vec<_> = within
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    let is_root = matches!(path[0].as_str(), "lib" | "main" | "bin");
    (!is_root).then_some(path)
}

/// The sets of modules that reach each other and themselves.
fn circles(imports: &Imports) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<String>> = imports
        .keys()
        .map(|module| (module, reached(imports, module)))
        .collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for (module, reached) in &reach {
        let reaches_back =
            |other: &String| reach.get(other).is_some_and(|back| back.contains(*module));
        let circle: BTreeSet<_> = reached
            .iter()
            .filter(|other| reaches_back(other))
            .cloned()
            .collect();
        if circle.len() > 1 && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

fn reached(imports: &Imports, from: &str) -> BTreeSet<String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(module) = next.pop() {
        for other in imports.get(&module).into_iter().flatten() {
            if seen.insert(other.clone()) {
                next.push(other.clone());
            }
        }
    }
    seen
}

struct Walk<'a> {
    module: &'a [String],
    /// The paths from the package's root that the file names.
    named: Vec<Vec<String>>,
}

impl Walk<'_> {
    /// Notes a path, if it leads into this package.
    fn note(&mut self, segments: &[String]) {
        let ups = segments
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        match segments.first().map(String::as_str) {
            Some("crate") => self.named.push(segments[1..].to_vec()),
            Some("super") if ups <= self.module.len() => {
                let above = &self.module[..self.module.len() - ups];
                self.named.push([above, &segments[ups..]].concat());
            }
            _ => {}
        }
    }

    fn note_tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.note_tree(&path.tree, &with(&path.ident)),
            UseTree::Name(name) => self.note(&with(&name.ident)),
            UseTree::Rename(rename) => self.note(&with(&rename.ident)),
            UseTree::Glob(_) => self.note(before),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(tree, before);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.note_tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let segments: Vec<_> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.note(&segments);
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: format!("crates/p/src/{path}"),
            text: text.to_owned(),
            is_shipped: true,
        }
    }

    #[test]
    fn modules_that_need_each_other_are_a_circle_whatever_the_way() {
        let sources = [
            source("lib.rs", "mod a; mod b; mod c; mod d;"),
            source("a.rs", "use crate::{b::inner::B, d};"),
            source("b/inner.rs", "fn f(_: super::super::c::C) {}"),
            source("c.rs", "fn f() { crate::a::g(); }"),
            source("d.rs", "#[cfg(test)] mod tests { use crate::a; }"),
        ];
        let expected: BTreeSet<_> = ["a", "b::inner", "c"].map(str::to_owned).into();
        assert_eq!(of("p", &sources).expect("they parse"), [expected]);
    }
}
