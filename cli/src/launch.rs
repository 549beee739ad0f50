//! Submitting a request and seeing it through: the common end of `exec` and `rerun`.

use domain::{
    api::Accepted,
    id::ExecutionId,
    request::{Changes, Defaults, FieldError, SubmitRequest},
};

use crate::{
    api::Got,
    client::{CallError, Client, is_loopback},
    context::Context,
    draft, exit,
    failure::Failure,
    flags::LaunchFlags,
    follow::{self, Ended, Show},
    output,
    screen::Stream,
};

/// The command: one argument as it is, or the words after `--` with their boundaries.
///
/// # Errors
/// Several arguments, which may be meant either way, and what no shell can be given.
pub(crate) fn command_text(command: &[String], argv: &[String]) -> Result<String, Failure> {
    match (command, argv) {
        ([text], []) => Ok(text.clone()),
        ([], words) => {
            let words = words.iter().map(String::as_str);
            shlex::try_join(words).map_err(|_| {
                Failure::Usage("the command holds a NUL byte, which no shell can be given".into())
            })
        }
        (words, _) => Err(Failure::Usage(format!(
            "the command is {} arguments: quote it to make it one shell text, or put `--` before it to keep its words",
            words.len()
        ))),
    }
}

/// Submits and, unless told to detach, follows to the end.
///
/// # Errors
/// A refusal, an API that cannot be reached, or a screen that cannot be written to.
pub(crate) async fn run(
    context: &Context,
    client: &Client,
    request: SubmitRequest,
    flags: LaunchFlags,
) -> Result<u8, Failure> {
    if let (true, Some(image)) = (flags.host, &request.image) {
        context.screen.say(&format!(
            "runs by this machine's own shell (--host), not in the image {image}"
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

/// A body that is too large was not read, so that only we can tell what of the request is.
fn explained(context: &Context, request: SubmitRequest, failure: Failure) -> Failure {
    if !matches!(&failure, Failure::Call(CallError::Refused(problem)) if problem.code == "body_too_large")
    {
        return failure;
    }
    let faults = defaults(context)
        .ok()
        .and_then(|defaults| request.validate(&defaults).err());
    faults.map_or(failure, Failure::Faults)
}

/// Runs an execution again with changes and, unless told to detach, follows the new run to its end.
///
/// # Errors
/// As of [`run`].
pub(crate) async fn rerun(
    context: &Context,
    client: &Client,
    before: &ExecutionId,
    changes: Changes,
    flags: LaunchFlags,
) -> Result<u8, Failure> {
    start(client, flags).await?;
    let key = key_or_random(changes.idempotency_key)?;
    let changes = Changes {
        idempotency_key: Some(key),
        ..changes
    };
    let body = serde_json::to_vec(&changes).map_err(|error| Failure::Local(error.to_string()))?;
    let accepted = client.rerun(before, body).await?;
    go_on(context, client, &accepted, flags).await
}

/// What is followed on this machine runs in this process.
async fn start(client: &Client, flags: LaunchFlags) -> Result<(), Failure> {
    match client {
        Client::Local(machine) if !flags.detach => machine
            .start()
            .await
            .map_err(|error| Failure::Local(error.to_string())),
        Client::Local(_) | Client::Remote(_) => Ok(()),
    }
}

async fn go_on(
    context: &Context,
    client: &Client,
    accepted: &Got<Accepted>,
    flags: LaunchFlags,
) -> Result<u8, Failure> {
    if flags.detach {
        announce(context, accepted)
    } else {
        see_through(context, client, &accepted.value).await
    }
}

fn announce(context: &Context, accepted: &Got<Accepted>) -> Result<u8, Failure> {
    let id = &accepted.value.execution_id;
    let told = match context.is_json() {
        true => output::json(context, &accepted.answer),
        false => output::text(context, &format!("{id}\n")),
    };
    if told.is_err() {
        // It will run, and nobody else knows its id.
        context.screen.say(&format!("submitted {id}"));
    }
    told.map(|()| exit::SUCCESS)
}

async fn see_through(
    context: &Context,
    client: &Client,
    accepted: &Accepted,
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
        Ended::Final(got) => {
            if context.is_json() {
                output::json(context, &got.answer)?;
            }
            Ok(output::verdict(context, &got.value))
        }
        // Nothing is known of the command's end, which a caller must not take for a success.
        Ended::Detached => Ok(exit::UNKNOWN),
    }
}

/// Every submission has an idempotency key: a lost answer must not make two runs of one.
fn key_or_random(given: Option<String>) -> Result<String, Failure> {
    given.map_or_else(random_key, Ok)
}

fn random_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Local(format!("failed to get random bytes: {error}")))?;
    Ok(format!("mycli-{}", hex::encode(bytes)))
}

/// Prints the request after checking it by the rules of where it would go; sends nothing.
///
/// # Errors
/// Every fault there is.
pub(crate) fn dry_run(context: &Context, request: &SubmitRequest) -> Result<u8, Failure> {
    request
        .clone()
        .validate(&defaults(context)?)
        .map_err(Failure::Faults)?;
    let text =
        serde_json::to_string_pretty(request).map_err(|error| Failure::Local(error.to_string()))?;
    output::text(context, &format!("{text}\n"))?;
    Ok(exit::SUCCESS)
}

/// What applies where a request says nothing, as far as can be known before it is sent: of this
/// machine, or of a stack as it comes.
///
/// # Errors
/// A configuration file that cannot be used.
pub(crate) fn defaults(context: &Context) -> Result<Defaults, Failure> {
    let one_machine = context.global.local
        || context
            .endpoint()?
            .is_some_and(|endpoint| is_loopback(&endpoint.url));
    Ok(draft::defaults(one_machine))
}

/// Adds to a refusal's faults where they come from.
pub(crate) fn placed(
    error: Failure,
    place: impl FnOnce(Vec<FieldError>) -> Vec<FieldError>,
) -> Failure {
    match error {
        Failure::Call(CallError::Refused(mut problem)) => {
            problem.errors = place(problem.errors);
            Failure::Call(CallError::Refused(problem))
        }
        Failure::Faults(faults) => Failure::Faults(place(faults)),
        other => other,
    }
}
