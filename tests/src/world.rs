//! A stack as a user has it: the template deployed by `mycli init`, the real functions, and
//! containers for tasks.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    built,
    emulator::{ACCESS_KEY, Emulator, REGION},
    engine::{BUSYBOX, Engine},
    sandbox::{Ran, Sandbox, eventually},
};

const FUNCTIONS: [&str; 4] = deploy::package::FUNCTIONS;
/// The pause between two checks of a condition.
pub const LOOK: Duration = Duration::from_millis(100);
/// How long a test waits for a condition. This bounds a hang.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The stack, and its first user.
#[derive(Debug)]
pub struct World {
    // This ends before the emulator does.
    events: Option<Events>,
    /// The user who deployed the stack.
    pub user: Sandbox,
    /// The emulator that the stack is in.
    pub emulator: Arc<Emulator>,
}

impl Drop for World {
    #[expect(clippy::print_stderr, reason = "a failing test's last words")]
    fn drop(&mut self) {
        // A hang on another machine can be inspected only here.
        if thread::panicking() {
            let answer = |arguments: &[&str]| {
                let output = self.user.command(arguments).output();
                output.map_or_else(
                    |error| error.to_string(),
                    |output| format!("{:?}", Ran::from(output)),
                )
            };
            eprintln!("its last run: {}", answer(&["status", "-o", "json"]));
            eprintln!("its log: {}", answer(&["logs"]));
            eprintln!(
                "containers:\n{}",
                Engine::shared().podman(&[
                    "ps",
                    "--all",
                    "--format={{.ID}} {{.Image}} {{.Status}} {{.Labels}}"
                ])
            );
            eprintln!("the emulator and the functions:\n{}", self.said());
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A stack that runs x86-64 busybox by default, with the functions as built with the tests.
    ///
    /// # Panics
    /// When it cannot be deployed.
    #[must_use]
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same with parameters of the stack (`Name=value`).
    ///
    /// # Panics
    /// When it cannot be deployed.
    #[must_use]
    pub fn with(parameters: &[&str]) -> Self {
        let world = Self::without_stack();
        let zips = world.package("functions");
        world.deploy(&zips, parameters)
    }

    /// The same with functions packed elsewhere, and parameters of the stack (`Name=value`).
    ///
    /// # Panics
    /// When it cannot be deployed.
    #[must_use]
    pub fn of(zips: &Path, parameters: &[&str]) -> Self {
        Self::without_stack().deploy(zips, parameters)
    }

    /// The same with tasks that are not containers, stay RUNNING for ever, and send no events.
    ///
    /// # Panics
    /// When it cannot be deployed.
    #[must_use]
    pub fn without_containers(zips: &Path, parameters: &[&str]) -> Self {
        let mut world = Self::on(Emulator::start()).deploy(zips, parameters);
        world.lose_events();
        world
    }

    /// The same deployed by another `mycli`, which the user keeps, with functions packed elsewhere.
    ///
    /// # Panics
    /// When it cannot be deployed.
    #[must_use]
    pub fn deployed_by(program: &Path, zips: &Path, parameters: &[&str]) -> Self {
        let mut world = Self::without_stack();
        world.user.use_program(program);
        world.deploy(zips, parameters)
    }

    fn without_stack() -> Self {
        Self::on(Emulator::with_containers(Engine::shared().docker_host()))
    }

    fn on(emulator: Emulator) -> Self {
        let emulator = Arc::new(emulator);
        let user = Sandbox::new()
            .with("AWS_ENDPOINT_URL", emulator.endpoint())
            .with("AWS_REGION", REGION)
            .with("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .with("AWS_SECRET_ACCESS_KEY", ACCESS_KEY)
            .with("USER", "alice");
        Self {
            emulator,
            user,
            events: None,
        }
    }

    fn deploy(mut self, zips: &Path, parameters: &[&str]) -> Self {
        let zips = zips.to_str().expect("a path in UTF-8");
        let image = format!("DefaultImage={BUSYBOX}");
        let mut arguments = vec!["init", "--yes", "--functions", zips];
        for parameter in ["DefaultArch=x86_64", &image].iter().chain(parameters) {
            arguments.extend(["--parameter", parameter]);
        }
        self.user.run(&arguments).exits(0);
        self.events = Some(Events::of(&self.emulator));
        self
    }

    /// Puts the functions' zips into a folder and returns its path.
    ///
    /// # Panics
    /// When a function cannot be packed.
    #[must_use]
    pub fn package(&self, folder: &str) -> PathBuf {
        let zips = self.user.path(folder);
        symlink(packed(), &zips).expect("a link");
        zips
    }

    /// Runs `mycli` to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.user.run(arguments)
    }

    /// Submits without waiting, and returns the id.
    #[must_use]
    pub fn detach(&self, arguments: &[&str]) -> String {
        let ran = self
            .run(&[&["exec", "--detach", "--no-repo"], arguments].concat())
            .exits(0);
        ran.out.trim().to_owned()
    }

    /// The record of a run, as `status -o json` prints it.
    #[must_use]
    pub fn status(&self, id: &str) -> Value {
        self.run(&["status", id, "-o", "json"]).exits(0).json()
    }

    /// Waits until a run has this status, and returns its record.
    ///
    /// # Panics
    /// When it never has.
    pub fn until(&self, id: &str, status: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let record = self.status(id);
            if record["status"] == status {
                return record;
            }
            assert!(
                Instant::now() < end,
                "{id} never became {status}: {record:#}\n{}",
                self.said()
            );
            thread::sleep(LOOK);
        }
    }

    /// The last lines of the log of the emulator and the functions, for a failure's text.
    #[must_use]
    pub fn said(&self) -> String {
        let log = fs::read_to_string(self.emulator.server_log()).unwrap_or_default();
        log.lines()
            .rev()
            .take(40)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The API's address and the administrator's key, as `init` wrote them.
    ///
    /// # Panics
    /// When it wrote none.
    #[must_use]
    pub fn api(&self) -> (String, String) {
        let config =
            fs::read_to_string(self.user.home().join(".mycli/config.yaml")).expect("init wrote it");
        let value = |name: &str| {
            let line = config
                .lines()
                .find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("no {name} in the configuration"))
                .trim_matches('"')
                .to_owned()
        };
        (value("endpoint"), value("key"))
    }

    /// Makes a request to the API and returns the status and the text of the answer.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn call(&self, method: &str, path: &str, key: &str, body: Option<String>) -> (u16, String) {
        let (status, _, text) = self.answer(method, path, key, body);
        (status, text)
    }

    /// Like [`Self::call`], with the answer's headers.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn answer(
        &self,
        method: &str,
        path: &str,
        key: &str,
        body: Option<String>,
    ) -> (u16, HeaderMap, String) {
        let url = format!("{}{path}", self.api().0);
        let method = method.parse().expect("a method");
        let request = client()
            .request(method, url)
            .bearer_auth(key)
            .header("content-type", "application/json");
        let request = body
            .into_iter()
            .fold(request, reqwest::RequestBuilder::body);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let answer = request.send().await.expect("the API answers");
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            (status, headers, answer.text().await.expect("a text"))
        })
    }

    /// Runs `mycli` with a text on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        self.user.run_with(arguments, input)
    }

    /// Lambda's description of a function.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn function(&self, name: &str) -> Value {
        self.lambda("GET", &format!("functions/{name}"), &Value::Null)
    }

    /// Calls Lambda, whose operations are paths.
    ///
    /// # Panics
    /// When it does not answer with JSON.
    pub fn lambda(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = format!("{}/2015-03-31/{path}", self.emulator.endpoint());
        let request = client().request(method.parse().expect("a method"), url);
        let request = if body.is_null() {
            request
        } else {
            request.body(body.to_string())
        };
        let text = send(request, "lambda").expect("the emulator answers");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Calls a service with a JSON protocol.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn ask(&self, service: &str, target: &str, body: &Value) -> Value {
        ask(&self.emulator.endpoint(), service, target, body).expect("the emulator answers")
    }

    /// Stops sending task events to the state tracker, as if EventBridge lost them.
    pub fn lose_events(&mut self) {
        self.events = None;
    }
}

/// The folder with the zips of the functions as built with the tests, without debug information.
/// They are packed once per build, since that takes half a minute.
fn packed() -> PathBuf {
    let all = built(FUNCTIONS[0]).with_file_name("packed-functions");
    let folder = all.join(build());
    if !folder.exists() {
        fs::create_dir_all(&all).expect("a folder");
        let scratch = tempfile::tempdir_in(&all).expect("a folder");
        pack(&built(FUNCTIONS[0]).with_file_name(""), scratch.path());
        // The first test to finish packs for all.
        let first = fs::rename(scratch.path().join("zips"), &folder);
        assert!(first.is_ok() || folder.exists(), "{first:?}");
        remove_older(&folder);
    }
    folder
}

/// Packs the functions in a folder of programs, without debug information, into `zips` within
/// another folder. Returns the zips' folder.
///
/// # Panics
/// When a program is missing or cannot be packed.
pub fn pack(programs: &Path, folder: &Path) -> PathBuf {
    for name in FUNCTIONS {
        let status = Command::new("strip")
            .arg("-o")
            .arg(folder.join(name))
            .arg(programs.join(name))
            .status();
        assert!(status.is_ok_and(|status| status.success()), "strip {name}");
    }
    let zips = folder.join("zips");
    deploy::package::pack(folder, &zips).expect("zips");
    zips
}

fn remove_older(folder: &Path) {
    let is_hash =
        |path: &PathBuf| path.file_name().map(OsStr::len) == folder.file_name().map(OsStr::len);
    let all = fs::read_dir(folder.with_file_name(""))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    all.filter(|path| path != folder && is_hash(path))
        .for_each(|older| _ = fs::remove_dir_all(older));
}

/// A name unique to this build of the functions.
fn build() -> String {
    let written = |name| {
        let about = fs::metadata(built(name)).expect("it is built");
        format!("{:?} {}", about.modified().expect("its time"), about.len())
    };
    hex::encode(Sha256::digest(FUNCTIONS.map(written).join(" ")))
}

/// The containers of a task.
#[must_use]
pub fn containers(task_arn: &str) -> Vec<String> {
    Engine::shared().containers(&format!("com.amazonaws.ecs.task-arn={task_arn}"))
}

/// Waits until a task has no container left: the emulator reports its end a moment earlier.
///
/// # Panics
/// When a container stays.
pub fn until_gone(task_arn: &str) {
    eventually("no container of the task is left", || {
        containers(task_arn).is_empty().then_some(())
    });
}

/// Calls a service with a JSON protocol.
fn ask(endpoint: &str, service: &str, target: &str, body: &Value) -> Result<Value, String> {
    let request = client().post(endpoint).header("x-amz-target", target);
    let request = request
        .header("content-type", "application/x-amz-json-1.1")
        .body(body.to_string());
    let text = send(request, service)?;
    serde_json::from_str(&text).map_err(|error| format!("{target}: {error}: {text}"))
}

/// An HTTP client for the emulator.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn client() -> reqwest::Client {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    // The timeout lets the thread that sends events go on after a request that hangs.
    builder.timeout(PATIENCE / 3).build().expect("a client")
}

/// A request for a service, as if it were signed: the emulator only reads the names in the
/// signature.
pub fn signed(request: reqwest::RequestBuilder, service: &str) -> reqwest::RequestBuilder {
    let scope = format!("{ACCESS_KEY}/20260101/{REGION}/{service}/aws4_request");
    request.header(
        "authorization",
        format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
    )
}

fn send(request: reqwest::RequestBuilder, service: &str) -> Result<String, String> {
    let signed = signed(request, service);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let answer = signed.send().await.map_err(|error| error.to_string())?;
        let (status, text) = (
            answer.status(),
            answer.text().await.map_err(|error| error.to_string())?,
        );
        if status.is_success() {
            Ok(text)
        } else {
            Err(format!("{status}: {text}"))
        }
    })
}

/// Replaces the part of EventBridge that the emulator lacks. It polls the cluster's tasks and
/// invokes the state tracker with each change, in ECS's own envelope.
#[derive(Debug)]
struct Events {
    stop: Arc<AtomicBool>,
    teller: Option<JoinHandle<()>>,
}

impl Events {
    fn of(emulator: &Arc<Emulator>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (endpoint, stopped) = (emulator.endpoint(), Arc::clone(&stop));
        let teller = thread::spawn(move || {
            let mut told = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                // An event that could not be sent is sent at the next look.
                let _told = tell(&endpoint, &mut told);
                thread::sleep(LOOK);
            }
        });
        Self {
            stop,
            teller: Some(teller),
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(teller) = self.teller.take() {
            let _over = teller.join();
        }
    }
}

/// Sends the changes since `told`.
fn tell(endpoint: &str, told: &mut BTreeMap<String, Value>) -> Result<(), String> {
    let ecs = |operation: &str, body: Value| {
        ask(
            endpoint,
            "ecs",
            &format!("AmazonEC2ContainerServiceV20141113.{operation}"),
            &body,
        )
    };
    let mut arns = Vec::new();
    for status in ["RUNNING", "STOPPED"] {
        let listed = ecs(
            "ListTasks",
            json!({"cluster": "mycli-default", "desiredStatus": status}),
        )?;
        arns.extend(listed["taskArns"].as_array().cloned().unwrap_or_default());
    }
    for arns in arns.chunks(100) {
        let described = ecs(
            "DescribeTasks",
            json!({"cluster": "mycli-default", "tasks": arns}),
        )?;
        for task in described["tasks"].as_array().into_iter().flatten() {
            tell_of(endpoint, task, told)?;
        }
    }
    Ok(())
}

fn tell_of(endpoint: &str, task: &Value, told: &mut BTreeMap<String, Value>) -> Result<(), String> {
    let arn = text(&task["taskArn"]);
    // The EventBridge rule admits only these statuses.
    let is_told = matches!(task["lastStatus"].as_str(), Some("RUNNING" | "STOPPED"));
    if !is_told || told.get(&arn) == Some(&task["version"]) {
        return Ok(());
    }
    let event = json!({
        "version": "0", "id": format!("{arn}-{}", task["version"]), "detail-type": "ECS Task State Change",
        "source": "aws.ecs", "account": "000000000000", "time": "2026-11-24T00:00:00Z", "region": REGION,
        "resources": [arn], "detail": task,
    });
    let url = format!("{endpoint}/2015-03-31/functions/mycli-default-state-tracker/invocations");
    let request = client()
        .post(url)
        .header("x-amz-invocation-type", "Event")
        .body(event.to_string());
    send(request, "lambda")?;
    told.insert(arn, task["version"].clone());
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
