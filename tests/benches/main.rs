//! What mycli costs, beside what a user would use instead, as ratios measured in one run. Prints
//! Markdown for `BENCHMARKS.md`.
//!
//! The load of the machine is printed before and after: numbers from a busy machine mean little.

#![expect(clippy::print_stdout, reason = "the result")]

mod bill;
mod bulk;
mod filled;
mod following;
mod functions;
mod lambda;
mod local;
mod machine;
mod many;
mod one;
mod priced;
mod process;
mod programs;
mod pueue;
mod requests;
mod sample;
mod scale;
mod server;
mod slurm;
mod status;
mod throttle;
mod wire;

/// Measures, and returns the result as Markdown.
type Section = fn() -> String;

/// The sections, by the argument that selects one of them (`just bench functions`).
const SECTIONS: [(&str, Section); 13] = [
    ("one", one::compare),
    ("many", many::compare),
    ("local", local::compare),
    ("status", status::compare),
    ("throttle", throttle::compare),
    ("filled", filled::compare),
    ("wire", wire::compare),
    ("bulk", bulk::compare),
    ("scale", scale::compare),
    ("priced", priced::compare),
    ("functions", functions::compare),
    ("requests", requests::count),
    ("following", following::count),
];

fn main() {
    // cargo adds `--bench`.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let unknown = words
        .iter()
        .find(|word| SECTIONS.iter().all(|(name, _)| name != word));
    assert!(
        unknown.is_none(),
        "{unknown:?} is none of {:?}",
        SECTIONS.map(|(name, _)| name)
    );
    println!("{}", machine::line());
    println!("Load before: {}.\n", machine::load());
    for (name, section) in SECTIONS {
        if words.is_empty() || words.iter().any(|word| word == name) {
            println!("{}", section());
        }
    }
    println!("Load after: {}.", machine::load());
}
