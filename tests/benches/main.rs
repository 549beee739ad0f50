//! What mycli costs, beside what a user would take instead, as ratios measured in one run. Prints Markdown, for `BENCHMARKS.md`.
//!
//! The load of the machine is printed before and after: numbers of a busy machine say little.

#![expect(clippy::print_stdout, reason = "the result")]

mod machine;
mod many;
mod one;
mod programs;
mod pueue;
mod sample;
mod server;
mod status;

fn main() {
    let programs = programs::Programs::find();
    println!("{}", machine::line());
    println!("Load before: {}.\n", machine::load());
    println!("{}", one::compare(&programs));
    println!("{}", many::compare(&programs));
    println!("{}", status::compare(&programs));
    println!("Load after: {}.", machine::load());
}
