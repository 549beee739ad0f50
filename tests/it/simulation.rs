//! The whole pipeline on virtual time: the scheduler's promises, checked in an account with default
//! quotas.

use aws::system::System;
use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use chrono::TimeDelta;
use domain::{
    execution::{Execution, ExecutionStatus},
    limit::{CapacityPool, LimitKey},
    ports::{LaunchStore, ReadStore},
    request::SubmitRequest,
};
use pipeline::{auth::Auth, submit::Submit};
use serde_json::json;
use tests::{
    callers::caller,
    ecs::{Account, End, Foreign, Kind, Life, Operation, Outage, Rates, Shape, VCPU, Why},
    memory::{MemoryQueue, MemoryStore},
    simulation::{self, LaunchPlan, Outcome, Submission, rivals, start},
};

fn account(vcpus: u32) -> Account {
    simulation::account(7, vcpus)
}

/// Asserts that nothing is lost or doubled, that there is no dead letter, and that each run takes
/// at most three receives of messages (DESIGN §5), besides an occasional probe and sweep.
#[track_caller]
fn nothing_is_lost_or_doubled(outcome: &Outcome, count: usize) {
    assert_eq!(outcome.lost(count), 0, "{:?}", outcome.ends);
    assert!(
        outcome.counts.doubled.is_empty(),
        "{:?}",
        outcome.counts.doubled
    );
    assert_eq!(outcome.dead_letters, 0);
    let now_and_then = outcome.makespan.num_seconds() / 10 + 10;
    let most = 3 * u64::try_from(count).unwrap() + u64::try_from(now_and_then).unwrap();
    assert!(outcome.receives <= most, "{} receives", outcome.receives);
}

fn seconds(span: TimeDelta) -> f64 {
    span.as_seconds_f64()
}

#[test]
fn six_hundred_runs_take_hardly_longer_than_for_a_launcher_that_knows_everything() {
    let plan = LaunchPlan::of(account(30), 600);
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 600);
    assert_eq!(
        outcome.counts.refused_by_quotas(),
        0,
        "{:?}",
        outcome.counts.refusals
    );
    let ratio = seconds(outcome.makespan) / seconds(rivals::ideal(&plan));
    assert!(ratio <= 1.03, "{ratio}");
    let slowest = outcome.reuse(120).into_iter().max().unwrap();
    assert!(
        slowest <= TimeDelta::seconds(1),
        "a slot of our own was idle for {slowest}"
    );
}

/// 400 slots of some seconds each: fifty are freed each second.
fn fast() -> LaunchPlan {
    let mut plan = LaunchPlan::of(account(100), 2_000);
    let rate = Shape {
        burst: 100,
        per_second: 100,
    };
    plan.account.rates = Rates {
        run_task: rate,
        launches: rate,
        run_and_stop: rate,
        look: rate,
        ..plan.account.rates
    };
    plan.account.lives.start_up = TimeDelta::seconds(2)..=TimeDelta::seconds(4);
    plan.account.lives.work = TimeDelta::seconds(2)..=TimeDelta::seconds(6);
    plan
}

#[test]
fn where_slots_come_fast_no_wakeup_is_sent_for_each_and_each_is_used_within_a_second() {
    let outcome = simulation::run(&fast());
    nothing_is_lost_or_doubled(&outcome, 2_000);
    assert!(
        outcome.messages.0 < 400,
        "{:?} messages for 2,000 runs",
        outcome.messages
    );
    let slowest = outcome.reuse(400).into_iter().max().unwrap();
    assert!(
        slowest <= TimeDelta::seconds(1),
        "a slot was idle for {slowest}"
    );
}

#[test]
fn the_same_plan_is_the_same_run() {
    let plan = LaunchPlan::of(account(10), 100);
    let (one, other) = (simulation::run(&plan), simulation::run(&plan));
    assert_eq!(
        (one.starts, one.makespan, one.receives),
        (other.starts, other.makespan, other.receives)
    );
}

/// The clock is real, though fast, so the test asserts no times.
#[test]
fn the_real_adapters_over_the_wire_lose_and_double_nothing() {
    let outcome = simulation::run_over_the_wire(&LaunchPlan::of(account(5), 60), 60);
    nothing_is_lost_or_doubled(&outcome, 60);
    assert_eq!(
        outcome.ends[&ExecutionStatus::Succeeded],
        60,
        "{:?}",
        outcome.ends
    );
    assert_eq!(
        outcome.counts.peak[&Kind::Spot],
        5 * VCPU,
        "all room was used"
    );
}

#[test]
fn ten_of_one_submitter_start_among_the_first_of_another_s_five_hundred() {
    let submissions = [("large", 500), ("small", 10)].map(|(by, count)| Submission {
        by: by.into(),
        count,
    });
    let plan = LaunchPlan {
        submissions: submissions.into(),
        ..LaunchPlan::of(account(10), 0)
    };
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 510);
    let last_of_the_small = outcome
        .starts
        .iter()
        .rposition(|(_, by)| by == "small")
        .unwrap();
    assert!(
        last_of_the_small < 30,
        "the last of ten was the {last_of_the_small}th to start"
    );
}

#[test]
fn what_others_give_back_is_in_use_within_one_probe() {
    let mut plan = LaunchPlan::of(account(20), 80);
    let until = start() + TimeDelta::minutes(5);
    plan.account.foreign.push(Foreign {
        kind: Kind::Spot,
        from: start(),
        until,
        cpu: 20 * VCPU,
    });
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 80);
    let waited = outcome.starts[0].0 - until;
    assert!(
        waited >= TimeDelta::zero() && waited <= TimeDelta::seconds(16),
        "the first started {waited} later"
    );
    let filled = outcome.starts[79].0 - outcome.starts[0].0;
    assert!(
        filled <= TimeDelta::seconds(15),
        "all room was in use {filled} after the first"
    );
    let refused = outcome
        .counts
        .refused(Operation::RunTask, Why::Vcpus(Kind::Spot));
    assert!(
        refused <= 20 + 25,
        "a first batch and then a probe every 5 to 15 s, but {refused} refusals in five minutes"
    );
}

#[test]
fn nobody_starts_above_a_quota_that_others_share() {
    let mut plan = LaunchPlan::of(account(20), 200);
    let (from, until) = (
        start() + TimeDelta::minutes(1),
        start() + TimeDelta::minutes(4),
    );
    plan.account.foreign.push(Foreign {
        kind: Kind::Spot,
        from,
        until,
        cpu: 10 * VCPU,
    });
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 200);
    assert!(outcome.counts.peak[&Kind::Spot] <= 20 * VCPU);
    assert_eq!(
        outcome.ends[&ExecutionStatus::Succeeded],
        200,
        "a refusal is no failure: {:?}",
        outcome.ends
    );
}

fn pools(execution: &Execution) -> Vec<CapacityPool> {
    execution
        .attempts
        .iter()
        .map(|attempt| attempt.pool)
        .collect()
}

fn says(execution: &Execution, words: &str) -> bool {
    execution.events.iter().any(|event| {
        event
            .reason
            .as_ref()
            .is_some_and(|reason| reason.contains(words))
    })
}

#[test]
fn spot_without_capacity_gives_way_to_on_demand_and_says_so() {
    let mut plan = LaunchPlan {
        spot_fallback_after: Some(3),
        ..LaunchPlan::of(account(20).with_vcpus(Kind::OnDemand, 20), 12)
    };
    plan.account.outages.push(Outage {
        kind: Kind::Spot,
        from: start(),
        until: start() + TimeDelta::hours(2),
    });
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 12);
    for record in &outcome.records {
        assert_eq!(pools(record), [CapacityPool::Fargate], "{record:#?}");
        assert!(
            says(record, "on demand instead of Spot"),
            "{:#?}",
            record.events
        );
    }
    assert!(
        outcome.makespan < TimeDelta::minutes(5),
        "three probes and a run: {}",
        outcome.makespan
    );
}

#[test]
fn spot_that_was_given_up_is_tried_again_and_used_once_it_is_back() {
    let mut plan = LaunchPlan {
        spot_fallback_after: Some(1),
        ..LaunchPlan::of(account(20).with_vcpus(Kind::OnDemand, 20), 6)
    };
    // They run one after the other, so that the last ones come long after the outage.
    (plan.request.group, plan.request.max_parallel) = (Some("nightly".into()), Some(1));
    plan.account.outages.push(Outage {
        kind: Kind::Spot,
        from: start(),
        until: start() + TimeDelta::minutes(3),
    });
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 6);
    assert_eq!(
        pools(&outcome.records[0]),
        [CapacityPool::Fargate],
        "{:#?}",
        outcome.records[0]
    );
    assert_eq!(
        pools(&outcome.records[5]),
        [CapacityPool::FargateSpot],
        "{:#?}",
        outcome.records[5]
    );
}

#[test]
fn without_a_fallback_who_wants_spot_waits_for_spot() {
    let mut plan = LaunchPlan::of(account(20).with_vcpus(Kind::OnDemand, 20), 4);
    plan.account.outages.push(Outage {
        kind: Kind::Spot,
        from: start(),
        until: start() + TimeDelta::minutes(20),
    });
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 4);
    assert!(
        outcome
            .records
            .iter()
            .all(|record| pools(record) == [CapacityPool::FargateSpot])
    );
}

/// A run whose first attempt loses its Spot capacity in the middle of its work.
fn interrupted(request: SubmitRequest) -> Execution {
    let command = Some("true".into());
    let mut plan = LaunchPlan {
        request: SubmitRequest { command, ..request },
        ..LaunchPlan::of(account(20), 1)
    };
    plan.account = plan.account.with_vcpus(Kind::OnDemand, 20);
    plan.spot_fallback_after = Some(1);
    let first = plan.executions().next().unwrap().id.attempt(1).to_string();
    let life = Life::new(
        TimeDelta::seconds(30),
        TimeDelta::seconds(40),
        End::Interrupted,
    );
    plan.account.lives.given.insert(first, life);
    let mut outcome = simulation::run(&plan);
    assert_eq!(outcome.records.len(), 1);
    outcome.records.remove(0)
}

#[test]
fn a_spot_interruption_in_the_middle_of_a_run_ends_it_with_that_reason() {
    let record = interrupted(SubmitRequest::default());
    assert_eq!(
        (record.status(), record.attempts.len()),
        (ExecutionStatus::Failed, 1),
        "{record:#?}"
    );
    let reason = record.end().unwrap().outcome.reason().unwrap();
    assert!(reason.contains("Spot interruption"), "{reason}");
}

#[test]
fn a_spot_interruption_is_tried_again_on_demand_if_the_user_asked() {
    let record = interrupted(SubmitRequest {
        retry_on: vec!["spot".into()],
        ..SubmitRequest::default()
    });
    assert_eq!(record.status(), ExecutionStatus::Succeeded, "{record:#?}");
    assert_eq!(
        pools(&record),
        [CapacityPool::FargateSpot, CapacityPool::Fargate]
    );
    let first = record.attempts[0].closed.as_ref().unwrap();
    assert!(
        first
            .outcome
            .reason()
            .unwrap()
            .contains("Spot interruption"),
        "{first:?}"
    );
    assert!(
        says(&record, "on demand instead of Spot"),
        "{:#?}",
        record.events
    );
}

#[test]
fn one_lock_is_held_by_one_at_a_time_and_first_come_first_served_though_all_stop_events_are_lost() {
    let mut plan = LaunchPlan::of(account(20), 5);
    plan.request.lock = Some("deploy".into());
    plan.account.delivery.dropped = 1.0;
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 5);
    let spans: Vec<_> = outcome
        .records
        .iter()
        .map(|r| (r.attempts[0].launched_at, r.end().unwrap().at))
        .collect();
    assert!(
        spans.windows(2).all(|pair| pair[1].0 >= pair[0].1),
        "{spans:#?}"
    );
}

#[test]
fn of_a_group_no_more_run_than_it_says_and_it_is_always_used() {
    let mut plan = LaunchPlan::of(account(20), 40);
    plan.request.group = Some("nightly".into());
    plan.request.max_parallel = Some(8);
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 40);
    let peak = outcome.counts.peak[&Kind::Spot];
    assert_eq!(peak, 8 * VCPU / 4);
    assert!(
        outcome.makespan < TimeDelta::minutes(11),
        "five rounds of at most 150 s: {}",
        outcome.makespan
    );
}

#[test]
fn a_group_that_waits_for_a_full_pool_is_fair_within_itself() {
    // Two vCPUs are eight slots, so the pool holds the runs back, and they wait in the group's
    // backlog.
    let submissions = [("large", 60), ("small", 8)].map(|(by, count)| Submission {
        by: by.into(),
        count,
    });
    let mut plan = LaunchPlan {
        submissions: submissions.into(),
        ..LaunchPlan::of(account(2), 0)
    };
    plan.request.group = Some("nightly".into());
    plan.request.max_parallel = Some(50);
    let outcome = simulation::run(&plan);
    nothing_is_lost_or_doubled(&outcome, 68);
    let last = outcome
        .starts
        .iter()
        .rposition(|(_, by)| by == "small")
        .unwrap();
    assert!(
        last < 30,
        "the last of eight was the {last}th of 68 to start"
    );
    let slowest = outcome.reuse(8).into_iter().max().unwrap();
    assert!(
        slowest <= TimeDelta::seconds(2),
        "a slot was idle for {slowest}"
    );
}

/// The submit function in front of an account with one Spot vCPU, as the sweep recorded it.
async fn answered_with_one_vcpu(body: serde_json::Value) -> (i64, String) {
    let (store, system) = (MemoryStore::default(), System);
    let line = LimitKey::Pool(CapacityPool::FargateSpot);
    let unknown = store.limit_state(&line).await.unwrap();
    assert!(
        store
            .set_limit_state(
                &line,
                &unknown,
                unknown.with_pool(unknown.pool.with_quota(Some(VCPU), start()))
            )
            .await
            .unwrap()
    );
    let (queue, auth, settings) = (
        MemoryQueue::new(System),
        Auth::default(),
        simulation::settings(&account(1)),
    );
    let submit = Submit {
        store: &store,
        keys: &store,
        queue: &queue,
        secrets: &store,
        system: &system,
        auth: &auth,
        settings: &settings,
    };
    let mut request = ApiGatewayProxyRequest::default();
    request.http_method = axum::http::Method::POST;
    request.path = Some("/execute".into());
    request.body = Some(body.to_string());
    let caller = caller("alice");
    let answer = submit.answer(&caller, &request).await;
    (
        answer.status_code,
        String::from_utf8(answer.body.unwrap().to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn what_the_account_could_never_run_is_refused_when_it_is_submitted() {
    let asks = |cpu: u32| json!({"action": "exec", "command": "true", "cpu": cpu});
    let (status, text) = answered_with_one_vcpu(asks(2048)).await;
    assert_eq!(status, 422, "{text}");
    assert!(
        text.contains("\"cpu\"") && text.contains("needs 2 vCPU at once, and the limit here is 1"),
        "{text}"
    );
    assert_eq!(answered_with_one_vcpu(asks(1024)).await.0, 202);
}
