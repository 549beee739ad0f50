//! `mycli man`: the manual pages, one for each command. A release has them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, builder::Resettable};

use crate::{config::context::Context, exit, failure::Failure};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli man ~/.local/share/man/man1     then: man mycli-exec";

/// The command line of `man`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Man {
    /// The folder; made if missing
    folder: PathBuf,
}

impl Man {
    /// Runs `mycli man` and returns the exit code. `mycli` is the whole command line.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn run(&self, context: &Context, mut mycli: Command) -> Result<u8, Failure> {
        let failed = |error| Failure::file(&self.folder, &error);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        // Gives each command its full name and the global flags.
        mycli.build();
        write_pages(&self.folder, &mycli, "mycli").map_err(failed)?;
        context.screen.say(&format!(
            "wrote the manual pages to {}",
            self.folder.display()
        ));
        Ok(exit::SUCCESS)
    }
}

/// Writes the pages of a command and of its commands, as `NAME.1`.
fn write_pages(folder: &Path, command: &Command, name: &str) -> io::Result<()> {
    fs::write(folder.join(format!("{name}.1")), page(command, name)?)?;
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        if below.get_name() != "help" {
            write_pages(folder, below, &format!("{name}-{}", below.get_name()))?;
        }
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let after = command.get_after_help().map(ToString::to_string);
    let shown = command
        .clone()
        .display_name(name)
        .after_help(Resettable::Reset);
    let mut page = Vec::new();
    clap_mangen::Man::new(shown).render(&mut page)?;
    page.extend(examples(&after.unwrap_or_default()).into_bytes());
    Ok(page)
}

/// The text after a command's help as sections of a page. Indented lines are examples, and keep
/// their columns; the others are filled.
fn examples(text: &str) -> String {
    let mut roff = String::from(".SH EXAMPLES\n");
    let mut is_example = false;
    for line in text.lines().filter(|line| *line != "Examples:") {
        let indented = line.starts_with("  ");
        if indented != is_example {
            roff += if indented { ".nf\n" } else { ".fi\n" };
            is_example = indented;
        }
        if line.is_empty() {
            roff += ".PP\n";
        } else {
            roff += &escaped(line.strip_prefix("  ").unwrap_or(line));
            roff.push('\n');
        }
    }
    if is_example {
        roff += ".fi\n";
    }
    roff
}

/// A line of text for roff. A dash is a dash and not a hyphen, so that a command can be copied.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    let text = text.replace('\'', "\\(aq").replace('`', "\\(ga");
    if text.starts_with('.') {
        format!("\\&{text}")
    } else {
        text
    }
}
