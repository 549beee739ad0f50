//! `mycli artifacts`: the files that a run left and that were kept.

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, Subcommand};
use domain::api::{ArtifactsPage, ArtifactsView};

use crate::{
    client::Client,
    commands::completions::values,
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    request::number::whole,
    runs::artifacts::{self, Wanted},
    terminal::{output, screen},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli exec --artifact 'dist/**' 'make'        keep what the command leaves in dist
  mycli artifacts list                          the files of your latest run
  mycli artifacts get                           all of them, into this folder
  mycli artifacts get '**/*.xml' --to reports  some of them
  mycli artifacts get 7XQ9 dist --to old        the folder dist of another run
  mycli artifacts list 7XQ9 --attempt 1 -o json the files of an earlier attempt

Paths are those below the folder that the command started in. Without --attempt, the files
of the last attempt are meant. A file that is there already is replaced.

Exit code: 0, or 1 if there are no such files, or one cannot be had.";

/// The command line of `artifacts`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ArtifactsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// List the files with their lengths
    #[command(after_help = EXAMPLES)]
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Get the files, or those that a pattern names
    #[command(after_help = EXAMPLES)]
    Get {
        #[command(flatten)]
        of: Of,
        /// Only files that one of these patterns names; a first word that cannot name a run is one
        #[arg(value_name = "GLOB")]
        globs: Vec<String>,
        /// Folder to put them into; it is made if it is missing
        #[arg(long, value_name = "DIR", default_value = ".")]
        to: PathBuf,
    },
}

/// The run, and its attempt.
#[derive(Args, Clone, Debug)]
struct Of {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN [default: your latest]
    #[arg(add = values::runs())]
    id: Option<String>,
    /// The number of an attempt [default: the last one]
    #[arg(long, value_name = "N", value_parser = whole(1..=u32::MAX))]
    attempt: Option<u32>,
}

impl ArtifactsArgs {
    /// Runs `mycli artifacts` and returns the exit code.
    ///
    /// # Errors
    /// The API's errors, and files that cannot be had.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(MachineFlags::default()).await?;
        let ended = match &self.action {
            Action::List { of } => list(context, &client, of).await,
            Action::Get { of, globs, to } => get(context, &client, of, globs, to.clone()).await,
        };
        client.close(&context.screen).await;
        ended.map(|()| exit::SUCCESS)
    }
}

async fn list(context: &Context, client: &Client, of: &Of) -> Result<(), Failure> {
    let run = client.find(of.id.as_deref()).await?.value;
    let id = &run.execution_id;
    let mut all = ArtifactsPage::default();
    let mut cursor = None;
    loop {
        let page = client.artifacts(id, of.attempt, cursor.as_deref()).await?;
        all.artifacts.extend(page.value.artifacts);
        cursor = page.value.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    if context.is_json() {
        let json = serde_json::to_string(&all).map_err(Failure::other)?;
        return output::text(context, &format!("{json}\n"));
    }
    if all.artifacts.is_empty() {
        return Err(artifacts::nothing(&run, &[]));
    }
    all.artifacts
        .sort_by(|one, other| one.path.cmp(&other.path));
    let width = |bytes: u64| bytes.to_string().len();
    let column = all.artifacts.iter().map(|file| width(file.bytes)).max();
    let column = column.unwrap_or_default();
    let mut text = String::new();
    for file in &all.artifacts {
        let path = screen::one_line(file.path.as_str(), usize::MAX);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:>column$}  {path}", file.bytes);
    }
    output::text(context, &text)?;
    if of.attempt.is_none() {
        remark(context, run.request.artifacts.as_ref());
    }
    Ok(())
}

async fn get(
    context: &Context,
    client: &Client,
    of: &Of,
    globs: &[String],
    to: PathBuf,
) -> Result<(), Failure> {
    let (id, globs) = run_and_globs(of.id.as_deref(), globs);
    let globs = &globs;
    let wanted = Wanted {
        attempt: of.attempt,
        globs: artifacts::patterns(globs)?,
        to,
    };
    let run = client.find(id).await?.value;
    let told = |path: &str| output::text(context, &format!("{path}\n"));
    let got = artifacts::get(client, &run.execution_id, &wanted, told).await?;
    if got.files == 0 {
        return Err(artifacts::nothing(&run, globs));
    }
    context.screen.say(&got.words(&wanted.to));
    if of.attempt.is_none() {
        remark(context, run.request.artifacts.as_ref());
    }
    Ok(())
}

/// Tells the run from the patterns. A first word that cannot name a run is a pattern, and the run is
/// the latest.
fn run_and_globs<'a>(first: Option<&'a str>, globs: &[String]) -> (Option<&'a str>, Vec<String>) {
    let names_a_run = |text: &str| {
        let is_of_an_id = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        text.starts_with("arn:") || text.bytes().all(is_of_an_id)
    };
    match first {
        Some(text) if !names_a_run(text) => {
            let globs = [text.to_owned()].into_iter().chain(globs.iter().cloned());
            (None, globs.collect())
        }
        first => (first, globs.to_vec()),
    }
}

/// Says that files are missing, if they are.
fn remark(context: &Context, artifacts: Option<&ArtifactsView>) {
    if let Some(words) = artifacts.and_then(artifacts::incomplete) {
        context.screen.say(&words);
    }
}
