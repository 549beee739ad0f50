//! Submits a request and follows the run to its end. `exec` and `rerun` share this part.

use domain::{
    api::{Accepted, ExecutionView},
    id::ExecutionId,
    request::{Changes, CommandLine, Defaults, FieldError, SubmitRequest},
};

use crate::{
    client::{Client, api::Got, is_loopback},
    config::context::Context,
    exit,
    failure::Failure,
    request::{draft, flags::LaunchFlags},
    runs::{
        artifacts::{self, Wanted},
        follow::{self, FollowEnd, Show},
    },
    terminal::{output, screen::Stream},
};

/// The command: a single argument is shell text, and the words after `--` are run without a shell.
///
/// # Errors
/// There are several arguments before `--`, which could be meant either way.
pub(crate) fn command_line(command: &[String], argv: &[String]) -> Result<CommandLine, Failure> {
    match (command, argv) {
        ([text], []) => Ok(text.clone().into()),
        ([], words) => Ok(CommandLine::Words(words.to_vec())),
        (words, _) => Err(Failure::Usage(format!(
            "the command is {} arguments: quote it to make it one shell text, or put `--` before it to keep its words",
            words.len()
        ))),
    }
}

/// Submits a request and, unless told to detach, follows the run to its end.
///
/// # Errors
/// The API refuses or cannot be reached, or the output cannot be written.
pub(crate) async fn run(
    context: &Context,
    client: &Client,
    request: SubmitRequest,
    flags: &LaunchFlags,
) -> Result<u8, Failure> {
    if let (true, Some(image)) = (flags.machine.host, &request.image) {
        context.screen.say(&format!(
            "runs in this machine's own shell (--host), not in the image {image}"
        ));
    }
    if flags.artifacts_to.is_some() && request.artifacts.is_empty() {
        return Err(Failure::Usage(
            "--artifacts-to is given, and the run keeps no files: name them with --artifact".into(),
        ));
    }
    start(client, flags).await?;
    let key = key_or_random(request.idempotency_key)?;
    let request = SubmitRequest {
        idempotency_key: Some(key),
        ..request
    };
    match client.submit(&request).await {
        Ok(accepted) => go_on(context, client, &accepted, flags).await,
        Err(failure) => Err(explained(context, request, failure)),
    }
}

/// Explains a refusal of a body that is too large. The server did not read the body, so only the
/// client can find out which field is at fault.
fn explained(context: &Context, request: SubmitRequest, failure: Failure) -> Failure {
    if !matches!(&failure, Failure::Refused(problem) if problem.code == "body_too_large") {
        return failure;
    }
    let faults = defaults(context)
        .ok()
        .and_then(|defaults| request.validate(&defaults).err());
    faults.map_or(failure, Failure::faults)
}

/// Runs an execution again with changes and, unless told to detach, follows the new run to its end.
///
/// # Errors
/// The same as for [`run`].
pub(crate) async fn rerun(
    context: &Context,
    client: &Client,
    before: &ExecutionId,
    changes: Changes,
    flags: &LaunchFlags,
) -> Result<u8, Failure> {
    start(client, flags).await?;
    let key = key_or_random(changes.idempotency_key)?;
    let changes = Changes {
        idempotency_key: Some(key),
        ..changes
    };
    let body = serde_json::to_vec(&changes).map_err(Failure::other)?;
    let accepted = client.rerun(before, body).await?;
    go_on(context, client, &accepted, flags).await
}

/// Starts the runner in this process, on this machine, for a run that is followed.
async fn start(client: &Client, flags: &LaunchFlags) -> Result<(), Failure> {
    match client {
        Client::Local(machine) if !flags.detach => machine.start().await.map_err(Failure::other),
        Client::Local(_) | Client::Remote(_) => Ok(()),
    }
}

async fn go_on(
    context: &Context,
    client: &Client,
    accepted: &Got<Accepted>,
    flags: &LaunchFlags,
) -> Result<u8, Failure> {
    if flags.detach {
        announce(context, accepted)
    } else {
        see_through(context, client, &accepted.value, flags).await
    }
}

fn announce(context: &Context, accepted: &Got<Accepted>) -> Result<u8, Failure> {
    let id = &accepted.value.execution_id;
    let told = match context.is_json() {
        true => output::json(context, &accepted.answer),
        false => output::text(context, &format!("{id}\n")),
    };
    if told.is_err() {
        // The run will start, and nobody else knows its id.
        context.screen.say(&format!("submitted {id}"));
    }
    told.map(|()| exit::SUCCESS)
}

async fn see_through(
    context: &Context,
    client: &Client,
    accepted: &Accepted,
    flags: &LaunchFlags,
) -> Result<u8, Failure> {
    let (id, screen) = (&accepted.execution_id, &context.screen);
    tracing::info!(execution_id = %id, "submitted");
    screen.progress(&format!("{id}: {}", accepted.status));
    let show = Show::all(if context.is_json() {
        Stream::Err
    } else {
        Stream::Out
    });
    let following = follow::to_the_end(client, id, show, screen);
    match follow::attended(client, id, screen, following).await? {
        FollowEnd::Final(got) => {
            if context.is_json() {
                output::json(context, &got.answer)?;
            }
            let files = get_artifacts(context, client, &got.value, flags).await;
            let code = output::verdict(context, &got.value);
            match files {
                // The command's own failure says more than that its files could not be got.
                Err(failure) if code != 0 => {
                    screen.fail(&failure);
                    Ok(code)
                }
                files => files.map(|()| code),
            }
        }
        // The command's exit code is not known, and a caller must not take this for a success.
        FollowEnd::Detached => Ok(exit::UNKNOWN),
    }
}

/// Gets the files of a run that is over, if the user wants them here. Its log says if some are
/// missing.
async fn get_artifacts(
    context: &Context,
    client: &Client,
    run: &ExecutionView,
    flags: &LaunchFlags,
) -> Result<(), Failure> {
    let (Some(to), Some(_)) = (&flags.artifacts_to, &run.request.artifacts) else {
        return Ok(());
    };
    let wanted = Wanted {
        attempt: None,
        globs: None,
        to: to.clone(),
    };
    let got = artifacts::get(client, &run.execution_id, &wanted, |_| Ok(())).await?;
    context.screen.say(&got.words(to));
    Ok(())
}

/// The given idempotency key, or a random one. Every submission has a key, so that a lost answer
/// never leads to two runs.
fn key_or_random(given: Option<String>) -> Result<String, Failure> {
    given.map_or_else(random_key, Ok)
}

fn random_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Other(format!("failed to get random bytes: {error}")))?;
    Ok(format!("mycli-{}", hex::encode(bytes)))
}

/// Checks the request by the rules of its destination and prints it. Sends nothing.
///
/// # Errors
/// All faults of the request.
pub(crate) fn dry_run(context: &Context, request: &SubmitRequest) -> Result<u8, Failure> {
    request
        .clone()
        .validate(&defaults(context)?)
        .map_err(Failure::faults)?;
    let text = serde_json::to_string_pretty(request).map_err(Failure::other)?;
    output::text(context, &format!("{text}\n"))?;
    Ok(exit::SUCCESS)
}

/// The defaults for what a request leaves out, as far as they are known before it is sent: this
/// machine's, or those of an unchanged stack.
///
/// # Errors
/// The configuration file cannot be used.
pub(crate) fn defaults(context: &Context) -> Result<Defaults, Failure> {
    let one_machine = context.global.local
        || context
            .endpoint()?
            .is_some_and(|endpoint| is_loopback(&endpoint.url));
    Ok(draft::defaults(one_machine))
}

/// Adds to the faults of a refusal the places where the values came from.
pub(crate) fn placed(
    error: Failure,
    place: impl FnOnce(Vec<FieldError>) -> Vec<FieldError>,
) -> Failure {
    match error {
        Failure::Refused(mut problem) => {
            problem.errors = place(problem.errors);
            Failure::Refused(problem)
        }
        Failure::Faults { summary, faults } => Failure::Faults {
            summary,
            faults: place(faults),
        },
        other => other,
    }
}
