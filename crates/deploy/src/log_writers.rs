//! Finds roles and users, other than the stack's own, that may write into the log streams of its
//! tasks. A marker line there that has the attempt's secret decides how a run ended. So a stranger
//! who learns that secret could forge an end.
//!
//! IAM lists all principals with all their policies in a few pages
//! (`GetAccountAuthorizationDetails`), but simulates only one principal per call. So this module
//! first searches the listing itself, and is generous: a statement that may allow the write is
//! enough. Then IAM says for each remaining principal whether the write is allowed, with denials,
//! boundaries and conditions.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::{
    Client,
    error::ProvideErrorMetadata,
    operation::simulate_principal_policy::SimulatePrincipalPolicyOutput,
    types::{
        AttachedPolicy, ContextEntry, ContextKeyTypeEnum, GroupDetail, ManagedPolicyDetail,
        PolicyDetail, PolicyEvaluationDecisionType, ResourceSpecificResult, RoleDetail, UserDetail,
    },
};
use pipeline::http::decoded;
use serde_json::Value;

use crate::{
    Account, CallError, StackName,
    bucket::partition,
    gateway_log,
    stack::{StackView, Stacks},
};

/// How many principals IAM is asked about. IAM states no rate for the simulation, an answer takes
/// some tenths of a second, and the first findings are enough to act on.
const ASKED_MAX: usize = 50;
/// The most items of one page (IAM API reference, `GetAccountAuthorizationDetails`).
const PAGE: i32 = 1000;
/// IAM's name of the action that writes. The lower-case form is for comparison, because names of
/// actions do not depend on case.
const WRITE: &str = "logs:PutLogEvents";
const WRITE_LOWER: &str = "logs:putlogevents";
/// The template's resource for the role that writes the logs of tasks.
const WRITER: &str = "ExecutionRole";
/// The path of service-linked roles. Only AWS changes and uses them.
const SERVICE_LINKED: &str = "/aws-service-role/";

/// The IAM principals, other than the stack's own roles, that may write into the log streams of a
/// stack's tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// The log group's ARN.
    pub group: String,
    /// The principals that IAM lets write and that are no administrators, as `role/name`.
    pub others: Vec<String>,
    /// The principals that may do everything.
    pub administrators: Vec<String>,
    /// The principals for which the answer is not known, by the reason.
    pub untold: BTreeMap<String, Vec<String>>,
}

/// Finds the principals.
///
/// # Errors
/// When CloudFormation, API Gateway or IAM does not answer, or these credentials may not look.
pub(crate) async fn find(
    account: &Account,
    name: &StackName,
    stack: &StackView,
) -> Result<Writers, CallError> {
    let own = own_roles(account, name).await?;
    let group = format!(
        "arn:{}:logs:{}:{}:log-group:{}",
        partition(&account.region),
        account.region,
        account.id,
        stack.output("LogGroup")?
    );
    // The log driver names streams by prefix, container and task.
    let stream = format!("{group}:log-stream:task/main/0123456789abcdef0123456789abcdef");
    let client = Client::new(&account.config);
    let suspects = list(&client).await?.suspects(&own, &stream);
    let writers = Writers {
        group,
        administrators: suspects.administrators,
        ..Writers::default()
    };
    let simulation = Simulation {
        client,
        stream,
        region: account.region.clone(),
    };
    Ok(simulation.tell(writers, suspects.others).await)
}

/// Returns the names of the roles that are meant to write there. One is the role with which ECS
/// writes. The other is the role with which API Gateway writes its own logs: AWS made its policy,
/// which names no log groups.
async fn own_roles(account: &Account, name: &StackName) -> Result<BTreeSet<String>, CallError> {
    let mut own = gateway_log::ours(account, name, true).await?;
    own.extend(Stacks::new(account, name).resources().await?.remove(WRITER));
    Ok(own)
}

async fn list(client: &Client) -> Result<Listing, CallError> {
    let mut pages = client
        .get_account_authorization_details()
        .max_items(PAGE)
        .into_paginator()
        .send();
    let mut listing = Listing::default();
    while let Some(page) = pages.next().await {
        let page = page.map_err(CallError::of("list the roles and users of the account"))?;
        listing
            .principals
            .extend(page.role_detail_list().iter().map(IamPrincipal::from));
        listing
            .principals
            .extend(page.user_detail_list().iter().map(IamPrincipal::from));
        listing
            .groups
            .extend(page.group_detail_list().iter().map(group));
        listing
            .managed
            .extend(page.policies().iter().filter_map(managed));
    }
    Ok(listing)
}

/// The policies of a principal or a group.
#[derive(Clone, Debug, Default)]
struct Policies {
    /// The inline policies' documents, percent-encoded as IAM gives them.
    inline: Vec<String>,
    /// The ARNs of the attached managed policies.
    attached: Vec<String>,
}

impl Policies {
    fn new(inline: &[PolicyDetail], attached: &[AttachedPolicy]) -> Self {
        let documents = inline.iter().filter_map(PolicyDetail::policy_document);
        let arns = attached.iter().filter_map(AttachedPolicy::policy_arn);
        Self {
            inline: documents.map(str::to_owned).collect(),
            attached: arns.map(str::to_owned).collect(),
        }
    }
}

/// A role or a user.
#[derive(Clone, Debug, Default)]
struct IamPrincipal {
    arn: String,
    name: String,
    path: String,
    policies: Policies,
    /// The groups of a user; empty for a role.
    groups: Vec<String>,
    /// Whether a permissions boundary is set.
    is_bounded: bool,
}

impl From<&RoleDetail> for IamPrincipal {
    fn from(role: &RoleDetail) -> Self {
        Self {
            arn: role.arn().unwrap_or_default().to_owned(),
            name: role.role_name().unwrap_or_default().to_owned(),
            path: role.path().unwrap_or_default().to_owned(),
            policies: Policies::new(role.role_policy_list(), role.attached_managed_policies()),
            groups: Vec::new(),
            is_bounded: role.permissions_boundary().is_some(),
        }
    }
}

impl From<&UserDetail> for IamPrincipal {
    fn from(user: &UserDetail) -> Self {
        Self {
            arn: user.arn().unwrap_or_default().to_owned(),
            name: user.user_name().unwrap_or_default().to_owned(),
            path: user.path().unwrap_or_default().to_owned(),
            policies: Policies::new(user.user_policy_list(), user.attached_managed_policies()),
            groups: user.group_list().to_vec(),
            is_bounded: user.permissions_boundary().is_some(),
        }
    }
}

impl IamPrincipal {
    fn is_role(&self) -> bool {
        words(&self.arn).starts_with("role/")
    }
}

fn group(group: &GroupDetail) -> (String, Policies) {
    let policies = Policies::new(group.group_policy_list(), group.attached_managed_policies());
    (group.group_name().unwrap_or_default().to_owned(), policies)
}

/// Returns a managed policy's ARN and the document of its default version.
fn managed(policy: &ManagedPolicyDetail) -> Option<(String, String)> {
    let counts = policy
        .policy_version_list()
        .iter()
        .find(|version| version.is_default_version())?;
    Some((policy.arn()?.to_owned(), counts.document()?.to_owned()))
}

/// An account's principals and policies, as IAM lists them.
#[derive(Clone, Debug, Default)]
struct Listing {
    principals: Vec<IamPrincipal>,
    groups: BTreeMap<String, Policies>,
    managed: BTreeMap<String, String>,
}

/// The principals that a policy may let write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Suspects {
    /// The administrators, as `role/name`. IAM is not asked about them, because a denial would not
    /// stop those who can change it.
    administrators: Vec<String>,
    /// All others, the most likely first.
    others: Vec<Suspect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Suspect {
    arn: String,
    /// Whether every statement that may let it write has a condition or is in a policy that cannot
    /// be read here.
    depends: bool,
}

impl Listing {
    fn suspects(&self, own: &BTreeSet<String>, stream: &str) -> Suspects {
        let mut suspects = Suspects::default();
        for principal in &self.principals {
            let is_own = principal.is_role() && own.contains(&principal.name);
            if is_own || principal.path.starts_with(SERVICE_LINKED) {
                continue;
            }
            let suspect = |depends| Suspect {
                arn: principal.arn.clone(),
                depends,
            };
            match self.reach(principal, stream) {
                Reach::Nothing => {}
                Reach::Everything if !principal.is_bounded => {
                    suspects
                        .administrators
                        .push(words(&principal.arn).to_owned());
                }
                Reach::Stream | Reach::Everything => suspects.others.push(suspect(false)),
                Reach::Perhaps => suspects.others.push(suspect(true)),
            }
        }
        suspects.administrators.sort_unstable();
        suspects.others.sort_unstable_by(|one, other| {
            (one.depends, &one.arn).cmp(&(other.depends, &other.arn))
        });
        suspects
    }

    /// Returns how far the policies of a principal and of its groups reach.
    fn reach(&self, principal: &IamPrincipal, stream: &str) -> Reach {
        let groups = principal
            .groups
            .iter()
            .filter_map(|group| self.groups.get(group));
        let policies = groups.chain([&principal.policies]);
        let reaches = policies.flat_map(|policies| {
            let inline = policies
                .inline
                .iter()
                .map(|document| reach(document, stream));
            // IAM lists every policy that is attached to a principal. If one is missing all the
            // same, the simulation decides.
            let attached = policies
                .attached
                .iter()
                .map(|arn| match self.managed.get(arn) {
                    Some(document) => reach(document, stream),
                    None => Reach::Perhaps,
                });
            inline.chain(attached)
        });
        reaches.max().unwrap_or(Reach::Nothing)
    }
}

/// The effect of a statement, before denials and boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// It does not permit writing into the streams of tasks.
    Nothing,
    /// It permits that under a condition, or the policy cannot be read here.
    Perhaps,
    /// It permits that.
    Stream,
    /// It permits every action on every resource.
    Everything,
}

/// Returns how far a policy document reaches. The document is percent-encoded, as IAM gives it.
fn reach(document: &str, stream: &str) -> Reach {
    let Ok(policy) = serde_json::from_str::<Value>(&decoded(document)) else {
        return Reach::Perhaps;
    };
    one_or_more(&policy["Statement"])
        .iter()
        .map(|one| statement(one, stream))
        .max()
        .unwrap_or(Reach::Nothing)
}

fn statement(statement: &Value, stream: &str) -> Reach {
    let allows = statement["Effect"] == "Allow";
    let writes = covers(statement, "Action", |pattern| {
        like(&pattern.to_lowercase(), WRITE_LOWER)
    });
    let there = covers(statement, "Resource", |pattern| like(pattern, stream));
    let any =
        |element: &str, all: &[&str]| texts(&statement[element]).any(|text| all.contains(&text));
    if !(allows && writes && there) {
        Reach::Nothing
    } else if !statement["Condition"].is_null() {
        Reach::Perhaps
    } else if any("Action", &["*", "*:*"]) && any("Resource", &["*"]) {
        Reach::Everything
    } else {
        Reach::Stream
    }
}

/// Whether an element, or its negation (`NotAction` for `Action`), covers what `fits` stands for. A
/// policy variable may have any value. So in the element it counts as a match, and in the negation
/// it excludes nothing.
fn covers(statement: &Value, element: &str, fits: impl Fn(&str) -> bool) -> bool {
    match &statement[element] {
        Value::Null => {
            let mut excluded = texts(&statement[format!("Not{element}")])
                .filter(|pattern| !pattern.contains("${"));
            !excluded.any(fits)
        }
        given => texts(given).any(|pattern| fits(&with_any_value(pattern))),
    }
}

/// Replaces each variable of a pattern by `*`.
fn with_any_value(pattern: &str) -> String {
    let mut parts = pattern.split("${");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |whole, part| {
        whole + "*" + part.split_once('}').map_or("", |(_, rest)| rest)
    })
}

fn one_or_more(value: &Value) -> &[Value] {
    value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    one_or_more(value).iter().filter_map(Value::as_str)
}

/// Whether a pattern matches a text: `*` stands for any text, `?` for any character. In IAM a
/// wildcard does not reach beyond its part of an ARN. Here it does, which is good enough for a
/// first look.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // The position of the last `*`, and the end of the text that it has matched so far.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((place, end)) = star else {
                    return false;
                };
                star = Some((place, end + 1));
                at = place + 1;
                seen = end + 1;
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

/// Returns `role/path/name` of a principal's ARN.
fn words(arn: &str) -> &str {
    arn.rsplit_once(':').map_or(arn, |(_, resource)| resource)
}

/// IAM's answer for one principal.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AccessAnswer {
    /// The principal may write.
    May,
    /// The principal may not write.
    MayNot,
    /// The answer depends on the values of these condition keys at the time of the call.
    Depends(Vec<String>),
}

/// IAM's policy simulator.
struct Simulation {
    client: Client,
    stream: String,
    region: String,
}

impl Simulation {
    /// Asks IAM about each suspect, up to [`ASKED_MAX`] of them and until a call fails. The rest
    /// are reported as unknown.
    async fn tell(&self, mut writers: Writers, suspects: Vec<Suspect>) -> Writers {
        let mut refusal = None;
        for (asked, suspect) in suspects.into_iter().enumerate() {
            let name = words(&suspect.arn).to_owned();
            if asked == ASKED_MAX {
                refusal.get_or_insert_with(|| format!("only {ASKED_MAX} are checked closely"));
            }
            let answer = match refusal.clone() {
                Some(why) => Err(why),
                None => self.ask(&suspect).await.map_err(|error| error.to_string()),
            };
            match answer {
                Ok(AccessAnswer::May) => writers.others.push(name),
                Ok(AccessAnswer::MayNot) => {}
                Ok(AccessAnswer::Depends(keys)) => {
                    writers
                        .untold
                        .entry(format!("that depends on {}", keys.join(", ")))
                        .or_default()
                        .push(name);
                }
                Err(why) => {
                    writers
                        .untold
                        .entry(refusal.insert(why).clone())
                        .or_default()
                        .push(name);
                }
            }
        }
        writers
    }

    async fn ask(&self, suspect: &Suspect) -> Result<AccessAnswer, CallError> {
        let doing = || format!("simulate what {} may do", words(&suspect.arn));
        let region = ContextEntry::builder()
            .context_key_name("aws:RequestedRegion")
            .context_key_values(&self.region)
            .context_key_type(ContextKeyTypeEnum::String)
            .build();
        let call = self
            .client
            .simulate_principal_policy()
            .policy_source_arn(&suspect.arn)
            .action_names(WRITE);
        match call
            .resource_arns(&self.stream)
            .context_entries(region)
            .send()
            .await
        {
            Ok(said) => Ok(answer(&said, suspect.depends)),
            // The principal was removed after it was listed.
            Err(error) if error.code() == Some("NoSuchEntity") => Ok(AccessAnswer::MayNot),
            Err(error) => Err(CallError::of(doing())(error)),
        }
    }
}

/// Reads the simulator's answer. A condition does not hold in the simulation if its key was not
/// given. So a refusal does not clear a principal that may write only under a condition.
fn answer(said: &SimulatePrincipalPolicyOutput, depends: bool) -> AccessAnswer {
    let Some(result) = said.evaluation_results().first() else {
        return AccessAnswer::MayNot;
    };
    let of_resources = result
        .resource_specific_results()
        .iter()
        .flat_map(ResourceSpecificResult::missing_context_values);
    let missing: BTreeSet<_> = result
        .missing_context_values()
        .iter()
        .chain(of_resources)
        .cloned()
        .collect();
    match result.eval_decision() {
        PolicyEvaluationDecisionType::Allowed => AccessAnswer::May,
        PolicyEvaluationDecisionType::ImplicitDeny if depends && !missing.is_empty() => {
            AccessAnswer::Depends(missing.into_iter().collect())
        }
        _ => AccessAnswer::MayNot,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_iam::types::EvaluationResult;
    use serde_json::json;

    use super::*;

    const STREAM: &str =
        "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/mycli/default:log-stream:task/main/01";

    /// Encodes a document as IAM does.
    fn encoded(document: &Value) -> String {
        document
            .to_string()
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect()
    }

    fn of(statement: &Value) -> Reach {
        reach(
            &encoded(&json!({"Version": "2012-10-17", "Statement": statement})),
            STREAM,
        )
    }

    fn allow(action: impl Into<Value>, resource: impl Into<Value>) -> Value {
        let (action, resource): (Value, Value) = (action.into(), resource.into());
        json!({"Effect": "Allow", "Action": action, "Resource": resource})
    }

    #[test]
    fn a_statement_reaches_as_far_as_its_wildcards() {
        let to = |resource: &str| {
            of(&allow(
                json!(["s3:*", "logs:PutLogEvents"]),
                json!(resource),
            ))
        };
        for resource in [
            "*",
            "arn:aws:logs:*:*:*",
            "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/mycli/*",
            "arn:aws:logs:eu-west-1:123456789012:log-group:*:log-stream:*",
            "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/mycli/${aws:PrincipalTag/stack}:*",
            "arn:aws:logs:eu-west-?:123456789012:log-group:/aws/mycli/default:log-stream:task/main/*",
        ] {
            assert_eq!(to(resource), Reach::Stream, "{resource}");
        }
        for resource in [
            "arn:aws:logs:*:*:log-group:/aws/lambda/*",
            "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/mycli/default:log-stream:command/*",
            // The log group itself is not one of its streams.
            "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/mycli/default",
            "arn:aws:logs:us-east-1:123456789012:*",
        ] {
            assert_eq!(to(resource), Reach::Nothing, "{resource}");
        }
        for (action, reached) in [
            ("*", Reach::Everything),
            ("*:*", Reach::Everything),
            ("LOGS:put*", Reach::Stream),
            ("logs:CreateLogStream", Reach::Nothing),
            ("logs:Put?Events", Reach::Nothing),
        ] {
            assert_eq!(of(&allow(json!(action), json!("*"))), reached, "{action}");
        }
    }

    #[test]
    fn what_is_excluded_and_what_has_a_condition_is_told_apart() {
        let but = |element: &str, excluded: Value| {
            let mut statement = allow(json!("logs:*"), json!("*"));
            let fields = statement.as_object_mut().unwrap();
            fields.remove(element);
            fields.insert(format!("Not{element}"), excluded);
            of(&json!([statement]))
        };
        assert_eq!(
            but("Action", json!(["iam:*", "organizations:*"])),
            Reach::Stream
        );
        assert_eq!(but("Action", json!("logs:*")), Reach::Nothing);
        assert_eq!(
            but("Resource", json!("arn:aws:logs:*:*:log-group:/aws/mycli/*")),
            Reach::Nothing
        );
        assert_eq!(
            but(
                "Resource",
                json!("arn:aws:logs:*:*:log-group:/aws/mycli/${aws:username}:*")
            ),
            Reach::Stream
        );
        let mut conditional = allow(json!("*"), json!("*"));
        conditional["Condition"] = json!({"Bool": {"aws:MultiFactorAuthPresent": "true"}});
        assert_eq!(of(&conditional), Reach::Perhaps);
        assert_eq!(
            of(&json!({"Effect": "Deny", "Action": "*", "Resource": "*"})),
            Reach::Nothing
        );
        assert_eq!(reach("not a document", STREAM), Reach::Perhaps);
    }

    fn principal(words: &str, inline: &[Value], attached: &[&str]) -> IamPrincipal {
        let (kind, name) = words.rsplit_once('/').unwrap();
        let document = |statement: &Value| encoded(&json!({"Statement": statement}));
        IamPrincipal {
            arn: format!("arn:aws:iam::123456789012:{words}"),
            name: name.to_owned(),
            path: kind
                .split_once('/')
                .map_or("/".into(), |(_, path)| format!("/{path}/")),
            policies: Policies {
                inline: inline.iter().map(document).collect(),
                attached: attached.iter().map(|arn| (*arn).to_owned()).collect(),
            },
            ..IamPrincipal::default()
        }
    }

    #[test]
    fn everybody_who_may_write_is_a_suspect_but_the_stack_and_what_aws_alone_changes() {
        let (all, logs) = (
            allow(json!("*"), json!("*")),
            allow(json!("logs:*"), json!("arn:aws:logs:*:*:*")),
        );
        let mut in_group = principal("user/alice", &[], &[]);
        in_group.groups = vec!["developers".into()];
        let mut bounded = principal("role/bounded", std::slice::from_ref(&all), &[]);
        bounded.is_bounded = true;
        let listing = Listing {
            principals: vec![
                principal("role/unknown", &[], &["arn:aws:iam::aws:policy/Unlisted"]),
                principal(
                    "role/service-role/thumbnails",
                    &[],
                    &["arn:aws:iam::123456789012:policy/logs"],
                ),
                principal(
                    "role/mycli-default-ExecutionRole-1",
                    std::slice::from_ref(&logs),
                    &[],
                ),
                principal(
                    "user/mycli-default-ExecutionRole-1",
                    std::slice::from_ref(&logs),
                    &[],
                ),
                principal(
                    "role/aws-service-role/ops.amazonaws.com/Ops",
                    std::slice::from_ref(&logs),
                    &[],
                ),
                principal("role/reader", &[allow(json!("logs:Get*"), json!("*"))], &[]),
                principal("role/Admin", std::slice::from_ref(&all), &[]),
                in_group,
                bounded,
            ],
            groups: [(
                "developers".to_owned(),
                principal("group/x", std::slice::from_ref(&logs), &[]).policies,
            )]
            .into(),
            managed: [(
                "arn:aws:iam::123456789012:policy/logs".to_owned(),
                encoded(&json!({"Statement": [logs.clone()]})),
            )]
            .into(),
        };
        let found = listing.suspects(
            &BTreeSet::from(["mycli-default-ExecutionRole-1".to_owned()]),
            STREAM,
        );
        let others: Vec<_> = found
            .others
            .iter()
            .map(|one| (words(&one.arn), one.depends))
            .collect();
        assert_eq!(found.administrators, ["role/Admin"]);
        assert_eq!(
            others,
            [
                ("role/bounded", false),
                ("role/service-role/thumbnails", false),
                ("user/alice", false),
                ("user/mycli-default-ExecutionRole-1", false),
                ("role/unknown", true),
            ]
        );
    }

    #[test]
    fn a_condition_that_the_simulation_knows_nothing_of_clears_nobody() {
        let said = |decision: PolicyEvaluationDecisionType, missing: &[&str]| {
            let keys = missing.iter().map(|key| (*key).to_owned()).collect();
            let of_resource = ResourceSpecificResult::builder()
                .eval_resource_name(STREAM)
                .eval_resource_decision(decision.clone())
                .set_missing_context_values(Some(keys))
                .build();
            let result = EvaluationResult::builder()
                .eval_action_name(WRITE)
                .eval_decision(decision)
                .resource_specific_results(of_resource.unwrap())
                .build();
            SimulatePrincipalPolicyOutput::builder()
                .evaluation_results(result.unwrap())
                .build()
        };
        let implicit = PolicyEvaluationDecisionType::ImplicitDeny;
        assert_eq!(
            answer(&said(PolicyEvaluationDecisionType::Allowed, &["a"]), true),
            AccessAnswer::May
        );
        assert_eq!(
            answer(&said(implicit.clone(), &["aws:SourceIp"]), true),
            AccessAnswer::Depends(vec!["aws:SourceIp".into()])
        );
        // Without a condition in its policy, something else holds the permission back: a boundary,
        // or the organization.
        assert_eq!(
            answer(&said(implicit.clone(), &["aws:SourceIp"]), false),
            AccessAnswer::MayNot
        );
        assert_eq!(answer(&said(implicit, &[]), true), AccessAnswer::MayNot);
        assert_eq!(
            answer(
                &said(PolicyEvaluationDecisionType::ExplicitDeny, &["a"]),
                true
            ),
            AccessAnswer::MayNot
        );
    }

    #[test]
    fn wildcards_stand_for_any_text() {
        for (pattern, text) in [
            ("*", ""),
            ("a*c", "abbc"),
            ("a?c*", "abcdé"),
            ("*b*d", "abcbd"),
            ("", ""),
        ] {
            assert!(like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a?c", "ac"), ("a*c", "abd"), ("", "a"), ("a*b*c", "acb")] {
            assert!(!like(pattern, text), "{pattern} {text}");
        }
    }
}
