//! The fields of log lines, as the macros of `tracing` name them.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::sources::Source;

/// The macros that write a line.
const EVENTS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// The end of the name of a macro that opens a span around lines.
const SPAN: &str = "_span";

/// A place that names a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line of the file, from 1.
    pub line: usize,
    /// Whether it is the field of a span, which all lines within the span have.
    pub of_span: bool,
}

/// The fields of a file's log lines, each with the places that name it.
///
/// # Errors
/// When it is no Rust.
pub fn of(source: &Source) -> Result<BTreeMap<String, Vec<Place>>, proc_macro2::LexError> {
    let mut found = BTreeMap::new();
    look(source.text.parse()?, &mut found);
    Ok(found)
}

/// Whether a file logs in another way than by `tracing::NAME!`, which [`of`] does not see.
#[must_use]
pub fn is_hidden(source: &Source) -> bool {
    let imports_macro = |line: &str| {
        let names = line.strip_prefix("use tracing::").unwrap_or_default();
        let mut names = names.split(|c: char| !c.is_alphanumeric() && c != '_');
        names.any(|name| EVENTS.contains(&name) || name.ends_with(SPAN) || name == "instrument")
    };
    source.text.lines().any(imports_macro)
        || source.text.contains("tracing::instrument")
        || source.text.contains("tracing::event!")
}

/// Looks for `tracing::NAME!(…)`.
fn look(tokens: TokenStream, found: &mut BTreeMap<String, Vec<Place>>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        let before = &tokens[at.saturating_sub(5)..at];
        let is_call = group.delimiter() == Delimiter::Parenthesis;
        if let Some(of_span) = kind(before).filter(|_| is_call) {
            let arguments: Vec<_> = group.stream().into_iter().collect();
            for (name, line) in arguments.split(is_comma).filter_map(field) {
                let place = Place { line, of_span };
                found.entry(name).or_default().push(place);
            }
        }
        look(group.stream(), found);
    }
}

/// Whether `tracing :: NAME !` opens a span. `None` for anything else.
fn kind(tokens: &[TokenTree]) -> Option<bool> {
    let words: Vec<_> = tokens.iter().map(ToString::to_string).collect();
    match words.as_slice() {
        [tracing, _, _, name, mark] if tracing == "tracing" && mark == "!" => {
            let of_span = name.ends_with(SPAN);
            (of_span || EVENTS.contains(&name.as_str())).then_some(of_span)
        }
        _ => None,
    }
}

fn is_comma(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',')
}

/// The name in `name = …`, `name`, `%name` or `?name`, and its line. `None` for a message and for
/// `target: …`.
fn field(part: &[TokenTree]) -> Option<(String, usize)> {
    let rest = match part {
        [TokenTree::Punct(mark), rest @ ..] if matches!(mark.as_char(), '%' | '?') => rest,
        rest => rest,
    };
    match rest {
        [TokenTree::Ident(name), TokenTree::Punct(mark), ..] if mark.as_char() == '=' => {
            Some((name.to_string(), name.span().start().line))
        }
        // `letter.body` would be named so.
        [TokenTree::Ident(first), ..] => {
            let name: String = rest.iter().map(ToString::to_string).collect();
            (!name.contains(':')).then(|| (name, first.span().start().line))
        }
        _ => None,
    }
}
