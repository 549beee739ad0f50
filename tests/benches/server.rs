//! `mycli local serve`, and one connection to it.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::{process::Process, programs::Programs};

/// The key of the servers here. It opens nothing else.
pub(crate) const KEY: &str =
    "sk_live_5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
/// The statuses that are not final.
const UNFINISHED: [&str; 4] = ["QUEUED", "WAITING", "LAUNCHING", "RUNNING"];

/// A running server with its own history. When this is dropped, the server ends. Its history stays
/// as long as the programs.
pub(crate) struct Server {
    process: Process,
    /// The server's address.
    pub(crate) endpoint: String,
    client: Client,
    home: PathBuf,
}

impl Server {
    /// Starts a server that runs commands of 256 CPU units on `vcpus` vCPUs: four of them on each.
    pub(crate) fn start(programs: &Programs, vcpus: u32) -> Self {
        let home = programs.home();
        let mut command = Command::new(&programs.mycli);
        command
            .args([
                "local",
                "serve",
                "--listen",
                "127.0.0.1:0",
                "-o",
                "json",
                "--vcpus",
                &vcpus.to_string(),
            ])
            .env("MYCLI_HOME", &home)
            .env("MYCLI_API_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = Process::of(&mut command);
        let mut line = String::new();
        let _read = BufReader::new(process.0.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("its address");
        let said: Value = serde_json::from_str(&line).expect("a line of JSON");
        let endpoint = said["endpoint"].as_str().expect("an endpoint").to_owned();
        // A process has one provider. Installing it again fails and changes nothing.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(1)
            .build()
            .expect("a client");
        Self {
            process,
            endpoint,
            client,
            home,
        }
    }

    /// The processor time it has used.
    pub(crate) fn spent(&self) -> Duration {
        self.process.spent()
    }

    /// The folder of its history.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Submits a command and returns its id.
    pub(crate) async fn submit(&self, command: &str) -> String {
        let request = json!({"action": "exec", "command": command, "cpu": 256});
        let request = self
            .client
            .post(format!("{}/execute", self.endpoint))
            .bearer_auth(KEY)
            .json(&request);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        let accepted: Value = answer.json().await.expect("JSON");
        accepted["execution_id"].as_str().expect("an id").to_owned()
    }

    /// One page of history.
    pub(crate) async fn page(&self, query: &str) -> Value {
        let request = self
            .client
            .get(format!("{}/executions?{query}", self.endpoint))
            .bearer_auth(KEY);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.expect("JSON")
    }

    /// Whether every run is over.
    pub(crate) async fn is_idle(&self) -> bool {
        for status in UNFINISHED {
            if self.page(&format!("limit=1&status={status}")).await["executions"]
                .as_array()
                .is_none_or(|found| !found.is_empty())
            {
                return false;
            }
        }
        true
    }

    /// How many runs have succeeded.
    pub(crate) async fn succeeded(&self) -> usize {
        let (mut count, mut cursor) = (0, String::new());
        loop {
            let page = self
                .page(&format!("limit=100&status=SUCCEEDED{cursor}"))
                .await;
            count += page["executions"].as_array().map_or(0, Vec::len);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return count,
            }
        }
    }
}
