//! An emulator, a user, and functions to deploy.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tests::{
    built,
    emulator::{ACCESS_KEY, Emulator, REGION},
    sandbox::{Ran, Sandbox},
};

use super::permissions;

pub(super) const FUNCTIONS: [&str; 4] = ["submit", "launcher", "state-tracker", "query"];

pub(super) struct World {
    pub(super) emulator: Emulator,
    pub(super) user: Sandbox,
}

impl World {
    /// Starts an emulator with nothing deployed yet.
    pub(super) fn new() -> Self {
        Self::on(Emulator::start())
    }

    /// Uses this emulator, with nothing deployed yet.
    pub(super) fn on(emulator: Emulator) -> Self {
        let user = Sandbox::new()
            .with("AWS_ENDPOINT_URL", emulator.endpoint())
            .with("AWS_REGION", REGION)
            .with("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .with("AWS_SECRET_ACCESS_KEY", ACCESS_KEY)
            .with("USER", "alice");
        let world = Self { emulator, user };
        world.package("functions", b"");
        world
    }

    /// Starts an emulator and deploys a stack.
    pub(super) fn with_stack() -> Self {
        let world = Self::new();
        world.init(&[]).exits(0);
        world
    }

    /// Packs functions into a folder. `mark` makes them differ from another build.
    pub(super) fn package(&self, folder: &str, mark: &[u8]) -> PathBuf {
        let (programs, zips) = (self.user.path("programs"), self.user.path(folder));
        fs::create_dir_all(&programs).unwrap();
        let program = [&fs::read(built("idle-function")).unwrap(), mark].concat();
        for name in FUNCTIONS {
            fs::write(programs.join(name), &program).unwrap();
        }
        deploy::package::pack(&programs, &zips).unwrap();
        zips
    }

    /// Runs `mycli`, and asserts that the policies of docs/init-policy allow its AWS calls.
    #[track_caller]
    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        let before = permissions::requests(self).len();
        let ran = self.user.run(arguments);
        permissions::check(arguments, &permissions::requests(self)[before..]);
        ran
    }

    pub(super) fn init(&self, arguments: &[&str]) -> Ran {
        self.run(&[&["init", "--functions", "functions"], arguments].concat())
    }

    pub(super) fn config(&self) -> PathBuf {
        self.user.home().join(".mycli/config.yaml")
    }

    fn send(&self, request: reqwest::RequestBuilder, service: &str) -> (u16, String) {
        let scope = format!("{ACCESS_KEY}/20260101/{REGION}/{service}/aws4_request");
        let signed = request.header(
            "authorization",
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let answer = signed.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }

    fn client() -> reqwest::Client {
        let _first = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .build()
            .unwrap()
    }

    /// Calls a service that speaks JSON: `ask("sqs", "AmazonSQS.SendMessage", …)`.
    pub(super) fn ask(&self, service: &str, target: &str, body: &Value) -> Value {
        let request = Self::client()
            .post(self.emulator.endpoint())
            .header("x-amz-target", target);
        let request = request
            .header("content-type", "application/x-amz-json-1.0")
            .body(body.to_string());
        let (status, text) = self.send(request, service);
        assert_eq!(status, 200, "{target}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Sends S3 a GET request for the stack's bucket. Returns status and text.
    pub(super) fn bucket(&self, query: &str) -> (u16, String) {
        let url = format!(
            "{}/mycli-default-000000000000-{REGION}{query}",
            self.emulator.endpoint()
        );
        self.send(Self::client().get(url), "s3")
    }

    /// Returns CloudFormation's own description of a stack: status and text.
    pub(super) fn describe(&self, stack: &str) -> (u16, String) {
        self.query(
            "cloudformation",
            &format!("Action=DescribeStacks&Version=2010-05-15&StackName={stack}"),
        )
    }

    /// Calls a service that speaks the query protocol. Returns status and text.
    pub(super) fn query(&self, service: &str, body: &str) -> (u16, String) {
        let request = Self::client()
            .post(self.emulator.endpoint())
            .body(body.to_owned());
        self.send(
            request.header("content-type", "application/x-www-form-urlencoded"),
            service,
        )
    }

    /// Returns the role that API Gateway logs with in this account and region.
    pub(super) fn gateway_log_role(&self) -> Option<String> {
        let request = Self::client().get(format!("{}/account", self.emulator.endpoint()));
        let (status, text) = self.send(request, "apigateway");
        assert_eq!(status, 200, "{text}");
        let account: Value = serde_json::from_str(&text).unwrap();
        account["cloudwatchRoleArn"]
            .as_str()
            .filter(|arn| !arn.is_empty())
            .map(str::to_owned)
    }

    /// Sets the role that API Gateway logs with.
    pub(super) fn set_gateway_log_role(&self, arn: &str) {
        let patch = json!({"patchOperations": [{"op": "replace", "path": "/cloudwatchRoleArn", "value": arn}]});
        let request = Self::client()
            .patch(format!("{}/account", self.emulator.endpoint()))
            .body(patch.to_string());
        let (status, text) = self.send(
            request.header("content-type", "application/json"),
            "apigateway",
        );
        assert_eq!(status, 200, "{text}");
    }

    fn iam(&self, action: &str, parameters: &[(&str, &str)]) {
        let encoded = |text: &str| {
            text.bytes()
                .map(|byte| format!("%{byte:02X}"))
                .collect::<String>()
        };
        let parameters: String = parameters
            .iter()
            .map(|(name, value)| format!("&{name}={}", encoded(value)))
            .collect();
        let (status, text) = self.query(
            "iam",
            &format!("Action={action}&Version=2010-05-08{parameters}"),
        );
        assert_eq!(status, 200, "{text}");
    }

    /// Makes a role that a service may assume.
    pub(super) fn make_role(&self, name: &str, service: &str) {
        let trust = json!({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"});
        let trust = json!({"Version": "2012-10-17", "Statement": [trust]}).to_string();
        self.iam(
            "CreateRole",
            &[("RoleName", name), ("AssumeRolePolicyDocument", &trust)],
        );
    }

    /// Makes a function's role with these statements.
    pub(super) fn make_role_with(&self, name: &str, statements: &[Value]) {
        self.make_role(name, "lambda.amazonaws.com");
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        self.iam(
            "PutRolePolicy",
            &[
                ("RoleName", name),
                ("PolicyName", "inline"),
                ("PolicyDocument", &policy),
            ],
        );
    }

    /// Makes a user in a group that has this managed policy.
    pub(super) fn make_member(&self, name: &str, policy: &str) {
        let group = format!("{name}-group");
        self.iam("CreateGroup", &[("GroupName", &group)]);
        self.iam(
            "AttachGroupPolicy",
            &[("GroupName", &group), ("PolicyArn", policy)],
        );
        self.iam("CreateUser", &[("UserName", name)]);
        self.iam(
            "AddUserToGroup",
            &[("GroupName", &group), ("UserName", name)],
        );
    }

    /// Returns the names of the account's roles.
    pub(super) fn roles(&self) -> Vec<String> {
        let (status, text) = self.query("iam", "Action=ListRoles&Version=2010-05-08");
        assert_eq!(status, 200, "{text}");
        text.split("<RoleName>")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once('<')?.0.to_owned()))
            .collect()
    }

    /// Returns a parameter's value in the default stack.
    pub(super) fn parameter(&self, name: &str) -> String {
        self.parameter_of("mycli-default", name)
    }

    /// Returns a parameter's value in this stack.
    pub(super) fn parameter_of(&self, stack: &str, name: &str) -> String {
        let (_, text) = self.describe(stack);
        let after = text
            .split(&format!("<ParameterKey>{name}</ParameterKey>"))
            .nth(1)
            .unwrap_or_default();
        let value = after.split("<ParameterValue>").nth(1).unwrap_or_default();
        value.split('<').next().unwrap_or_default().to_owned()
    }

    pub(super) fn queue_url(&self, name: &str) -> String {
        let answer = self.ask(
            "sqs",
            "AmazonSQS.GetQueueUrl",
            &json!({"QueueName": format!("mycli-default-{name}")}),
        );
        answer["QueueUrl"].as_str().unwrap().to_owned()
    }

    pub(super) fn send_message(&self, queue: &str, body: &str) {
        let message = json!({"QueueUrl": self.queue_url(queue), "MessageBody": body});
        self.ask("sqs", "AmazonSQS.SendMessage", &message);
    }
}
