//! Writes the seeds of a target into a folder, as the first inputs of libFuzzer: `seeds TARGET
//! FOLDER`. Without arguments it lists the targets.

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [name, folder] = &arguments[..] else {
        return Err(fuzz::TARGETS.map(|target| target.name).join(" ").into());
    };
    let target = fuzz::TARGETS.into_iter().find(|target| target.name == name);
    let target = target.ok_or_else(|| format!("there is no target {name}"))?;
    fs::create_dir_all(folder)?;
    for (number, seed) in target.seeds.iter().enumerate() {
        fs::write(Path::new(folder).join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}
