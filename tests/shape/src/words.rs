//! Words that are no identifiers here: the design's dictionary has others for them (DESIGN §3).

use proc_macro2::{TokenStream, TokenTree};

use crate::sources::Source;

/// Each with the word to use.
pub const FORBIDDEN: [(&str, &str); 34] = [
    ("aloft", "launched_ids"),
    ("ambient", "system"),
    ("Ambient", "VirtualSystem"),
    ("brisk", "fast"),
    ("called", "promoted, or what was called"),
    ("ceiling", "adaptive_limit"),
    ("Ceiling", "AdaptiveLimit"),
    ("ears", "listener"),
    ("flight", "batch"),
    ("Flight", "LaunchBatch"),
    ("flights", "launch_batches"),
    ("hear", "record"),
    ("heir", "successor"),
    ("hint", "wakeup; for people, advice"),
    ("hints", "wakeups"),
    ("holding", "allocation"),
    ("Holding", "Allocation"),
    ("holdings", "allocations"),
    ("land", "close_launch_batch"),
    ("mend", "remedy, fix"),
    ("Mend", "Remedy"),
    ("pump", "worker"),
    ("Pump", "Worker"),
    ("pumps", "workers"),
    ("Said", "MarkerFacts"),
    ("shop", "parts"),
    ("site", "target"),
    ("Site", "Target"),
    ("standing", "waiting; of an index, status"),
    ("take_off", "record_launch_batch"),
    ("telling", "progress"),
    ("Ticket", "BacklogEntry"),
    ("ticket", "entry"),
    ("typed", "prompt"),
];

/// A word where it does not belong.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// The word.
    pub word: String,
    /// The word to use.
    pub instead: &'static str,
}

/// The forbidden identifiers of a file.
///
/// # Errors
/// When it is no Rust.
pub fn of(source: &Source) -> Result<Vec<Found>, proc_macro2::LexError> {
    let mut found = Vec::new();
    look(
        source.text.parse::<TokenStream>()?,
        &source.path,
        &mut found,
    );
    Ok(found)
}

fn look(tokens: TokenStream, path: &str, found: &mut Vec<Found>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => look(group.stream(), path, found),
            TokenTree::Ident(ident) => {
                let word = ident.to_string();
                if let Some((_, instead)) =
                    FORBIDDEN.iter().find(|(forbidden, _)| *forbidden == word)
                {
                    let line = ident.span().start().line;
                    found.push(Found {
                        path: path.to_owned(),
                        line,
                        word,
                        instead,
                    });
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}
