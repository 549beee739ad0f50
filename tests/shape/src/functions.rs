//! How long functions are.

use syn::{
    Attribute, Block, ImplItemFn, ItemFn, ItemMod, Signature, TraitItemFn,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::sources::{Source, is_for_tests};

/// A function of what is shipped.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its file.
    pub path: String,
    /// The line it begins at, from 1.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// How many lines it has, from its signature to its closing brace.
    pub lines: usize,
}

/// The functions of a file, but for tests.
///
/// # Errors
/// When it is no Rust.
pub fn of(source: &Source) -> syn::Result<Vec<Function>> {
    let mut walk = Walk {
        path: &source.path,
        functions: Vec::new(),
    };
    walk.visit_file(&source.parsed()?);
    Ok(walk.functions)
}

struct Walk<'a> {
    path: &'a str,
    functions: Vec<Function>,
}

impl Walk<'_> {
    fn note(&mut self, attributes: &[Attribute], signature: &Signature, block: &Block) {
        if is_for_tests(attributes) {
            return;
        }
        let (first, last) = (signature.span().start().line, block.span().end().line);
        self.functions.push(Function {
            path: self.path.to_owned(),
            line: first,
            name: signature.ident.to_string(),
            lines: last - first + 1,
        });
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.note(&item.attrs, &item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.note(&item.attrs, &item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.note(&item.attrs, &item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}
