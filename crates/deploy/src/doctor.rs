//! Finds out what is wrong with a stack. [`Facts::gather`] collects facts; [`judge`] judges them
//! without I/O.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::{
    Account, CallError, StackName,
    activity::{self, Activity, UnreadableRecord},
    bucket::StackBucket,
    dead_letters::{DeadLetters, DeadQueue},
    install,
    log_writers::{self, Writers},
    network::{self, NetworkFault, TaskNetwork},
    quotas::{self, KnownQuota, Pool},
    runner_image::RunnerRepository,
    secrets::{self, KeptSecret},
    stack::{StackCondition, StackView, Stacks},
};

/// How far this machine's clock may be off. AWS refuses signatures that are more than five minutes
/// off. The limit here is lower, because times of this machine are shown beside AWS's.
const CLOCK_MAX: TimeDelta = TimeDelta::seconds(60);
/// How long a task may take to start. A start takes a minute, and a large image somewhat longer.
const LAUNCH_MAX: TimeDelta = TimeDelta::minutes(15);
/// How long the first entry of a backlog may wait. An hour is the default timeout of the runs that
/// it waits for.
const WAIT_MAX: TimeDelta = TimeDelta::hours(1);
/// The stack's output that says that it has a bucket for files.
const FILES_BUCKET: &str = "ArtifactsBucket";
/// How many names of a longer list are shown, so that they fill a line or two.
const NAMED: usize = 5;

/// The facts that were collected. A fact that could not be collected is an error in words.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The stack's name.
    pub name: StackName,
    /// This program's version.
    pub version: String,
    /// The time of the check.
    pub now: DateTime<Utc>,
    /// The account, the caller and the region: "123456789012 (user/alice) in eu-west-1".
    pub account: Result<String, String>,
    /// How far this machine's clock is ahead of AWS's.
    pub clock_ahead: Option<TimeDelta>,
    /// The stack, if it exists.
    pub stack: Result<Option<StackView>, String>,
    /// The account's quotas.
    pub quotas: Vec<(Pool, KnownQuota)>,
    /// The number of dead letters in each dead-letter queue.
    pub dead_letters: Vec<(DeadQueue, Result<usize, String>)>,
    /// The runs that have not ended, and the unreadable records.
    pub activity: Result<Activity, String>,
    /// The secrets.
    pub secrets: Result<KeptSecret, String>,
    /// Whether the image of the runner that the stack names is in its repository.
    pub runner_image: Result<bool, String>,
    /// Whether the bucket for files of runs is there; `None` if the stack has none yet.
    pub files_bucket: Result<Option<bool>, String>,
    /// The network that tasks are in; `None` if the stack made it.
    pub network: Result<Option<TaskNetwork>, String>,
    /// The principals that may write into the log streams of tasks.
    pub log_writers: Result<Writers, String>,
    /// Whether the API accepts the configured key; `None` if that was not tried.
    pub api: Option<Result<(), String>>,
}

impl Facts {
    /// Returns the facts for an account that cannot be used: only the reason is known.
    #[must_use]
    pub fn without_account(name: &StackName, version: &str, why: String) -> Self {
        let unknown = || "the account cannot be used".to_owned();
        Self {
            name: name.clone(),
            version: version.to_owned(),
            now: Utc::now(),
            account: Err(why),
            clock_ahead: None,
            stack: Err(unknown()),
            quotas: Vec::new(),
            dead_letters: Vec::new(),
            activity: Err(unknown()),
            secrets: Err(unknown()),
            runner_image: Err(unknown()),
            files_bucket: Err(unknown()),
            network: Err(unknown()),
            log_writers: Err(unknown()),
            api: None,
        }
    }

    /// Collects all facts from AWS. The result of [`Facts::api`] is not among them.
    pub async fn gather(account: &Account, name: &StackName, version: &str) -> Self {
        let who = format!("{} ({}) in {}", account.id, account.who(), account.region);
        let stack = Stacks::new(account, name)
            .find()
            .await
            .map_err(|error| error.to_string());
        let no_stack = || "there is no stack".to_owned();
        let mut facts = Self {
            account: Ok(who),
            clock_ahead: account.clock_ahead,
            activity: Err(no_stack()),
            secrets: Err(no_stack()),
            runner_image: Err(no_stack()),
            files_bucket: Err(no_stack()),
            network: Err(no_stack()),
            log_writers: Err(no_stack()),
            stack,
            ..Self::without_account(name, version, String::new())
        };
        for pool in Pool::ALL {
            facts.quotas.push((pool, quotas::read(account, pool).await));
        }
        if let Ok(Some(stack)) = facts.stack.clone()
            && stack.condition() != StackCondition::NeverStood
        {
            facts.look_into(account, &stack).await;
        }
        facts
    }

    async fn look_into(&mut self, account: &Account, stack: &StackView) {
        let dead = DeadLetters::new(account, stack);
        for queue in DeadQueue::ALL {
            self.dead_letters.push((
                queue,
                dead.count(queue).await.map_err(|error| error.to_string()),
            ));
        }
        self.activity = activity::look(account, stack)
            .await
            .map_err(|error| error.to_string());
        let path = self.name.secrets_path();
        self.secrets = secrets::list(account, stack, path)
            .await
            .map_err(|error| error.to_string());
        self.runner_image = has_runner_image(account, &self.name, stack)
            .await
            .map_err(|error| error.to_string());
        self.files_bucket = has_files_bucket(account, &self.name, stack)
            .await
            .map_err(|error| error.to_string());
        self.network = network::look(account, stack)
            .await
            .map_err(|error| error.to_string());
        self.log_writers = log_writers::find(account, &self.name, stack)
            .await
            .map_err(|error| error.to_string());
    }

    /// Returns a command line for this stack.
    fn command(&self, verb: &str) -> String {
        if self.name == StackName::default() {
            format!("mycli {verb}")
        } else {
            format!("mycli --stack {} {verb}", self.name)
        }
    }
}

/// Whether tasks find the image that the stack names.
async fn has_runner_image(
    account: &Account,
    name: &StackName,
    stack: &StackView,
) -> Result<bool, CallError> {
    let image = stack.parameters.get(install::RUNNER_IMAGE);
    match image.and_then(|image| image.split_once('@')) {
        Some((_, digest)) => RunnerRepository::new(account, name).has(digest).await,
        None => Ok(false),
    }
}

/// Whether the bucket that the stack names for files is there.
async fn has_files_bucket(
    account: &Account,
    name: &StackName,
    stack: &StackView,
) -> Result<Option<bool>, CallError> {
    match stack.outputs.contains_key(FILES_BUCKET) {
        true => StackBucket::files(account, name).exists().await.map(Some),
        false => Ok(None),
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The subject of the check.
    pub name: &'static str,
    /// The verdict.
    pub verdict: CheckVerdict,
    /// The details, in words.
    pub detail: String,
    /// How to fix it, if something is wrong or could be better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// The verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    /// All is as it should be.
    Ok,
    /// It works, but somebody could use it to do harm. The account's owner decides whether to
    /// change it, so a warning does not make `doctor` fail.
    Warning,
    /// Something is wrong.
    Wrong,
    /// It could not be found out, which does not make `doctor` fail.
    Unknown,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict: CheckVerdict::Ok,
            detail: detail.into(),
            fix: None,
        }
    }

    fn wrong(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            verdict: CheckVerdict::Wrong,
            detail: detail.into(),
            fix: Some(fix.into()),
        }
    }

    fn warning(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: CheckVerdict::Warning,
            ..Self::wrong(name, detail, fix)
        }
    }

    fn unknown(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict: CheckVerdict::Unknown,
            detail: detail.into(),
            fix: None,
        }
    }
}

/// Judges the facts. The checks are in the order in which problems would be fixed.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Check> {
    let account = credentials(facts);
    if account.verdict == CheckVerdict::Wrong {
        return vec![account];
    }
    let stack = stack(facts);
    let healthy = facts
        .stack
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .filter(|_| stack.verdict == CheckVerdict::Ok);
    let mut checks = vec![account, clock(facts), stack];
    if let Some(stack) = healthy {
        checks.push(version(facts, stack));
        checks.extend(
            facts
                .quotas
                .iter()
                .map(|(pool, known)| quota(facts, stack, *pool, known)),
        );
        checks.extend(
            facts
                .dead_letters
                .iter()
                .map(|(queue, count)| dead_letters(facts, *queue, count)),
        );
        checks.extend(records(facts));
        checks.extend(waiting(facts));
        checks.push(runner_image(facts));
        checks.extend(files_bucket(facts));
        checks.extend(network_of_tasks(facts));
        checks.push(secrets_kept(facts));
        checks.push(log_writers(facts));
        checks.extend(facts.api.as_ref().map(|api| key(facts, api)));
    }
    checks
}

fn credentials(facts: &Facts) -> Check {
    match &facts.account {
        Ok(who) => Check::ok("credentials", who),
        Err(why) => Check::wrong(
            "credentials",
            why,
            "fix this error, then check with `aws sts get-caller-identity`",
        ),
    }
}

fn clock(facts: &Facts) -> Check {
    match facts.clock_ahead {
        None => Check::unknown("clock", "AWS did not tell its time"),
        Some(ahead) if ahead.abs() <= CLOCK_MAX => Check::ok("clock", "agrees with AWS's"),
        Some(ahead) => {
            let way = if ahead > TimeDelta::zero() {
                "ahead of"
            } else {
                "behind"
            };
            let detail = format!(
                "this machine's clock is {} s {way} AWS's",
                ahead.num_seconds().abs()
            );
            Check::wrong(
                "clock",
                detail,
                "set the clock (timedatectl set-ntp true): AWS refuses requests beyond five minutes",
            )
        }
    }
}

fn stack(facts: &Facts) -> Check {
    let name = "stack";
    match &facts.stack {
        Err(why) => Check::wrong(
            name,
            why,
            "give these credentials the right to call CloudFormation, then run this again",
        ),
        Ok(None) => Check::wrong(
            name,
            format!("there is no stack {}", facts.name.full()),
            facts.command("init"),
        ),
        Ok(Some(stack)) => {
            let detail = format!("{} is {}", facts.name.full(), stack.status);
            let why = stack
                .reason
                .as_deref()
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default();
            match stack.condition() {
                StackCondition::Stands => Check::ok(name, detail),
                StackCondition::Busy => {
                    Check::wrong(name, detail, "wait until that is over, and run this again")
                }
                StackCondition::NeverStood | StackCondition::Stuck => {
                    Check::wrong(name, detail + &why, facts.command("init"))
                }
                StackCondition::HalfRemoved => {
                    Check::wrong(name, detail + &why, facts.command("destroy"))
                }
            }
        }
    }
}

fn version(facts: &Facts, stack: &StackView) -> Check {
    let theirs = stack.version().unwrap_or("unknown");
    if theirs == facts.version {
        return Check::ok(
            "version",
            format!("the functions are of this version, {theirs}"),
        );
    }
    let detail = format!(
        "the functions are of version {theirs}, this mycli is {}",
        facts.version
    );
    let fix = if is_newer(theirs, &facts.version) {
        "install that version of mycli".into()
    } else {
        facts.command("upgrade")
    };
    Check::wrong("version", detail, fix)
}

/// Whether `one` is a later version than `other`.
#[must_use]
pub fn is_newer(one: &str, other: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split('.').map(|part| part.parse().ok()).collect()
    };
    numbers(one)
        .zip(numbers(other))
        .is_some_and(|(one, other)| one > other)
}

fn quota(facts: &Facts, stack: &StackView, pool: Pool, known: &KnownQuota) -> Check {
    let (name, title) = ("quota", pool.title());
    let limit = stack
        .parameters
        .get(pool.parameter())
        .and_then(|text| text.parse::<u32>().ok());
    let raise = || {
        format!(
            "ask for more: aws service-quotas request-service-quota-increase --service-code fargate --quota-code {} --desired-value 64",
            pool.code()
        )
    };
    match (known, limit) {
        (KnownQuota::Unknown(why), _) => Check::unknown(
            name,
            format!("{title}: Service Quotas cannot be read ({why})"),
        ),
        (KnownQuota::Unset, _) => Check::unknown(name, format!("{title}: AWS reports no quota")),
        (KnownQuota::Vcpus(0), _) => Check::wrong(
            name,
            format!("{title}: the account may use no vCPUs at all"),
            raise(),
        ),
        (KnownQuota::Vcpus(quota), None) => Check::ok(
            name,
            format!("{title}: the stack follows the account's quota of {quota} vCPUs"),
        ),
        (KnownQuota::Vcpus(quota), Some(limit)) if limit > *quota => {
            let detail = format!(
                "{title}: the stack starts up to {limit} vCPUs, the account may use {quota}"
            );
            Check::wrong(
                name,
                detail,
                facts.command(&format!("upgrade {} {quota}", pool.flag())),
            )
        }
        (KnownQuota::Vcpus(quota), Some(limit)) => Check::ok(
            name,
            format!("{title}: the stack uses up to {limit} of the account's {quota} vCPUs"),
        ),
    }
}

fn dead_letters(facts: &Facts, queue: DeadQueue, count: &Result<usize, String>) -> Check {
    let name = "dead letters";
    match count {
        Ok(0) => Check::ok(name, format!("{}: none", queue.as_str())),
        Ok(count) => {
            let fix = format!(
                "{0} shows them; {1}",
                facts.command("dead-letters list"),
                facts.command("dead-letters redrive")
            );
            Check::wrong(
                name,
                format!("{}: {count} could not be processed", queue.as_str()),
                fix,
            )
        }
        Err(why) => Check::wrong(
            name,
            format!("{}: {why}", queue.as_str()),
            "give these credentials the right to read the queue",
        ),
    }
}

/// Checks for records that cannot be read, and names each by its id.
fn records(facts: &Facts) -> Vec<Check> {
    let name = "records";
    let Ok(activity) = &facts.activity else {
        return Vec::new();
    };
    let check = |record: &UnreadableRecord| {
        let fix = format!(
            "a newer release may be able to read it: {}; or remove it: {}",
            facts.command("upgrade"),
            facts.command(&format!("forget {}", record.id))
        );
        Check::wrong(
            name,
            format!("{} cannot be read: {}", record.id, record.why),
            fix,
        )
    };
    if activity.unreadable.is_empty() {
        return vec![Check::ok(name, "all records checked can be read")];
    }
    activity.unreadable.iter().map(check).collect()
}

/// Checks for runs that have waited or been starting for too long.
fn waiting(facts: &Facts) -> Vec<Check> {
    let name = "runs";
    let activity = match &facts.activity {
        Ok(activity) => activity,
        Err(why) => {
            return vec![Check::wrong(
                name,
                why,
                "give these credentials the right to read the table",
            )];
        }
    };
    let overdue: Vec<_> = activity
        .launched
        .iter()
        .filter(|run| {
            run.status == domain::execution::ExecutionStatus::Launching
                && facts.now - run.since > LAUNCH_MAX
        })
        .collect();
    let mut checks = Vec::new();
    if let Some(first) = overdue.first() {
        let detail = format!(
            "{} launched over {} minutes ago do not run yet",
            overdue.len(),
            LAUNCH_MAX.num_minutes()
        );
        let fix = format!(
            "see why: {}; or cancel it: {}",
            facts.command(&format!("status {}", first.id)),
            facts.command(&format!("cancel {}", first.id))
        );
        checks.push(Check::wrong(name, detail, fix));
    }
    for backlog in activity
        .backlogs
        .iter()
        .filter(|backlog| facts.now - backlog.since > WAIT_MAX)
    {
        let hours = (facts.now - backlog.since).num_hours();
        let detail = format!(
            "the first run in the backlog of {} has waited for {hours} h",
            backlog.key
        );
        let fix = format!(
            "{} shows why it waits; raise the quota, or cancel the run that holds it up",
            facts.command(&format!("status {}", backlog.head))
        );
        checks.push(Check::wrong(name, detail, fix));
    }
    if checks.is_empty() {
        let detail = if activity.is_idle() {
            "nothing is under way".into()
        } else {
            activity.words()
        };
        checks.push(Check::ok(name, detail));
    }
    checks
}

fn runner_image(facts: &Facts) -> Check {
    let name = "runner image";
    match &facts.runner_image {
        Ok(true) => Check::ok(name, "tasks find it"),
        Ok(false) => Check::wrong(
            name,
            "the image of the program inside tasks is gone, so no task can start",
            facts.command("upgrade"),
        ),
        Err(why) => Check::wrong(
            name,
            why,
            "give these credentials the right to look into the stack's image repository",
        ),
    }
}

fn files_bucket(facts: &Facts) -> Option<Check> {
    let name = "files bucket";
    Some(match &facts.files_bucket {
        Ok(None) => return None,
        Ok(Some(true)) => Check::ok(name, "files of runs are kept in it"),
        Ok(Some(false)) => Check::wrong(
            name,
            "the bucket for files of runs is gone, so no files are kept",
            "make an empty bucket of that name again (`aws s3 mb`); the lifecycle rules are in the template",
        ),
        Err(why) => Check::unknown(name, why),
    })
}

fn network_of_tasks(facts: &Facts) -> Vec<Check> {
    let name = "network";
    let network = match &facts.network {
        Ok(None) => return Vec::new(),
        Ok(Some(network)) => network,
        Err(why) => return vec![Check::unknown(name, why)],
    };
    let faults = network.faults();
    if faults.is_empty() {
        return vec![Check::ok(
            name,
            "tasks reach the image repository, the log and the API, as far as routes tell",
        )];
    }
    let upgrade = |parameter: &str| facts.command(&format!("upgrade --parameter {parameter}"));
    let check = |fault: &NetworkFault| match fault {
        NetworkFault::NoAddress(subnets) => Check::wrong(
            name,
            format!(
                "{}: the way out is an internet gateway, and tasks have no public address, so they cannot get their images",
                some_of(subnets)
            ),
            upgrade("AssignPublicIp=true"),
        ),
        NetworkFault::NoEndpoints(subnets, services) => Check::wrong(
            name,
            format!(
                "{}: there is no way out, and no VPC endpoint for {}, so tasks cannot start",
                some_of(subnets),
                services.join(", ")
            ),
            "make the endpoints, or a default route to a NAT gateway",
        ),
        NetworkFault::Shadowed => Check::warning(
            name,
            "a private VPC endpoint of API Gateway answers for the API's address, so runs with files or large requests fail",
            upgrade("TaskApiUrl=https://…"),
        ),
        NetworkFault::NoApi(subnets) => Check::warning(
            name,
            format!(
                "{}: tasks do not reach the API, so runs with files or large requests fail",
                some_of(subnets)
            ),
            upgrade("TaskApiUrl=https://…"),
        ),
    };
    faults.iter().map(check).collect()
}

fn secrets_kept(facts: &Facts) -> Check {
    let name = "secrets";
    let kept = match &facts.secrets {
        Ok(kept) => kept,
        Err(why) => {
            return Check::wrong(
                name,
                why,
                "give these credentials the right to list the stack's parameters",
            );
        }
    };
    let (without_value, without_record) = (kept.without_value(), kept.without_record());
    if let Some(first) = without_value.first() {
        let detail = format!(
            "set, but their values are gone: {}",
            without_value.join(", ")
        );
        return Check::wrong(name, detail, facts.command(&format!("secrets set {first}")));
    }
    if let Some(first) = without_record.first() {
        let detail = format!(
            "values that mycli did not set, so no run may use them: {}",
            without_record.join(", ")
        );
        let fix = format!(
            "{}, or {}",
            facts.command(&format!("secrets set {first}")),
            facts.command(&format!("secrets remove {first}"))
        );
        return Check::wrong(name, detail, fix);
    }
    Check::ok(name, format!("{} set", kept.records.len()))
}

/// Checks for roles and users that could forge how a run ended. Every account has administrators,
/// so they are named without a warning. Nearly every account has functions whose roles may write
/// every log, so those are a warning and not an error.
fn log_writers(facts: &Facts) -> Check {
    let name = "log writers";
    let writers = match &facts.log_writers {
        Ok(writers) => writers,
        Err(why) => return Check::unknown(name, why),
    };
    let untold = |(why, names): (&String, &Vec<String>)| {
        format!(
            "it is unknown whether {} can write into the streams of tasks: {why}",
            some_of(names)
        )
    };
    let untold: Vec<_> = writers.untold.iter().map(untold).collect();
    if !writers.others.is_empty() {
        let found = format!(
            "{} can write into the streams of tasks, and could forge the end of a run if they learn its secret",
            some_of(&writers.others)
        );
        let detail = [vec![found], untold].concat().join("; ");
        let fix = format!(
            "let each write to its own log group only (Resource …:log-group:/aws/lambda/NAME:*), or give it a permissions boundary that \
             denies logs:PutLogEvents on {}:*",
            writers.group
        );
        return Check::warning(name, detail, fix);
    }
    if !untold.is_empty() {
        return Check::unknown(name, untold.join("; "));
    }
    match writers.administrators.as_slice() {
        [] => Check::ok(
            name,
            "only the stack itself can write into the streams of tasks",
        ),
        some => {
            let some = some_of(some);
            Check::ok(
                name,
                format!(
                    "only the stack and administrators can write into the streams of tasks: {some}"
                ),
            )
        }
    }
}

/// Returns the first [`NAMED`] names, and how many more there are.
fn some_of(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn key(facts: &Facts, api: &Result<(), String>) -> Check {
    match api {
        Ok(()) => Check::ok("API", "it answers, and accepts your key"),
        Err(why) => Check::wrong("API", why, facts.command("init")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::{execution::ExecutionStatus, key::Role, secret::SecretRecord};

    use super::*;
    use crate::{
        activity::{LaunchedRun, WaitingBacklog},
        network::WayOut,
    };

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn well() -> Facts {
        let stack = StackView {
            id: "id".into(),
            status: "UPDATE_COMPLETE".into(),
            reason: None,
            parameters: texts(&[("SpotVcpus", "6"), ("OnDemandVcpus", "6")]),
            outputs: texts(&[("Version", "1.2.3")]),
            tags: BTreeMap::new(),
            is_adopted: false,
        };
        let record = SecretRecord {
            name: "TOKEN".into(),
            role: Role::Submit,
            set_at: None,
            hosts: Vec::new(),
        };
        Facts {
            account: Ok("123456789012 (user/alice) in eu-west-1".into()),
            clock_ahead: Some(TimeDelta::seconds(-2)),
            stack: Ok(Some(stack)),
            quotas: Pool::ALL.map(|pool| (pool, KnownQuota::Vcpus(6))).to_vec(),
            dead_letters: DeadQueue::ALL.map(|queue| (queue, Ok(0))).to_vec(),
            activity: Ok(Activity::default()),
            secrets: Ok(KeptSecret {
                records: vec![record],
                values: vec!["TOKEN".into()],
                unreadable: Vec::new(),
            }),
            runner_image: Ok(true),
            files_bucket: Ok(Some(true)),
            network: Ok(None),
            log_writers: Ok(Writers {
                administrators: vec!["role/Admin".into()],
                ..Writers::default()
            }),
            api: Some(Ok(())),
            ..Facts::without_account(&StackName::default(), "1.2.3", String::new())
        }
    }

    fn with_stack(change: impl FnOnce(&mut StackView)) -> Facts {
        let mut facts = well();
        if let Ok(Some(stack)) = &mut facts.stack {
            change(stack);
        }
        facts
    }

    /// Asserts that exactly one check is wrong, and that its detail and its fix contain these
    /// texts.
    #[track_caller]
    fn one_finding(facts: &Facts, name: &str, detail: &str, fix: &str) {
        let wrong: Vec<_> = judge(facts)
            .into_iter()
            .filter(|check| check.verdict == CheckVerdict::Wrong)
            .collect();
        let [found] = wrong.as_slice() else {
            panic!("{wrong:#?}")
        };
        let told = found.fix.clone().unwrap_or_default();
        assert!(
            found.name == name && found.detail.contains(detail) && told.contains(fix),
            "{found:#?}"
        );
    }

    #[test]
    fn a_stack_that_is_well_has_no_findings() {
        let checks = judge(&well());
        assert!(
            checks.iter().all(|check| check.verdict == CheckVerdict::Ok),
            "{checks:#?}"
        );
        assert_eq!(checks.len(), 16);
    }

    #[test]
    fn no_credentials() {
        let why = "the AWS session has expired: sign in again with `aws sso login`".to_owned();
        one_finding(
            &Facts::without_account(&StackName::default(), "1.2.3", why),
            "credentials",
            "aws sso login",
            "get-caller-identity",
        );
    }

    #[test]
    fn a_clock_that_is_off() {
        let facts = Facts {
            clock_ahead: Some(TimeDelta::seconds(200)),
            ..well()
        };
        one_finding(&facts, "clock", "200 s ahead", "timedatectl");
        let facts = Facts {
            clock_ahead: Some(TimeDelta::seconds(-61)),
            ..well()
        };
        one_finding(&facts, "clock", "61 s behind", "timedatectl");
    }

    #[test]
    fn a_stack_that_is_not_there_or_does_not_stand() {
        one_finding(
            &Facts {
                stack: Ok(None),
                ..well()
            },
            "stack",
            "no stack mycli-default",
            "mycli init",
        );
        one_finding(
            &with_stack(|stack| stack.status = "ROLLBACK_COMPLETE".into()),
            "stack",
            "ROLLBACK_COMPLETE",
            "mycli init",
        );
        one_finding(
            &with_stack(|stack| stack.status = "DELETE_FAILED".into()),
            "stack",
            "DELETE_FAILED",
            "mycli destroy",
        );
        one_finding(
            &with_stack(|stack| stack.status = "UPDATE_IN_PROGRESS".into()),
            "stack",
            "UPDATE_IN_PROGRESS",
            "wait",
        );
    }

    #[test]
    fn functions_of_another_version() {
        let older = with_stack(|stack| stack.outputs = texts(&[("Version", "1.2.2")]));
        one_finding(&older, "version", "version 1.2.2", "mycli upgrade");
        let newer = with_stack(|stack| stack.outputs = texts(&[("Version", "1.10.0")]));
        one_finding(&newer, "version", "version 1.10.0", "install that version");
    }

    #[test]
    fn quotas_below_or_unknown_to_the_stack() {
        let quota = |vcpus| vec![(Pool::Spot, KnownQuota::Vcpus(vcpus))];
        one_finding(
            &Facts {
                quotas: quota(4),
                ..well()
            },
            "quota",
            "account may use 4",
            "mycli upgrade --vcpus-spot 4",
        );
        one_finding(
            &Facts {
                quotas: quota(0),
                ..well()
            },
            "quota",
            "no vCPUs at all",
            "L-36FBB829",
        );
        let follows = with_stack(|stack| {
            stack.parameters = texts(&[("SpotVcpus", "6"), ("OnDemandVcpus", "")]);
        });
        assert!(
            judge(&follows)
                .iter()
                .all(|check| check.verdict == CheckVerdict::Ok)
        );
        let unknown = Facts {
            quotas: vec![(Pool::Spot, KnownQuota::Unknown("UnknownOperation".into()))],
            ..well()
        };
        assert!(
            judge(&unknown)
                .iter()
                .all(|check| check.verdict != CheckVerdict::Wrong)
        );
        assert!(
            judge(&Facts {
                quotas: quota(100),
                ..well()
            })
            .iter()
            .all(|check| check.verdict == CheckVerdict::Ok)
        );
    }

    #[test]
    fn dead_letters_lie_about() {
        let facts = Facts {
            dead_letters: vec![(DeadQueue::Launch, Ok(0)), (DeadQueue::Control, Ok(3))],
            ..well()
        };
        one_finding(
            &facts,
            "dead letters",
            "control: 3",
            "mycli dead-letters redrive",
        );
    }

    #[test]
    fn launches_that_come_to_nothing_and_lines_that_stand_still() {
        let launched = |status, minutes| LaunchedRun {
            id: "exec_1".into(),
            status,
            since: well().now - TimeDelta::minutes(minutes),
        };
        let of = |launched, backlogs| Activity {
            launched,
            backlogs,
            ..Activity::default()
        };
        let activity = |launched, backlogs| Facts {
            activity: Ok(of(launched, backlogs)),
            ..well()
        };
        let facts = activity(
            vec![
                launched(ExecutionStatus::Launching, 16),
                launched(ExecutionStatus::Running, 600),
            ],
            vec![],
        );
        one_finding(
            &facts,
            "runs",
            "1 launched over 15 minutes ago",
            "mycli cancel exec_1",
        );
        let backlog = |minutes| WaitingBacklog {
            key: "lock:prod".into(),
            head: "exec_2".into(),
            since: well().now - TimeDelta::minutes(minutes),
        };
        one_finding(
            &activity(vec![], vec![backlog(121)]),
            "runs",
            "lock:prod has waited for 2 h",
            "mycli status exec_2",
        );
        let fine = activity(
            vec![launched(ExecutionStatus::Launching, 2)],
            vec![backlog(30)],
        );
        assert!(
            judge(&fine)
                .iter()
                .all(|check| check.verdict == CheckVerdict::Ok)
        );
    }

    #[test]
    fn a_record_that_cannot_be_read_is_named_with_what_removes_it() {
        let unreadable = vec![UnreadableRecord {
            id: "exec_9".into(),
            why: "this release cannot read its `request.arch`".into(),
        }];
        let facts = Facts {
            activity: Ok(Activity {
                unreadable,
                ..Activity::default()
            }),
            ..well()
        };
        one_finding(
            &facts,
            "records",
            "exec_9 cannot be read",
            "mycli forget exec_9",
        );
    }

    #[test]
    fn an_image_of_the_runner_that_is_gone() {
        let facts = |runner_image| Facts {
            runner_image,
            ..well()
        };
        one_finding(
            &facts(Ok(false)),
            "runner image",
            "no task can start",
            "mycli upgrade",
        );
        one_finding(
            &facts(Err("denied".into())),
            "runner image",
            "denied",
            "the right to look",
        );
    }

    #[test]
    fn a_bucket_for_files_that_is_gone() {
        let facts = Facts {
            files_bucket: Ok(Some(false)),
            ..well()
        };
        one_finding(&facts, "files bucket", "no files are kept", "aws s3 mb");
    }

    #[test]
    fn a_network_that_leads_nowhere() {
        let network = |way, has_own_api_address| TaskNetwork {
            subnets: vec![("subnet-a".into(), way)],
            endpoints: Vec::new(),
            is_api_shadowed: false,
            has_public_addresses: false,
            has_own_api_address,
        };
        let facts = |way| Facts {
            network: Ok(Some(network(way, true))),
            ..well()
        };
        let public = facts(WayOut::InternetGateway);
        one_finding(&public, "network", "subnet-a", "AssignPublicIp=true");
        let closed = facts(WayOut::None);
        one_finding(
            &closed,
            "network",
            "ecr.api, ecr.dkr, logs, s3",
            "NAT gateway",
        );
        let unreached = Facts {
            network: Ok(Some(TaskNetwork {
                endpoints: ["ecr.api", "ecr.dkr", "logs", "s3"]
                    .map(str::to_owned)
                    .to_vec(),
                ..network(WayOut::None, false)
            })),
            ..well()
        };
        let told = judge(&unreached);
        let told = told.iter().find(|check| check.name == "network");
        let told = told.expect("a check of the network");
        assert_eq!(told.verdict, CheckVerdict::Warning, "{told:?}");
        assert!(told.detail.contains("do not reach the API"), "{told:?}");
    }

    #[test]
    fn secrets_that_are_kept_by_halves() {
        let secrets = |change: fn(&mut KeptSecret)| {
            let mut kept = well().secrets.unwrap();
            change(&mut kept);
            Facts {
                secrets: Ok(kept),
                ..well()
            }
        };
        one_finding(
            &secrets(|kept| kept.values.clear()),
            "secrets",
            "values are gone: TOKEN",
            "mycli secrets set TOKEN",
        );
        let facts = secrets(|kept| kept.values.push("OTHER".into()));
        one_finding(
            &facts,
            "secrets",
            "did not set, so no run may use them: OTHER",
            "mycli secrets remove OTHER",
        );
    }

    fn look_at_writers(log_writers: Result<Writers, String>) -> Check {
        let checks = judge(&Facts {
            log_writers,
            ..well()
        });
        let (ours, others): (Vec<_>, Vec<_>) = checks
            .into_iter()
            .partition(|check| check.name == "log writers");
        assert!(
            others.iter().all(|check| check.verdict == CheckVerdict::Ok),
            "{others:#?}"
        );
        ours.into_iter().next().expect("a look at those that write")
    }

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("role/{number}")).collect()
    }

    #[test]
    fn foreign_writers_of_the_logs_of_tasks_are_named_with_the_mend_and_fail_nothing() {
        let group = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/mycli/default".to_owned();
        let found = look_at_writers(Ok(Writers {
            group,
            others: names(7),
            administrators: names(2),
            ..Writers::default()
        }));
        assert_eq!(found.verdict, CheckVerdict::Warning);
        assert!(
            found
                .detail
                .starts_with("role/1, role/2, role/3, role/4, role/5 and 2 more can write"),
            "{found:#?}"
        );
        let fix = found.fix.unwrap();
        assert!(
            fix.contains("permissions boundary") && fix.contains("log-group:/aws/mycli/default:*"),
            "{fix}"
        );
        assert_eq!(
            serde_json::to_value(CheckVerdict::Warning).unwrap(),
            "warning"
        );
    }

    #[test]
    fn administrators_are_no_reason_to_warn_of_foreign_writers() {
        let of = |count| {
            look_at_writers(Ok(Writers {
                administrators: names(count),
                ..Writers::default()
            }))
        };
        assert_eq!(
            (of(9).verdict, of(0).verdict),
            (CheckVerdict::Ok, CheckVerdict::Ok)
        );
        assert!(
            of(9).detail.ends_with("role/5 and 4 more")
                && of(0).detail.starts_with("only the stack itself")
        );
    }

    #[test]
    fn foreign_writers_that_cannot_be_told_are_unknown_with_the_reason() {
        let denied = "failed to list the roles and users of the account: not authorized to perform: iam:GetAccountAuthorizationDetails";
        let found = look_at_writers(Err(denied.into()));
        assert_eq!(
            (found.verdict, found.detail.as_str(), found.fix),
            (CheckVerdict::Unknown, denied, None)
        );
        let untold = BTreeMap::from([("only 50 are checked closely".to_owned(), names(6))]);
        let some = look_at_writers(Ok(Writers {
            untold: untold.clone(),
            administrators: names(1),
            ..Writers::default()
        }));
        assert_eq!(some.verdict, CheckVerdict::Unknown);
        assert!(
            some.detail.contains("role/5 and 1 more") && some.detail.contains("only 50"),
            "{some:#?}"
        );
        let both = look_at_writers(Ok(Writers {
            untold,
            others: names(1),
            ..Writers::default()
        }));
        assert_eq!(both.verdict, CheckVerdict::Warning);
        assert!(both.detail.contains("only 50"), "{both:#?}");
    }

    #[test]
    fn an_api_that_does_not_take_the_key() {
        let facts = Facts {
            api: Some(Err("no valid API key".into())),
            ..well()
        };
        one_finding(&facts, "API", "no valid API key", "mycli init");
    }

    #[test]
    fn a_mend_is_for_the_stack_that_was_looked_at() {
        let facts = Facts {
            name: "ci".parse().unwrap(),
            stack: Ok(None),
            ..well()
        };
        one_finding(
            &facts,
            "stack",
            "no stack mycli-ci",
            "mycli --stack ci init",
        );
    }
}
