//! `upgrade OLD NEW`: two releases on one stack of the emulator. Each argument is a folder with
//! `mycli` and the four functions of a commit (`tests/upgrade.sh` builds them).
//!
//! OLD's stack is upgraded to NEW while runs are under way; then functions of both take turns; then
//! the stack goes back to OLD. Whatever was submitted must have ended once, with its exit code.
//! Exits with 101 at the first thing that is not so, having told it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    sandbox::Ran,
    world::{self, LOOK, PATIENCE, World},
};

const FUNCTIONS: [&str; 4] = deploy::package::FUNCTIONS;
/// One vCPU: four runs of the usual size, so that others wait for the pool.
const PARAMETERS: [&str; 1] = ["SpotVcpus=1"];
/// Lines of the submission, and how many of them OLD is sent.
const LINES: usize = 8;
const SENT: usize = 4;

fn main() -> ExitCode {
    let folders: Vec<_> = std::env::args().skip(1).map(PathBuf::from).collect();
    let [old, new] = folders.as_slice() else {
        eprintln!("use: upgrade OLD NEW, two folders with the programs of a commit");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let (old, new) = (
        Release::of("the old release", old),
        Release::of("the new release", new),
    );
    let mut story = Story::begin(&old);
    story.upgrade_under_runs(&new);
    story.take_turns(&old, &new);
    story.go_back(&old, &new);
    println!(
        "{} runs over two releases, each ended once, in {:.0} s",
        story.runs.len(),
        began.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}

/// The programs of a commit.
struct Release {
    name: &'static str,
    mycli: PathBuf,
    zips: PathBuf,
    /// While this is there, the zips are.
    _folder: TempDir,
}

impl Release {
    fn of(name: &'static str, programs: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let zips = world::pack(programs, folder.path());
        let mycli = programs
            .canonicalize()
            .expect("the folder is there")
            .join("mycli");
        Self {
            name,
            mycli,
            zips,
            _folder: folder,
        }
    }

    fn deploys(&self, world: &World, more: &[&str]) -> Ran {
        let zips = self.zips.to_str().expect("a path in UTF-8");
        world.run(&[&["upgrade", "--functions", zips], more].concat())
    }

    /// The zip of one function.
    fn zip(&self, function: &str) -> Vec<u8> {
        fs::read(self.zips.join(format!("{function}.zip"))).expect("it is packed")
    }
}

/// What was submitted, and what is to come of it.
struct Story {
    world: World,
    /// Exit codes by id.
    runs: BTreeMap<String, u8>,
}

impl Story {
    /// OLD's stack, with runs that are over, that run, and that wait for a lock and for the pool.
    fn begin(old: &Release) -> Self {
        let world = World::deployed_by(&old.mycli, &old.zips, &PARAMETERS);
        let mut story = Self {
            world,
            runs: BTreeMap::new(),
        };
        println!("deployed {}", old.name);
        for code in [0, 3] {
            let id = story.submits(&[], 0, code);
            story.ends(&id);
        }
        story
    }

    /// Submits a command that takes so long and exits so; its id.
    fn submits(&mut self, flags: &[&str], seconds: u32, code: u8) -> String {
        let command = format!("sleep {seconds}; exit {code}");
        let id = self.world.detach(&[flags, &[&command]].concat());
        self.runs.insert(id.clone(), code);
        id
    }

    /// Waits for the end of a run, and looks at it.
    fn ends(&self, id: &str) {
        let end = Instant::now() + PATIENCE;
        let record = loop {
            let record = self.world.status(id);
            if matches!(record["status"].as_str(), Some("SUCCEEDED" | "FAILED")) {
                break record;
            }
            let said = || format!("{id} did not end: {record:#}\n{}", self.world.said());
            assert!(Instant::now() < end, "{}", said());
            thread::sleep(LOOK);
        };
        let attempts = record["attempts"].as_array().map_or(0, Vec::len);
        assert_eq!(
            (&record["exit_code"], attempts),
            (&json!(self.runs[id]), 1),
            "{record:#}"
        );
        assert!(record["stopped_at"].is_string(), "{record:#}");
    }

    /// Waits for the end of all, and looks at all that is kept.
    fn all_end(&self) {
        for id in self.runs.keys() {
            self.ends(id);
        }
        let page = self
            .world
            .run(&["history", "--limit", "100", "-o", "json"])
            .exits(0)
            .json();
        let listed = page["executions"].as_array().expect("a list").iter();
        let mut listed: Vec<_> = listed
            .map(|run| run["execution_id"].as_str().expect("an id"))
            .collect();
        listed.sort_unstable();
        let known: Vec<_> = self.runs.keys().map(String::as_str).collect();
        assert_eq!(
            listed, known,
            "history is what was submitted, no more and no less"
        );
        assert!(!page.to_string().contains("UNREADABLE"), "{page:#}");
        for queue in ["launch-dead", "control-dead", "events-dead"] {
            assert_eq!(self.messages(queue), 0, "{queue}");
        }
    }

    fn messages(&self, queue: &str) -> u64 {
        let name = json!({"QueueName": format!("mycli-default-{queue}")});
        let url = self.world.ask("sqs", "AmazonSQS.GetQueueUrl", &name)["QueueUrl"].clone();
        let body = json!({"QueueUrl": url, "AttributeNames": ["All"]});
        let attributes =
            self.world.ask("sqs", "AmazonSQS.GetQueueAttributes", &body)["Attributes"].clone();
        attributes["ApproximateNumberOfMessages"]
            .as_str()
            .and_then(|number| number.parse().ok())
            .expect("a number")
    }

    /// Runs are under way, and a submission is half sent; then comes NEW.
    fn upgrade_under_runs(&mut self, new: &Release) {
        let running: Vec<_> = [5, 0].map(|code| self.submits(&[], 30, code)).into();
        for id in &running {
            self.world.until(id, "RUNNING");
        }
        for code in [0, 1, 2] {
            self.submits(&["--lock", "deploy"], 3, code);
        }
        for code in [0, 4, 0] {
            self.submits(&[], 2, code);
        }
        let file = self.world.user.path("jobs.jsonl");
        let lines = (0..LINES)
            .map(|line| format!("{}\n", json!({"command": format!("exit {}", line % 3)})));
        fs::write(file, lines.collect::<String>()).expect("a file");
        self.sends_half();

        self.world.user.use_program(&new.mycli);
        new.deploys(&self.world, &[]).exits(0);
        println!("upgraded to {} under {} runs", new.name, self.runs.len());
        let resumed = self.world.run(&[
            "bulk",
            "jobs.jsonl",
            "--no-repo",
            "--resume",
            "half",
            "-o",
            "json",
        ]);
        let report = resumed.exits(0).json();
        let count = |list: &str| report[list].as_array().map_or(0, Vec::len);
        assert_eq!(
            (count("existing"), count("accepted"), count("rejected")),
            (SENT, LINES - SENT, 0),
            "{report:#}"
        );
        self.notes(&report["accepted"], |entry| {
            entry["line"].as_u64().map(|line| line - 1)
        });
        self.all_end();
    }

    /// The first lines of the file, as `bulk` would send them.
    fn sends_half(&mut self) {
        let requests = self
            .world
            .run(&[
                "bulk",
                "jobs.jsonl",
                "--no-repo",
                "--group",
                "half",
                "--dry-run",
            ])
            .exits(0)
            .out;
        let requests: Vec<Value> = requests
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        assert_eq!(requests.len(), LINES, "{requests:#?}");
        let body =
            json!({"submission_id": "half", "first_index": 0, "executions": requests[..SENT]});
        let key = self.world.api().1;
        let (status, text) =
            self.world
                .call("POST", "/executions/bulk", &key, Some(body.to_string()));
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (status, answer["accepted"].as_array().map(Vec::len)),
            (202, Some(SENT)),
            "{text}"
        );
        self.notes(&answer["accepted"], |entry| entry["index"].as_u64());
    }

    /// Notes what was accepted of the submission; `line` counts from 0.
    fn notes(&mut self, accepted: &Value, line: impl Fn(&Value) -> Option<u64>) {
        for entry in accepted.as_array().into_iter().flatten() {
            let id = entry["execution_id"].as_str().expect("an id").to_owned();
            let code = line(entry)
                .and_then(|line| u8::try_from(line % 3).ok())
                .expect("a line");
            self.runs.insert(id, code);
        }
    }

    /// One function after the other is OLD's for a while, and then all but that one; each change
    /// comes under runs.
    fn take_turns(&mut self, old: &Release, new: &Release) {
        for one in FUNCTIONS {
            for (release, others) in [(old, new), (new, old)] {
                self.some_run();
                for function in FUNCTIONS {
                    self.runs_code_of(if function == one { release } else { others }, function);
                }
                self.some_run();
                println!("{one} of {}, the others of {}", release.name, others.name);
            }
        }
        for function in FUNCTIONS {
            self.runs_code_of(new, function);
        }
        self.all_end();
    }

    /// One that is free to run, and two that exclude each other.
    fn some_run(&mut self) {
        // A lock of their own: one for all would make a backlog of many minutes on a busy machine.
        let lock = format!("turn-{}", self.runs.len());
        self.submits(&[], 1, 6);
        self.submits(&["--lock", &lock], 1, 0);
        self.submits(&["--lock", &lock], 0, 7);
    }

    fn runs_code_of(&self, release: &Release, function: &str) {
        let body = json!({"ZipFile": STANDARD.encode(release.zip(function))});
        let answer = self.world.lambda(
            "PUT",
            &format!("functions/mycli-default-{function}/code"),
            &body,
        );
        assert!(answer["CodeSha256"].is_string(), "{answer:#}");
    }

    /// The older `mycli` takes its functions back under runs of the newer ones.
    fn go_back(&mut self, old: &Release, new: &Release) {
        let running = self.submits(&[], 20, 9);
        self.world.until(&running, "RUNNING");
        for code in [0, 8] {
            self.submits(&["--lock", "deploy"], 2, code);
        }
        self.world.user.use_program(&old.mycli);
        old.deploys(&self.world, &["--allow-downgrade"]).exits(0);
        println!("went back to {}", old.name);
        self.submits(&[], 0, 2);
        self.all_end();
        self.world.user.use_program(&new.mycli);
        self.all_end();
    }
}
