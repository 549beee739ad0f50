//! The fields of log lines, as the macros of `tracing` name them.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::sources::Source;

/// The macros that write a line, or open a span around lines.
const MACROS: [&str; 8] = [
    "error",
    "warn",
    "info",
    "debug",
    "trace",
    "info_span",
    "debug_span",
    "error_span",
];

/// The fields of a file's log lines, each with the lines of the file that name it.
///
/// # Errors
/// When it is no Rust.
pub fn of(source: &Source) -> Result<BTreeMap<String, Vec<usize>>, proc_macro2::LexError> {
    let mut found = BTreeMap::new();
    look(source.text.parse()?, &mut found);
    Ok(found)
}

/// Looks for `tracing::NAME!(…)`.
fn look(tokens: TokenStream, found: &mut BTreeMap<String, Vec<usize>>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        let is_call =
            group.delimiter() == Delimiter::Parenthesis && at >= 5 && is_path(&tokens[at - 5..at]);
        if is_call {
            for (name, line) in group
                .stream()
                .into_iter()
                .collect::<Vec<_>>()
                .split(is_comma)
                .filter_map(field)
            {
                found.entry(name).or_default().push(line);
            }
        }
        look(group.stream(), found);
    }
}

/// Whether these are `tracing :: NAME !`.
fn is_path(tokens: &[TokenTree]) -> bool {
    let words: Vec<_> = tokens.iter().map(ToString::to_string).collect();
    matches!(words.as_slice(), [tracing, _, _, name, mark]
        if tracing == "tracing" && MACROS.contains(&name.as_str()) && mark == "!")
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
