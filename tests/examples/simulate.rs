//! `simulate FROM COUNT`: so many simulations in bad weather, from this seed on; or `simulate FROM
//! COUNT story`, with the story of each.
//!
//! Exits with 1 at the first seed that breaks a rule, having told its story.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result")]

use std::{process::ExitCode, time::Instant};

use tests::simulation::chaos::{self, LaunchPlan};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| {
        words
            .get(index)
            .map_or(Some(default), |word| word.parse().ok())
    };
    let (Some(from), Some(count)) = (number(0, 0), number(1, 1_000)) else {
        eprintln!("use: simulate FROM COUNT [story]");
        return ExitCode::from(2);
    };
    let (began, mut tasks, mut awaits) = (Instant::now(), 0, 0);
    for seed in from..from + count {
        let plan = LaunchPlan::drawn(seed);
        let told = words.get(2).is_some_and(|word| word == "story");
        let outcome = if told {
            chaos::tell(&plan)
        } else {
            chaos::run(&plan)
        };
        tasks += outcome.tasks;
        awaits += outcome.awaits;
        if told {
            println!("{}", outcome.story.join("\n"));
        }
        if !outcome.broken.is_empty() {
            if !told {
                println!("{}", chaos::tell(&plan).story.join("\n"));
            }
            println!(
                "\nseed {seed} breaks a rule:\n{}\n\nagain: just simulate 1 {seed}",
                outcome.broken.join("\n")
            );
            return ExitCode::FAILURE;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds from {from} on: {tasks} tasks, {awaits} awaits, no rule broken, in {seconds:.1} s"
    );
    ExitCode::SUCCESS
}
