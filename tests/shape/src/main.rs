//! `just shape`: the shape of this project's code, or of another checkout: `just shape ../before`.
#![expect(clippy::print_stdout, reason = "it is what this prints")]

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    path::{Path, PathBuf},
};

use shape::{
    circles,
    functions::{self, Function},
    names,
    sources::{self, Source},
    words,
};

/// The width that rustfmt keeps to (rustfmt.toml).
const WIDTH: usize = 100;
/// How many of the longest are named.
const LONGEST: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = env::args().nth(1).map_or(here, PathBuf::from);
    let sources = sources::all(&root)?;
    let shipped: Vec<_> = sources.iter().filter(|source| source.is_shipped).collect();
    tell_functions(&shipped)?;
    tell_files(&shipped);
    tell_lines("shipped code", &shipped);
    tell_lines("all code", &sources.iter().collect::<Vec<_>>());
    tell_circles(&sources)?;
    tell_words(&sources)?;
    tell_names(&sources)
}

fn tell_functions(shipped: &[&Source]) -> Result<(), Box<dyn Error>> {
    let mut all: Vec<Function> = Vec::new();
    for source in shipped {
        all.extend(functions::of(source)?);
    }
    all.sort_by_key(|function| function.lines);
    let at = |share: usize| all.get((all.len() * share / 100).min(all.len().saturating_sub(1)));
    let lines = |share| at(share).map_or(0, |function| function.lines);
    println!(
        "{} functions; lines: median {}, p90 {}, max {}",
        all.len(),
        lines(50),
        lines(90),
        lines(100)
    );
    for Function {
        path,
        line,
        name,
        lines,
    } in all.iter().rev().take(LONGEST)
    {
        println!("  {lines:>4}  {name}  {path}:{line}");
    }
    Ok(())
}

fn tell_files(shipped: &[&Source]) {
    let mut all: Vec<_> = shipped
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .collect();
    all.sort_unstable();
    println!("{} files; the longest:", all.len());
    for (lines, path) in all.iter().rev().take(LONGEST) {
        println!("  {lines:>4}  {path}");
    }
}

fn tell_lines(what: &str, sources: &[&Source]) {
    let lines = || sources.iter().flat_map(|source| source.text.lines());
    let (all, long) = (
        lines().count(),
        lines().filter(|line| line.chars().count() > WIDTH).count(),
    );
    let comments = lines()
        .filter(|line| line.trim_start().starts_with("//"))
        .count();
    println!(
        "{what}: {all} lines, {long} over {WIDTH} characters ({}), comments {}",
        percent(long, all),
        percent(comments, all)
    );
}

/// With one decimal.
fn percent(part: usize, all: usize) -> String {
    let tenths = part * 1000 / all.max(1);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn tell_circles(sources: &[Source]) -> Result<(), Box<dyn Error>> {
    let packages: BTreeSet<_> = sources
        .iter()
        .filter(|source| source.is_shipped)
        .map(Source::package)
        .collect();
    let mut any = false;
    for package in packages {
        for circle in circles::of(package, sources)? {
            any = true;
            let modules: Vec<_> = circle.into_iter().collect();
            println!("import circle in {package}: {}", modules.join(", "));
        }
    }
    if !any {
        println!("no import circle");
    }
    Ok(())
}

fn tell_words(sources: &[Source]) -> Result<(), Box<dyn Error>> {
    let mut count = 0;
    for source in sources {
        for words::Found {
            path,
            line,
            word,
            instead,
        } in words::of(source)?
        {
            count += 1;
            println!("  {path}:{line}: `{word}` is not a word of ours: {instead}");
        }
    }
    println!("forbidden identifiers: {count}");
    Ok(())
}

fn tell_names(sources: &[Source]) -> Result<(), Box<dyn Error>> {
    let shared = names::shared(sources)?;
    println!("names of types in several packages: {}", shared.len());
    for (name, packages) in shared {
        println!(
            "  {name}: {}",
            packages.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    Ok(())
}
