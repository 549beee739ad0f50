//! The functions: how long they take until they ask for work, how large they are, and how much
//! memory they use.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::template::{Stack, Template};
use tokio::runtime::{Builder, Runtime};

use crate::{
    lambda::RuntimeApi,
    process::Process,
    programs,
    sample::{Times, median},
};

/// How often each function is started.
const ROUNDS: usize = 200;
/// A function that does nothing, from the same build.
const EMPTY: &str = "examples/empty";
const MEGABYTE: f64 = 1e6;

/// A function's program, its variables, and the event it is sent.
struct Function {
    name: &'static str,
    program: PathBuf,
    variables: BTreeMap<String, String>,
    event: Value,
}

/// The measurements of one start.
struct Start {
    init: Duration,
    /// The processor time of all its threads.
    busy: Duration,
    /// Resident memory when it asks for work, and its peak by the end of its first invocation; in
    /// bytes.
    idle: f64,
    peak: f64,
}

/// Compares the four functions, as `just package` builds them, with an empty one of the same build.
pub(crate) fn compare() -> String {
    let target = programs::target();
    let functions = functions(&target.join("functions"));
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut starts: Vec<Vec<Start>> = functions.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (function, starts) in functions.iter().zip(&mut starts) {
            starts.push(start(&runtime, function));
        }
    }
    let mut seen = functions.iter().zip(starts);
    let (function, starts) = seen.next().expect("the empty one");
    let empty = Medians::of(&starts);
    let first = row(
        function.name,
        &starts,
        [String::new(), String::new(), String::new()],
    );
    let rows = seen.map(|(function, starts)| {
        let ours = Medians::of(&starts);
        let ratio = |ours: f64, empty: f64| format!(" (**{:.2} ×**)", ours / empty);
        let zip = format!("**{:.1} MB**", zip(&target.join("package"), function.name));
        row(
            function.name,
            &starts,
            [
                ratio(ours.init, empty.init),
                ratio(ours.busy, empty.busy),
                zip,
            ],
        )
    });
    let rows: String = rows.collect();
    format!(
        "## Functions\n\n\
         {ROUNDS} starts of each, in turns. Init: from the spawn of the process to its first `GET …/invocation/next`, median and range, and over \
         the empty one; beside it the processor time until then, which other programs on the machine change less. Memory: `VmRSS` then, and `VmHWM` \
         after one invocation; medians, MB of 1,000,000 bytes. Zips as `just package` makes them for this machine.\n\n\
         | | init (aim: at most 1.5 ×) | range | processor time | zip (at most 5 MB) | memory (at most 30 MB) | after one invocation |\n\
         |---|---|---|---|---|---|---|\n{first}{rows}"
    )
}

/// The compared times, in milliseconds.
struct Medians {
    init: f64,
    busy: f64,
}

impl Medians {
    fn of(starts: &[Start]) -> Self {
        let millis = |of: fn(&Start) -> Duration| {
            median(
                starts
                    .iter()
                    .map(|start| of(start).as_secs_f64() * 1e3)
                    .collect(),
            )
        };
        Self {
            init: millis(|start| start.init),
            busy: millis(|start| start.busy),
        }
    }
}

/// A row of the table.
fn row(name: &str, starts: &[Start], [over, busier, zip]: [String; 3]) -> String {
    let megabytes = |of: fn(&Start) -> f64| median(starts.iter().map(of).collect()) / MEGABYTE;
    let (idle, peak) = (megabytes(|start| start.idle), megabytes(|start| start.peak));
    let (first, last) = Times::of(starts.iter().map(|start| start.init).collect()).range_millis();
    let Medians { init, busy } = Medians::of(starts);
    format!(
        "| {name} | {init:.1} ms{over} | {first:.1} – {last:.1} ms | {busy:.1} ms{busier} | {zip} | **{idle:.1} MB** | {peak:.1} MB |\n"
    )
}

fn zip(folder: &Path, name: &str) -> f64 {
    let path = folder.join(format!("{name}.zip"));
    let found = fs::metadata(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: just package", path.display()));
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    let size = found.len() as f64;
    size / MEGABYTE
}

/// Starts a function, lets it work once, and ends it.
fn start(runtime: &Runtime, function: &Function) -> Start {
    let mut api = RuntimeApi::serve(runtime, function.event.to_string());
    let mut command = Command::new(&function.program);
    command
        .env_clear()
        .envs(&function.variables)
        .env("AWS_LAMBDA_RUNTIME_API", &api.address)
        .env("AWS_ENDPOINT_URL", format!("http://{}", api.address))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let begun = Instant::now();
    let process = Process::of(&mut command);
    let init = api.asked_at(runtime).duration_since(begun);
    let (busy, idle) = (process.busy(), process.memory("VmRSS"));
    api.work(runtime);
    Start {
        init,
        busy,
        idle,
        peak: process.memory("VmHWM"),
    }
}

/// The empty function, and then the four functions with the variables that the template gives them.
fn functions(programs: &Path) -> Vec<Function> {
    let request = json!({
        "resource": "/executions/{id}", "path": "/executions/x", "httpMethod": "GET", "pathParameters": {"id": "x"}, "requestContext": {},
        "headers": {"Authorization": format!("Bearer sk_live_{}", "0".repeat(64))}, "isBase64Encoded": false,
    });
    let check = json!({"kind": "check", "id": "exec_01JDZZZZZZZZZZZZZZZZZZZZZZ"}).to_string();
    let wakeup = json!({"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": check}]});
    let of = |name, resource: &str, event| Function {
        name,
        program: programs::in_folder(programs, name, "just package"),
        variables: variables(resource),
        event,
    };
    let empty = programs::in_folder(programs, EMPTY, "just bench builds it");
    vec![
        Function {
            name: "empty",
            program: empty,
            variables: lambdas_own("empty"),
            event: Value::Null,
        },
        of("submit", "SubmitFunction", request.clone()),
        of("query", "QueryFunction", request),
        of("launcher", "LauncherFunction", wakeup),
        of(
            "state-tracker",
            "StateTrackerFunction",
            json!({"sweep": true}),
        ),
    ]
}

fn variables(resource: &str) -> BTreeMap<String, String> {
    let properties = Template::read().properties(resource, &Stack::named("default"));
    let given = properties["Environment"]["Variables"]
        .as_object()
        .expect("its variables")
        .clone();
    let text = |value: Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let mut variables = lambdas_own(properties["FunctionName"].as_str().expect("its name"));
    variables.extend(given.into_iter().map(|(name, value)| (name, text(value))));
    variables
}

/// The variables that Lambda itself gives a function (Lambda Developer Guide, "Defined runtime
/// environment variables").
fn lambdas_own(name: &str) -> BTreeMap<String, String> {
    let own = [
        ("AWS_LAMBDA_FUNCTION_NAME", name),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "functions"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "functions"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    own.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}
