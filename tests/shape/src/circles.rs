//! Circles of imports: modules of one package that need each other.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    ItemMod, ItemUse, Path, UseTree,
    visit::{self, Visit},
};

use crate::sources::{Source, is_for_tests};

/// Which top-level module of a package names which others.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The circles of a package's top-level modules: each a set of modules that reach one another. Tests are left out.
///
/// # Errors
/// When a file is no Rust.
pub fn of(package: &str, sources: &[Source]) -> syn::Result<Vec<BTreeSet<String>>> {
    let mut imports = Imports::new();
    for source in sources
        .iter()
        .filter(|source| source.is_shipped && source.package() == package)
    {
        let Some(module) = module(source) else {
            continue;
        };
        let mut walk = Walk {
            module: &module,
            named: BTreeSet::new(),
        };
        walk.visit_file(&source.parsed()?);
        imports
            .entry(module[0].clone())
            .or_default()
            .extend(walk.named);
    }
    let known: BTreeSet<String> = imports.keys().cloned().collect();
    for (module, named) in &mut imports {
        named.retain(|name| name != module && known.contains(name));
    }
    Ok(circles(&imports))
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
    named: BTreeSet<String>,
}

impl Walk<'_> {
    /// Notes the top-level module that a path leads to, if it is one of this package.
    fn note(&mut self, segments: &[String]) {
        let ups = segments
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let target = match segments.first().map(String::as_str) {
            Some("crate") => segments.get(1),
            // From a module of depth n, n times `super` is the root.
            Some("super") if ups == self.module.len() => segments.get(ups),
            _ => None,
        };
        self.named.extend(target.cloned());
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
            source("a.rs", "use crate::{b::B, d};"),
            source("b/inner.rs", "fn f() -> super::super::c::C { todo!() }"),
            source("c.rs", "fn f() { crate::a::g(); }"),
            source("d.rs", "#[cfg(test)] mod tests { use crate::a; }"),
        ];
        let expected: BTreeSet<_> = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(of("p", &sources).expect("they parse"), [expected]);
    }
}
