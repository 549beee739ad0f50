//! Names of types that stand for different things in two crates.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    ItemEnum, ItemMod, ItemStruct, ItemTrait, ItemType, ItemUnion,
    visit::{self, Visit},
};

use crate::sources::{Source, is_for_tests};

/// The names that types of several packages have, with these packages. Tests, and a type alias of an adapter's own, are left out.
///
/// # Errors
/// When a file is no Rust.
pub fn shared(sources: &[Source]) -> syn::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.is_shipped) {
        let mut walk = Walk::default();
        walk.visit_file(&source.parsed()?);
        for name in walk.names {
            packages
                .entry(name)
                .or_default()
                .insert(source.package().to_owned());
        }
    }
    packages.retain(|_, packages| packages.len() > 1);
    Ok(packages)
}

#[derive(Default)]
struct Walk {
    names: BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.names.insert(item.ident.to_string());
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        self.names.insert(item.ident.to_string());
    }

    fn visit_item_union(&mut self, item: &'ast ItemUnion) {
        self.names.insert(item.ident.to_string());
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.names.insert(item.ident.to_string());
    }

    fn visit_item_type(&mut self, item: &'ast ItemType) {
        self.names.insert(item.ident.to_string());
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}
