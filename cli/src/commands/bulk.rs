//! `mycli bulk`: sends many commands as one submission.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{Args, ValueHint};
use domain::request::{FieldError, Name};
use serde_json::Value;

use crate::request::lines::{self, BulkLine, JsonKeys, LineFaults, ReadyLine};
use crate::{
    client::Client,
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    request::{draft::RunDraft, encoding, flags::RunFlags, git},
    runs::{
        launch,
        submission::{self, BulkSubmission},
    },
    terminal::output,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = r#"Examples:
  mycli bulk jobs.jsonl                      one request a line: {"command": "make a", "cpu": 512}
  mycli bulk jobs.jsonl --image node:22 --group nightly --max-parallel 20 --wait
  jq -c … data.json | mycli bulk - --no-repo
  mycli bulk --map-over-values eu us -- ./deploy.sh              once with VALUE=eu, once with VALUE=us
  mycli bulk 'convert "$VALUE" out.png' --map-over-file names    once for each line of the file
  mycli bulk jobs.jsonl --resume sub_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9  the rest of an earlier submission

A line may have the keys of .mycli.yaml, and command. Precedence, highest first: the
line, flags, .mycli.yaml, the git origin. Variables and secrets are merged by name. null
removes a key, even if a flag gives it. A variable may be a number, true or false, as in
.mycli.yaml. Empty lines are skipped, but counted in line numbers. All lines are checked
before any is sent.

The value of --map-over-… is the variable VALUE of the command. It is not pasted into
the command, so it may hold anything: write "$VALUE" in quotes.

--resume takes the id that the submission printed when it began. If the stack does not
know the id, all lines run as new ones, and a message says so.

Exit code: 0 if all were accepted (with --wait: all succeeded), 1 if some were not, 2 for
wrong usage or bad lines (nothing was sent), 130 if interrupted. Accepted runs go on in
any case."#;

/// The environment variable that holds a mapped value.
const VALUE: &str = "VALUE";

/// The command line of `bulk`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bulk {
    /// File with one JSON request per line, or - for standard input; with --map-over-… the
    /// command, as shell text
    #[arg(
        value_name = "FILE|COMMAND",
        value_hint = ValueHint::AnyPath,
        required_unless_present = "argv",
        conflicts_with = "argv"
    )]
    what: Option<String>,
    /// With --map-over-…: a command whose words are kept as they are
    #[arg(last = true, value_name = "ARGV", value_hint = ValueHint::AnyPath)]
    argv: Vec<String>,
    /// Run the command once for each of these values, with the variable VALUE set to it
    #[arg(long, value_name = "VALUE", num_args = 1.., conflicts_with = "map_over_file")]
    map_over_values: Vec<String>,
    /// Run the command once for each line of a file, or of standard input (-); empty lines are
    /// skipped
    #[arg(long, value_name = "FILE")]
    map_over_file: Option<PathBuf>,
    /// Wait until all runs are over
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Continue an interrupted submission; runs that it has accepted are not run again
    #[arg(long, value_name = "ID")]
    resume: Option<Name>,
    /// Check the lines and print them as they would be sent; run nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    machine: MachineFlags,
    #[command(flatten)]
    run: RunFlags,
}

impl Bulk {
    /// Runs `mycli bulk` and returns the exit code.
    ///
    /// # Errors
    /// Bad lines, or an API that refuses or cannot be reached.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        if self.run.idempotency_key.is_some() {
            let words = "--idempotency-key is for one run: repeat a submission with --resume ID";
            return Err(Failure::Usage(words.into()));
        }
        if self.dry_run {
            return self.show(context).await;
        }
        // The client comes first, so that a first-time user is told what is missing before git or
        // the network is asked anything.
        let client = context.client(self.machine).await?;
        let ended = self.submit(context, &client).await;
        client.close(&context.screen).await;
        ended
    }

    async fn submit(&self, context: &Context, client: &Client) -> Result<u8, Failure> {
        let (submission, lines) = self.prepare(context).await?;
        if let (Client::Local(machine), true) = (client, self.wait) {
            machine.start().await.map_err(Failure::other)?;
        }
        submission::run(context, client, &submission, &lines, self.wait).await
    }

    /// Prints what would be sent. The generated id is left out, since it will never be used.
    async fn show(&self, context: &Context) -> Result<u8, Failure> {
        let (submission, mut lines) = self.prepare(context).await?;
        if self.resume.is_none() && submission.names_its_group() {
            context
                .screen
                .say("runs without a group will be in a group named after the submission's id");
            let made_up = Value::String(submission.group);
            for line in &mut lines {
                line.keys
                    .retain(|key, value| key != "group" || *value != made_up);
            }
        }
        print(context, &lines)
    }

    /// Prepares all lines for sending.
    ///
    /// # Errors
    /// A line is at fault, or there is nothing to run.
    async fn prepare(
        &self,
        context: &Context,
    ) -> Result<(BulkSubmission, Vec<ReadyLine>), Failure> {
        let source = self.source();
        let mut faults = LineFaults::of(&source);
        let lines = self.given(&mut faults)?;
        let mut draft = RunDraft::settings(&self.run, context.global.local, &context.screen)?;
        let needs_origin = |line: &BulkLine| !line.keys.contains_key("repo");
        if draft.request.repo.is_none() && !self.run.no_repo && lines.iter().any(needs_origin) {
            draft.take_origin(&context.screen).await?;
        }
        let submission =
            BulkSubmission::begin(self.resume.as_ref(), draft.request.group.as_deref())?;
        let (base, defaults) = (lines::keys_of(&draft.request), launch::defaults(context)?);
        let mut ready = Vec::with_capacity(lines.len());
        for line in lines {
            let keys = submission.group_in(absolute(context, lines::over(&base, &line.keys))?);
            for fault in lines::check(&keys, &defaults) {
                let is_shared =
                    !lines::say(&line.keys, &fault.field) && lines::say(&base, &fault.field);
                match is_shared {
                    true => faults.add_shared(line.number, draft.placed_one(fault)),
                    false => faults.add(line.number, None, Some(&fault.field), &fault.message),
                }
            }
            ready.push(ReadyLine {
                number: line.number,
                keys,
            });
        }
        match faults.told() {
            Some((1, found)) => Err(refused("1 line", found)),
            Some((bad, found)) => Err(refused(&format!("{bad} lines"), found)),
            None if ready.is_empty() => {
                Err(Failure::Usage(format!("{source} holds nothing to run")))
            }
            None => Ok((submission, ready)),
        }
    }

    /// The name of the input, for messages.
    fn source(&self) -> String {
        let file = self
            .map_over_file
            .as_ref()
            .map(|path| path.display().to_string());
        let name = match file {
            Some(name) => name,
            None if self.maps() => "value".into(),
            None => self.what.clone().unwrap_or_default(),
        };
        if name == "-" {
            "standard input".into()
        } else {
            name
        }
    }

    fn maps(&self) -> bool {
        self.map_over_file.is_some() || !self.map_over_values.is_empty()
    }

    fn given(&self, faults: &mut LineFaults<'_>) -> Result<Vec<BulkLine>, Failure> {
        if !self.maps() {
            let Some(file) = self.what.as_ref().filter(|_| self.argv.is_empty()) else {
                let words = "a command needs --map-over-values or --map-over-file; without them, give a file with one request per line";
                return Err(Failure::Usage(words.into()));
            };
            return Ok(lines::read(&self.read(Path::new(file))?, faults));
        }
        let command = launch::command_line(self.what.as_slice(), &self.argv)?;
        let command = serde_json::to_value(command).map_err(Failure::other)?;
        let values = match &self.map_over_file {
            Some(path) => lines::values(&self.read(path)?, faults),
            None => (1..).zip(self.map_over_values.iter().cloned()).collect(),
        };
        let keys = |value: String| {
            let env = JsonKeys::from_iter([(VALUE.to_owned(), Value::String(value))]);
            JsonKeys::from_iter([
                ("command".into(), command.clone()),
                ("env".into(), Value::Object(env)),
            ])
        };
        Ok(values
            .into_iter()
            .map(|(number, value)| BulkLine {
                number,
                keys: keys(value),
            })
            .collect())
    }

    /// Reads the whole input. A missing file is a usage error, like an unknown flag.
    fn read(&self, path: &Path) -> Result<Vec<u8>, Failure> {
        let source = self.source();
        let bytes = match path.as_os_str() == "-" {
            true => from_standard_input(),
            false => fs::read(path),
        };
        let bytes =
            bytes.map_err(|error| Failure::Usage(format!("failed to read {source}: {error}")))?;
        // Without this check, every line of a UTF-16 file would be reported as broken.
        match encoding::utf16(&bytes).and_then(|_| encoding::fault(&bytes)) {
            Some(problem) => Err(Failure::Usage(format!("{source} {problem}"))),
            None => Ok(bytes),
        }
    }
}

fn from_standard_input() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes a line's repository absolute with `--local`, where it may be a directory.
fn absolute(context: &Context, mut keys: JsonKeys) -> Result<JsonKeys, Failure> {
    if let (true, Some(Value::String(repo))) = (context.global.local, keys.get_mut("repo")) {
        let here = std::env::current_dir().map_err(Failure::io("find the working directory"))?;
        *repo = git::absolute(repo, &here).map_err(Failure::Usage)?;
    }
    Ok(keys)
}

/// Prints one request to a line.
pub(crate) fn print(context: &Context, lines: &[ReadyLine]) -> Result<u8, Failure> {
    let text: String = lines
        .iter()
        .map(|line| format!("{}\n", Value::Object(line.keys.clone())))
        .collect();
    output::text(context, &text)?;
    Ok(exit::SUCCESS)
}

/// Lines that the API would refuse: none of the submission was sent.
fn refused(lines: &str, faults: Vec<FieldError>) -> Failure {
    Failure::Faults {
        summary: format!("{lines} cannot be run; nothing was sent"),
        faults,
    }
}
