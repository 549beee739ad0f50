//! How many bytes of command and variables a request may have.

use super::{CommandLine, FieldError, LaunchRequest};

/// The most bytes of the command and all variables together. We chose it: it leaves room for the
/// rest of a record within the 400 KB of DynamoDB's items (DynamoDB Developer Guide, "Quotas").
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// The most bytes of one word or text of a command, or of one variable with its name. Linux takes
/// 131,072 bytes for each argument and variable (execve(2), `MAX_ARG_STRLEN`), its last byte and
/// what we add included.
pub const PART_BYTES_MAX: usize = 128_000;

/// The faults of a request that is too large. Each names what is too large, with its exact count.
pub(super) fn faults(request: &LaunchRequest) -> Vec<FieldError> {
    let parts = match &request.command {
        CommandLine::Text(text) => vec![("command".to_owned(), text.len())],
        CommandLine::Words(words) => words
            .iter()
            .enumerate()
            .map(|(index, word)| (format!("command[{index}]"), word.len()))
            .collect(),
    };
    let variables = request.env.iter();
    let variables: Vec<_> = variables
        .map(|(name, value)| (format!("env.{name}"), name.as_str().len() + 1 + value.len()))
        .collect();
    let sum = |parts: &[(String, usize)]| parts.iter().map(|(_, bytes)| bytes).sum::<usize>();
    let (command, env) = (sum(&parts), sum(&variables));
    let too_long = |(field, bytes): (String, usize)| {
        (bytes > PART_BYTES_MAX).then(|| FieldError {
            message: format!(
                "has {bytes} bytes, the limit is {PART_BYTES_MAX}, since Linux gives no program more in one piece: put it into a file of the repository"
            ),
            field,
        })
    };
    let mut faults: Vec<_> = parts
        .into_iter()
        .chain(variables)
        .filter_map(too_long)
        .collect();
    let total = command + env;
    if total > REQUEST_BYTES_MAX && faults.is_empty() {
        let field = if command > env { "command" } else { "env" };
        let over = total - REQUEST_BYTES_MAX;
        faults.push(FieldError {
            field: field.to_owned(),
            message: format!(
                "is too large: the command has {command} bytes and the variables {env}, together {over} over the limit of {REQUEST_BYTES_MAX}. Put long texts into a file of the repository"
            ),
        });
    }
    faults
}
