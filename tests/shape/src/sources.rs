//! The Rust files of the workspace.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folders with code that is shipped.
const SHIPPED: [&str; 3] = ["crates", "cli", "functions"];
/// The folder with everything that tests it.
const TESTS: &str = "tests";

/// A Rust file.
#[derive(Debug)]
pub struct Source {
    /// Its path within the workspace, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
    /// Whether it is a part of what is shipped, and not only of the tests.
    pub is_shipped: bool,
}

impl Source {
    /// The package it is of: `domain`, `cli`, `functions/submit`, `tests`.
    #[must_use]
    pub fn package(&self) -> &str {
        let mut parts = self.path.splitn(3, '/');
        match (parts.next(), parts.next()) {
            (Some("crates"), Some(name)) => name,
            (Some("functions"), Some(name)) => &self.path[.."functions/".len() + name.len()],
            (Some(first), _) => first,
            (None, _) => &self.path,
        }
    }

    /// Its syntax tree.
    ///
    /// # Errors
    /// When it is no Rust.
    pub fn parsed(&self) -> syn::Result<syn::File> {
        syn::parse_file(&self.text)
    }
}

/// All Rust files below `root`, by path.
///
/// # Errors
/// When one cannot be read.
pub fn all(root: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for folder in SHIPPED.into_iter().chain([TESTS]) {
        for path in rust_files(&root.join(folder))? {
            let text = fs::read_to_string(&path)?;
            let path = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .replace('\\', "/");
            let is_shipped = folder != TESTS && path.contains("/src/");
            sources.push(Source {
                path,
                text,
                is_shipped,
            });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether an item is compiled for tests only: `#[cfg(test)]`, `#[test]`, `#[tokio::test]`.
#[must_use]
pub fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        let is_test = path
            .segments
            .last()
            .is_some_and(|segment| segment.ident == "test");
        let is_cfg = path.is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"));
        is_test || is_cfg
    })
}
