//! The rules of `domain::ports::{ReadStore, LaunchStore, WriteStore, SweepStore}`.

use std::collections::BTreeSet;

use chrono::{SubsecRound, TimeDelta, Utc};
use domain::{
    Timestamp,
    cause::Cause,
    container::MAIN,
    ecs::{Container, Task},
    execution::{BacklogEntry, Execution, ExecutionStatus},
    group::{Closed, GroupCancel, GroupRerun, GroupWork, Progress, rerun},
    history::{Cursor, Filter},
    id::ExecutionId,
    limit::{BacklogSize, CapacityPool, LimitKey, RateKey},
    marker::Marker,
    ports::{Created, Update, UpdateError},
    principal::Principal,
    quota::Rate,
    request::{Changes, FieldError, Name},
    scheduler::adaptive_limit::{AdaptiveLimit, Shortage},
    scheduler::state::{BacklogState, Held, HeldBy, LimitState, PoolState},
    transition::{CancelDecision, Observation},
};
use tests::Store;
use tests::{
    callers::caller,
    loaded::{self, all},
};
use tokio::task::JoinSet;

use super::records::{
    CPU, POOL, Wish, admissions, at, claim, close, launch, launching, lock, names, stopped,
    task_arn, task_id,
};

/// Makes a test of each rule, for the store that `$fresh` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { store, $fresh:
            a_record_is_read_as_it_was_written
            creating_twice_records_once
            a_claim_names_the_execution_that_took_it
            a_claim_on_another_request_is_a_mismatch
            an_expired_claim_is_free
            of_many_with_one_claim_one_is_recorded
            many_are_recorded_at_once_and_each_by_itself
            a_submission_keeps_its_first_moment_until_it_is_over
            who_opens_a_submission_at_the_same_time_gets_the_same_moment
            an_update_is_read_back_with_a_new_revision
            an_update_of_an_old_revision_is_a_conflict
            of_many_updates_of_one_record_one_is_made
            everything_that_is_learned_is_read_back
            several_updates_are_each_answered_in_their_place
            of_several_updates_the_first_that_fit_are_made
            what_a_conflicting_update_took_is_free_again
            admissions_are_taken_all_or_none
            several_updates_are_each_conditional_by_themselves
            of_several_launches_the_first_that_fit_are_made
            a_group_holds_as_many_as_its_executions_say
            a_limits_state_is_replaced_only_by_who_has_read_it
            a_groups_mark_is_replaced_only_by_who_has_read_it
            a_groups_rerun_is_kept_beside_its_mark
            concurrent_launches_never_exceed_the_limit
            without_a_limit_everything_is_admitted
            usage_follows_a_launch_to_its_end
            a_slot_is_not_released_twice
            a_backlog_is_fair_between_submitters
            a_backlog_goes_by_priority_and_then_by_time
            who_was_started_waits_for_the_others
            who_comes_late_has_no_credit
            an_entry_is_not_in_the_backlog_before_its_time
            a_backlog_shows_no_more_than_asked_for
            locks_and_pools_have_backlogs_of_their_own
            each_backlog_tells_its_size_and_age
            an_entry_keeps_its_position_when_it_moves_to_another_backlog_and_back
            the_position_is_the_number_of_entries_before
            the_place_beyond_the_exact_ones_is_near
            history_is_paged_newest_first_without_repeat_or_gap
            what_comes_between_two_pages_is_not_on_the_next
            history_is_filtered_by_everything_at_once
            filtered_history_is_paged
            an_execution_is_found_by_a_part_of_its_id
            an_execution_is_found_by_its_task
            what_is_no_part_of_an_id_finds_nothing
            what_is_launched_is_paged_completely
            launches_are_bounded_by_burst_and_rate
            concurrent_takers_share_one_bucket
            registrations_have_a_bucket_of_their_own
            a_sweep_goes_on_where_the_one_before_was_cut_short
        }
    };
}
pub(crate) use suite;

/// A store that several tasks can share.
pub(crate) trait Shared: Store + Clone + 'static {}
impl<S: Store + Clone + 'static> Shared for S {}

const ANSWERS: &str = "the store answers";

async fn load(store: &impl Store, id: &ExecutionId) -> Execution {
    store
        .load(id)
        .await
        .expect(ANSWERS)
        .expect("it is recorded")
}

async fn used(store: &impl Store, key: &LimitKey) -> u32 {
    store.usage(key).await.expect(ANSWERS).used
}

async fn backlog(
    store: &impl Store,
    key: &LimitKey,
    now: Timestamp,
    limit: u32,
) -> Vec<BacklogEntry> {
    store.backlog(key, now, limit).await.expect(ANSWERS)
}

/// The submitters in the pool's backlog, in order.
async fn submitters(store: &impl Store) -> String {
    names(
        backlog(store, &POOL, at(1_000_000), 100)
            .await
            .iter()
            .map(|entry| &entry.submitter),
    )
}

/// Runs the same write many times at once and returns all results.
pub(super) async fn at_once<S: Clone, T: Send + 'static, F>(
    store: &S,
    times: u32,
    act: impl Fn(S, u32) -> F,
) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for number in 0..times {
        tasks.spawn(act(store.clone(), number));
    }
    tasks.join_all().await
}

pub(crate) async fn a_record_is_read_as_it_was_written(store: impl Store) {
    let execution = Wish {
        lock: Some("deploy"),
        group: Some("nightly"),
        priority: 7,
        ..Wish::default()
    }
    .submit(&store)
    .await;
    assert_eq!(load(&store, &execution.id).await, execution);
    let unknown = Wish {
        entropy: 2,
        ..Wish::default()
    }
    .execution();
    assert_eq!(store.load(&unknown.id).await.expect(ANSWERS), None);
}

pub(crate) async fn creating_twice_records_once(store: impl Store) {
    let execution = Wish::default().submit(&store).await;
    let launched = launch(&store, &execution).await;
    assert_eq!(
        store.create(&execution, None).await.expect(ANSWERS),
        Created::Existing(execution.id.clone())
    );
    assert_eq!(
        load(&store, &execution.id).await,
        launched,
        "the repetition changed the record"
    );
    let page = store
        .list(&Filter::default(), None, 10)
        .await
        .expect(ANSWERS);
    assert_eq!(page.items.len(), 1);
}

pub(crate) async fn a_claim_names_the_execution_that_took_it(store: impl Store) {
    let (first, second) = (
        Wish::default().execution(),
        Wish {
            entropy: 2,
            ..Wish::default()
        }
        .execution(),
    );
    let claim = claim("alice/k", "digest", 1_000);
    assert_eq!(
        store.create(&first, Some(&claim)).await.expect(ANSWERS),
        Created::New
    );
    for repetition in [&second, &first] {
        assert_eq!(
            store.create(repetition, Some(&claim)).await.expect(ANSWERS),
            Created::Existing(first.id.clone())
        );
    }
    assert_eq!(
        store.load(&second.id).await.expect(ANSWERS),
        None,
        "the second is recorded all the same"
    );
}

pub(crate) async fn a_claim_on_another_request_is_a_mismatch(store: impl Store) {
    let (first, second) = (
        Wish::default().execution(),
        Wish {
            entropy: 2,
            ..Wish::default()
        }
        .execution(),
    );
    store
        .create(&first, Some(&claim("alice/k", "one", 1_000)))
        .await
        .expect(ANSWERS);
    let other = store
        .create(&second, Some(&claim("alice/k", "other", 1_000)))
        .await
        .expect(ANSWERS);
    assert_eq!(other, Created::Mismatch(first.id));
    assert_eq!(store.load(&second.id).await.expect(ANSWERS), None);
    let another_key = store
        .create(&second, Some(&claim("bob/k", "other", 1_000)))
        .await
        .expect(ANSWERS);
    assert_eq!(another_key, Created::New);
}

pub(crate) async fn an_expired_claim_is_free(store: impl Store) {
    let first = Wish::of("alice", 0).execution();
    store
        .create(&first, Some(&claim("alice/k", "one", 1_000)))
        .await
        .expect(ANSWERS);
    let last_moment = Wish::of("alice", 999).execution();
    let held = store
        .create(&last_moment, Some(&claim("alice/k", "other", 1_999)))
        .await
        .expect(ANSWERS);
    assert_eq!(held, Created::Mismatch(first.id));
    let later = Wish::of("alice", 1_000).execution();
    assert_eq!(
        store
            .create(&later, Some(&claim("alice/k", "other", 2_000)))
            .await
            .expect(ANSWERS),
        Created::New
    );
    let after_that = Wish::of("alice", 1_500).execution();
    let taken_anew = store
        .create(&after_that, Some(&claim("alice/k", "other", 2_500)))
        .await
        .expect(ANSWERS);
    assert_eq!(taken_anew, Created::Existing(later.id));
}

pub(crate) async fn of_many_with_one_claim_one_is_recorded(store: impl Shared) {
    let results = at_once(&store, 20, |store, number| async move {
        let execution = Wish {
            entropy: number.into(),
            ..Wish::default()
        }
        .execution();
        store
            .create(&execution, Some(&claim("alice/k", "digest", 1_000)))
            .await
            .expect(ANSWERS)
    });
    let results = results.await;
    assert_eq!(
        results
            .iter()
            .filter(|created| **created == Created::New)
            .count(),
        1
    );
    let page = store
        .list(&Filter::default(), None, 50)
        .await
        .expect(ANSWERS);
    let items = all(page.items);
    let [recorded] = &items[..] else {
        panic!("{} are recorded", items.len())
    };
    let named = results
        .iter()
        .filter(|created| **created == Created::Existing(recorded.id.clone()))
        .count();
    assert_eq!(
        named, 19,
        "each of the others names the one that is recorded"
    );
}

pub(crate) async fn many_are_recorded_at_once_and_each_by_itself(store: impl Store) {
    let wish = |entropy| Wish {
        entropy,
        lock: (entropy == 7).then_some("deploy"),
        ..Wish::default()
    };
    let all: Vec<_> = (0..100).map(|entropy| wish(entropy).execution()).collect();
    let create = async |some: &[Execution]| store.create_all(some.to_vec()).await.expect(ANSWERS);
    assert_eq!(create(&[]).await, []);
    assert_eq!(create(&all[40..60]).await, vec![Created::New; 20]);
    let launched = launch(&store, &all[50]).await;
    let existing = |execution: &Execution| Created::Existing(execution.id.clone());
    let known = |place: usize| (40..60).contains(&place);
    let expected: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(place, it)| {
            if known(place) {
                existing(it)
            } else {
                Created::New
            }
        })
        .collect();
    assert_eq!(create(&all).await, expected);
    assert_eq!(
        create(&all).await,
        all.iter().map(existing).collect::<Vec<_>>()
    );
    for execution in all.iter().filter(|execution| execution.id != launched.id) {
        assert_eq!(load(&store, &execution.id).await, *execution);
    }
    assert_eq!(
        load(&store, &launched.id).await,
        launched,
        "the repetition changed the record"
    );
    let page = store
        .list(&Filter::default(), None, 200)
        .await
        .expect(ANSWERS);
    assert_eq!(
        loaded::all(page.items)
            .iter()
            .map(|it| &it.id)
            .rev()
            .collect::<Vec<_>>(),
        all.iter().map(|it| &it.id).collect::<Vec<_>>()
    );
    assert_eq!(
        backlog(&store, &POOL, at(1), 200).await.len()
            + backlog(&store, &lock("deploy"), at(1), 200).await.len(),
        99
    );
}

pub(crate) async fn a_submission_keeps_its_first_moment_until_it_is_over(store: impl Store) {
    let open = async |key: &str, now, until| {
        let (by, id) = key.split_once('/').expect("a principal and an id");
        let opened = store
            .open_submission(&caller(by).principal, id, at(now), at(until))
            .await
            .expect(ANSWERS);
        assert_eq!((opened.by, opened.id), (format!("key:{by}"), id.to_owned()));
        opened.opened_at
    };
    assert_eq!(open("alice/s", 0, 1_000).await, at(0));
    assert_eq!(
        open("alice/s", 600, 1_600).await,
        at(0),
        "who comes later does not make it last longer"
    );
    assert_eq!(open("alice/s", 999, 1_999).await, at(0));
    assert_eq!(open("bob/s", 999, 1_999).await, at(999));
    assert_eq!(open("alice/t", 700, 1_700).await, at(700));
    assert_eq!(
        open("alice/s", 1_000, 2_000).await,
        at(1_000),
        "it is over, so this is a new one"
    );
    assert_eq!(open("alice/s", 1_999, 2_999).await, at(1_000));
}

pub(crate) async fn who_opens_a_submission_at_the_same_time_gets_the_same_moment(
    store: impl Shared,
) {
    let moments = at_once(&store, 20, |store, number| async move {
        let now = at(number.into());
        store
            .open_submission(&Principal::Local, "s", now, now + TimeDelta::days(1))
            .await
            .expect(ANSWERS)
            .opened_at
    });
    let moments: BTreeSet<_> = moments.await.into_iter().collect();
    assert_eq!(moments.len(), 1, "{moments:?}");
}

pub(crate) async fn an_update_is_read_back_with_a_new_revision(store: impl Store) {
    let execution = Wish::default().submit(&store).await;
    let parked = execution
        .parked(POOL, "full".into(), at(5))
        .expect("it has a ticket");
    let written = store
        .update(&execution, parked.clone(), &[])
        .await
        .expect("nobody else writes it");
    assert!(written.revision > execution.revision);
    assert_eq!(load(&store, &execution.id).await, written);
    assert_eq!(
        Execution {
            revision: 0,
            ..written
        },
        Execution {
            revision: 0,
            ..parked
        }
    );
}

pub(crate) async fn an_update_of_an_old_revision_is_a_conflict(store: impl Store) {
    let execution = Wish::default().submit(&store).await;
    let launched = launch(&store, &execution).await;
    let late = launching(&execution, at(9));
    let result = store
        .update(&execution, late, &admissions(&execution, None))
        .await;
    assert!(matches!(result, Err(UpdateError::Conflict)), "{result:?}");
    assert_eq!(load(&store, &execution.id).await, launched);
    assert_eq!(used(&store, &POOL).await, CPU, "the refused update counted");
    let unknown = Wish {
        entropy: 2,
        ..Wish::default()
    }
    .execution();
    let result = store
        .update(&unknown, launching(&unknown, at(9)), &[])
        .await;
    assert!(matches!(result, Err(UpdateError::Conflict)), "{result:?}");
}

pub(crate) async fn of_many_updates_of_one_record_one_is_made(store: impl Shared) {
    let execution = Wish::default().submit(&store).await;
    let copy = execution.clone();
    let results = at_once(&store, 20, move |store, _| {
        let execution = copy.clone();
        async move {
            store
                .update(
                    &execution,
                    launching(&execution, at(9)),
                    &admissions(&execution, None),
                )
                .await
        }
    });
    let made = results.await.into_iter().filter(Result::is_ok).count();
    assert_eq!(made, 1);
    assert_eq!(used(&store, &POOL).await, CPU);
}

/// The client token of its launch.
fn token(launched: &Execution) -> String {
    let input = launched
        .open_attempt()
        .and_then(|attempt| attempt.run_task.as_ref());
    input.expect("it is being launched").client_token.clone()
}

/// Writes the next version and reads it back.
async fn kept(store: &impl Store, before: &Execution, after: Option<Execution>) -> Execution {
    let after = after.expect("it changes");
    let written = store
        .update(before, after, &[])
        .await
        .expect("nobody else writes it");
    assert_eq!(load(store, &before.id).await, written);
    written
}

pub(crate) async fn everything_that_is_learned_is_read_back(store: impl Store) {
    let queued = Wish {
        lock: Some("deploy"),
        group: Some("nightly"),
        ..Wish::default()
    }
    .submit(&store)
    .await;
    let waits = kept(&store, &queued, queued.parked(POOL, "full".into(), at(5))).await;
    let refused = kept(&store, &waits, Some(launching(&waits, at(6)))).await;
    let refused = kept(
        &store,
        &refused,
        refused.refused(&token(&refused), POOL, "no room", at(7)),
    )
    .await;
    let launched = kept(&store, &refused, Some(launching(&refused, at(60)))).await;
    let task = |status: &str, version| Task {
        task_arn: task_arn(&queued),
        cluster_arn: "arn:aws:ecs:eu-central-1:123456789012:cluster/c".into(),
        last_status: status.into(),
        version,
        started_at: Some(at(70)),
        containers: vec![Container {
            name: MAIN.into(),
            image_digest: Some("sha256:5".into()),
            ..Container::default()
        }],
        ..Task::default()
    };
    let known = kept(
        &store,
        &launched,
        launched.observe(1, &Observation::Task(&task("PENDING", 1)), at(61)),
    )
    .await;
    let CancelDecision::Changed(asked) = known.cancelled(&caller("bob"), at(62)) else {
        panic!("it is not final")
    };
    let asked = kept(&store, &known, Some(*asked)).await;
    let runs = kept(
        &store,
        &asked,
        asked.observe(1, &Observation::Task(&task("RUNNING", 2)), at(71)),
    )
    .await;
    let said = [
        (at(72), Marker::SetUp),
        (at(73), Marker::Commit("c".repeat(40))),
        (at(74), Marker::Start),
    ];
    let runs = kept(
        &store,
        &runs,
        runs.observe(1, &Observation::Markers(&said), at(75)),
    )
    .await;
    let gone = kept(&store, &runs, runs.observe(1, &Observation::Gone, at(80))).await;
    let last = [(at(76), Marker::Timeout)];
    let over = kept(
        &store,
        &gone,
        gone.observe(1, &Observation::WholeLog(&last), at(90)),
    )
    .await;
    assert_eq!(over.status(), ExecutionStatus::TimedOut);

    let second = Wish {
        entropy: 2,
        ..Wish::default()
    }
    .submit(&store)
    .await;
    let launched = launch(&store, &second).await;
    let cause = Cause::NeverStarted("nobody knows".into());
    kept(
        &store,
        &launched,
        launched.never_launched(&token(&launched), &cause, at(9)),
    )
    .await;
    let third = Wish {
        entropy: 3,
        ..Wish::default()
    }
    .submit(&store)
    .await;
    kept(&store, &third, third.rejected("too large".into(), at(9))).await;
    let fourth = Wish {
        entropy: 4,
        ..Wish::default()
    }
    .submit(&store)
    .await;
    let launched = launch(&store, &fourth).await;
    kept(&store, &launched, Some(stopped(&launched, 124))).await;
}

/// The launches of these executions, under this much of their pool.
fn launches(executions: &[Execution], max: u32) -> Vec<Update> {
    let launch = |execution: &Execution| Update {
        before: execution.clone(),
        after: launching(execution, at(9)),
        admissions: admissions(execution, Some(max)),
    };
    executions.iter().map(launch).collect()
}

async fn submit_several(store: &impl Store, count: u128) -> Vec<Execution> {
    let mut executions = Vec::new();
    for entropy in 0..count {
        executions.push(
            Wish {
                entropy,
                ..Wish::default()
            }
            .submit(store)
            .await,
        );
    }
    executions
}

pub(crate) async fn several_updates_are_each_answered_in_their_place(store: impl Store) {
    let executions = submit_several(&store, 5).await;
    let moved = executions[1]
        .parked(POOL, "full".into(), at(5))
        .expect("it has a ticket");
    store
        .update(&executions[1], moved, &[])
        .await
        .expect("nobody else writes it");
    let results = store.update_all(launches(&executions, 100 * CPU)).await;
    for (number, (result, execution)) in results.iter().zip(&executions).enumerate() {
        match result {
            Ok(written) => assert_eq!(*written, load(&store, &execution.id).await),
            Err(UpdateError::Conflict) => {
                assert_eq!(number, 1, "only this one was written by another");
            }
            Err(other) => panic!("{number}: {other}"),
        }
    }
    assert_eq!(used(&store, &POOL).await, 4 * CPU);
    assert_eq!(
        store.launched(None, 10).await.expect(ANSWERS).items.len(),
        4
    );
    assert!(store.update_all(Vec::new()).await.is_empty());
}

pub(crate) async fn of_several_updates_the_first_that_fit_are_made(store: impl Store) {
    let executions = submit_several(&store, 6).await;
    launch(&store, &executions[0]).await;
    let results = store.update_all(launches(&executions[1..], 4 * CPU)).await;
    let made: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(made, [true, true, true, false, false]);
    assert!(
        matches!(&results[4], Err(UpdateError::Full(key)) if *key == POOL),
        "{:?}",
        results[4]
    );
    assert_eq!(used(&store, &POOL).await, 4 * CPU);
    let results = store.update_all(launches(&executions[4..], 4 * CPU)).await;
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Err(UpdateError::Full(_)))),
        "{results:?}"
    );
    assert_eq!(used(&store, &POOL).await, 4 * CPU);
}

pub(crate) async fn what_a_conflicting_update_took_is_free_again(store: impl Store) {
    let executions = submit_several(&store, 3).await;
    let stale = launches(&executions, 3 * CPU);
    for result in store.update_all(launches(&executions, 3 * CPU)).await {
        let launched = result.expect("there is room");
        store
            .update(&launched, stopped(&launched, 0), &[])
            .await
            .expect("nobody else writes it");
    }
    for result in store.update_all(stale).await {
        assert!(matches!(result, Err(UpdateError::Conflict)), "{result:?}");
    }
    assert_eq!(used(&store, &POOL).await, 0);
}

pub(crate) async fn admissions_are_taken_all_or_none(store: impl Store) {
    let running = Wish {
        entropy: 1,
        ..Wish::default()
    }
    .submit(&store)
    .await;
    launch(&store, &running).await;
    let execution = Wish {
        entropy: 2,
        lock: Some("deploy"),
        ..Wish::default()
    }
    .submit(&store)
    .await;
    let result = store
        .update(
            &execution,
            launching(&execution, at(9)),
            &admissions(&execution, Some(CPU)),
        )
        .await;
    assert!(
        matches!(&result, Err(UpdateError::Full(key)) if *key == POOL),
        "{result:?}"
    );
    assert_eq!(
        used(&store, &lock("deploy")).await,
        0,
        "the lock was taken without the pool"
    );
    assert_eq!(used(&store, &POOL).await, CPU);
    assert_eq!(load(&store, &execution.id).await, execution);
    assert_eq!(
        backlog(&store, &lock("deploy"), at(9), 9).await.len(),
        1,
        "it left its line"
    );

    store
        .update(
            &execution,
            launching(&execution, at(9)),
            &admissions(&execution, Some(2 * CPU)),
        )
        .await
        .expect("there is room for two");
    let third = Wish {
        entropy: 3,
        lock: Some("deploy"),
        ..Wish::default()
    }
    .submit(&store)
    .await;
    let result = store
        .update(
            &third,
            launching(&third, at(9)),
            &admissions(&third, Some(9 * CPU)),
        )
        .await;
    assert!(
        matches!(&result, Err(UpdateError::Full(key)) if *key == lock("deploy")),
        "{result:?}"
    );
    assert_eq!(
        used(&store, &POOL).await,
        2 * CPU,
        "the pool was taken without the lock"
    );
}

fn launch_of(execution: &Execution, max: Option<u32>) -> Update {
    Update {
        before: execution.clone(),
        after: launching(execution, at(9)),
        admissions: admissions(execution, max),
    }
}

pub(crate) async fn several_updates_are_each_conditional_by_themselves(store: impl Store) {
    let mut executions = Vec::new();
    for entropy in 0..4 {
        executions.push(
            Wish {
                entropy,
                ..Wish::default()
            }
            .submit(&store)
            .await,
        );
    }
    launch(&store, &executions[1]).await;
    let results = store
        .update_all(
            executions
                .iter()
                .map(|execution| launch_of(execution, None))
                .collect(),
        )
        .await;
    let made: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(made, [true, false, true, true], "{results:?}");
    assert!(
        matches!(results[1], Err(UpdateError::Conflict)),
        "{:?}",
        results[1]
    );
    let first = results[0].as_ref().expect("it is made");
    assert_eq!(
        store.load(&executions[0].id).await.expect(ANSWERS).as_ref(),
        Some(first)
    );
    assert_eq!(
        used(&store, &POOL).await,
        4 * CPU,
        "the one in conflict is counted once"
    );
}

pub(crate) async fn of_several_launches_the_first_that_fit_are_made(store: impl Store) {
    let mut executions = Vec::new();
    for entropy in 0..6 {
        executions.push(
            Wish {
                entropy,
                ..Wish::default()
            }
            .submit(&store)
            .await,
        );
    }
    launch(&store, &executions[5]).await;
    let updates = executions[..5]
        .iter()
        .map(|execution| launch_of(execution, Some(4 * CPU)))
        .collect();
    let results = store.update_all(updates).await;
    let made = results.iter().filter(|result| result.is_ok()).count();
    let full = |result: &&Result<_, UpdateError>| matches!(result, Err(UpdateError::Full(key)) if *key == POOL);
    assert_eq!(
        (made, results.iter().filter(full).count()),
        (3, 2),
        "{results:?}"
    );
    assert_eq!(used(&store, &POOL).await, 4 * CPU);
}

pub(crate) async fn a_group_holds_as_many_as_its_executions_say(store: impl Store) {
    let wish = Wish {
        group: Some("nightly"),
        max_parallel: Some(2),
        ..Wish::default()
    };
    let key = LimitKey::Group("nightly".parse().expect("a name"));
    let mut launched = Vec::new();
    for entropy in 0..3 {
        let execution = Wish {
            entropy,
            ..wish.clone()
        }
        .submit(&store)
        .await;
        assert_eq!(execution.backlog_entry().expect("it waits").backlog, key);
        let after = launching(&execution, at(9));
        launched.push(
            store
                .update(&execution, after, &admissions(&execution, None))
                .await,
        );
    }
    assert!(
        matches!(&launched[2], Err(UpdateError::Full(full)) if *full == key),
        "{:?}",
        launched[2]
    );
    assert_eq!(
        (used(&store, &key).await, used(&store, &POOL).await),
        (2, 2 * CPU)
    );
    close(&store, launched[0].as_ref().expect("it is made"), 0).await;
    assert_eq!(used(&store, &key).await, 1);
    let uncounted = Wish {
        entropy: 9,
        group: Some("nightly"),
        ..Wish::default()
    }
    .submit(&store)
    .await;
    launch(&store, &uncounted).await;
    assert_eq!(used(&store, &key).await, 1, "it does not say how many");
}

pub(crate) async fn a_limits_state_is_replaced_only_by_who_has_read_it(store: impl Store) {
    for key in [POOL, lock("deploy")] {
        let unknown = store.limit_state(&key).await.expect(ANSWERS);
        assert_eq!(unknown, LimitState::default());
        let adaptive_limit =
            AdaptiveLimit::refused(None, 512, (Shortage::Quota, "no".into()), at(0), 7);
        let held = LimitState {
            backlog: BacklogState {
                held: Some(Held {
                    by: HeldBy::Refusals,
                    since: at(1),
                    started: 3,
                }),
                next_look: Some(at(5)),
                watched_until: Some(at(6)),
                promoted: Some(Wish::default().execution().id),
            },
            pool: PoolState {
                adaptive_limit: Some(adaptive_limit),
                ..PoolState::default()
            }
            .with_quota(Some(6144), at(2)),
            ..unknown.clone()
        };
        let free = LimitState {
            backlog: BacklogState::default(),
            ..held.clone()
        };
        assert!(
            store
                .set_limit_state(&key, &unknown, held.clone())
                .await
                .expect(ANSWERS)
        );
        assert!(
            !store
                .set_limit_state(&key, &unknown, free.clone())
                .await
                .expect(ANSWERS),
            "somebody else was faster"
        );
        let read = store.limit_state(&key).await.expect(ANSWERS);
        assert_eq!(
            read,
            LimitState {
                revision: read.revision,
                ..held
            }
        );
        assert!(
            store
                .set_limit_state(&key, &read, free.clone())
                .await
                .expect(ANSWERS)
        );
        let freed = store.limit_state(&key).await.expect(ANSWERS);
        assert_eq!((freed.backlog, freed.pool), (free.backlog, free.pool));
    }
}

/// The progress as written, with the revision and the unknown fields that the store sets itself.
fn stored<W: GroupWork>(read: &W, written: &W) -> Progress {
    let Progress {
        revision, unknown, ..
    } = read.progress().clone();
    Progress {
        revision,
        unknown,
        ..written.progress().clone()
    }
}

pub(crate) async fn a_groups_mark_is_replaced_only_by_who_has_read_it(store: impl Store) {
    let (nightly, matrix): (Name, Name) = (
        "nightly".parse().expect("a name"),
        "matrix".parse().expect("a name"),
    );
    assert_eq!(
        store
            .group_work::<GroupCancel>(&nightly)
            .await
            .expect(ANSWERS),
        None
    );
    assert_eq!(
        store.open_group_work::<GroupCancel>().await.expect(ANSWERS),
        []
    );
    // Marks expire by the machine's clock.
    let now = Utc::now().trunc_subsecs(3);
    let mark = GroupCancel::new(nightly.clone(), &caller("alice"), now, None);
    assert!(store.set_group_work(&mark).await.expect(ANSWERS));
    assert!(
        !store.set_group_work(&mark).await.expect(ANSWERS),
        "somebody else was faster"
    );
    let read = store
        .group_work::<GroupCancel>(&nightly)
        .await
        .expect(ANSWERS)
        .expect("it is marked");
    assert_eq!(
        read,
        GroupCancel {
            progress: stored(&read, &mark),
            ..mark
        }
    );
    assert_eq!(
        store
            .group_work::<GroupCancel>(&matrix)
            .await
            .expect(ANSWERS),
        None
    );
    assert_eq!(
        store.open_group_work::<GroupCancel>().await.expect(ANSWERS),
        std::slice::from_ref(&read)
    );
    let page = Closed {
        cancelled: 90,
        stopping: 9,
        passed_over: 1,
    };
    let on_its_way = read.after(page, Some(&Cursor(Wish::default().execution().id)), now);
    assert!(store.set_group_work(&on_its_way).await.expect(ANSWERS));
    assert!(
        !store
            .set_group_work(&read.after(page, None, now))
            .await
            .expect(ANSWERS)
    );
    let read = store
        .group_work::<GroupCancel>(&nightly)
        .await
        .expect(ANSWERS)
        .expect("it is marked");
    assert_eq!((read.cancelled, read.stopping, read.looks), (90, 9, 0));
    assert!(read.progress.cursor.is_some());
    let done = GroupCancel {
        progress: Progress {
            done: true,
            ..read.progress
        },
        ..read
    };
    assert!(store.set_group_work(&done).await.expect(ANSWERS));
    assert_eq!(
        store.open_group_work::<GroupCancel>().await.expect(ANSWERS),
        []
    );
    let again = GroupCancel::new(
        nightly.clone(),
        &caller("bob"),
        now,
        store
            .group_work::<GroupCancel>(&nightly)
            .await
            .expect(ANSWERS)
            .as_ref(),
    );
    assert!(store.set_group_work(&again).await.expect(ANSWERS));
    let read = store
        .group_work::<GroupCancel>(&nightly)
        .await
        .expect(ANSWERS)
        .expect("it is marked");
    assert_eq!(
        (read.by.as_str(), read.cancelled, read.progress.done),
        ("bob", 0, false)
    );
}

/// Each group has one of each kind, independent of each other.
pub(crate) async fn a_groups_rerun_is_kept_beside_its_mark(store: impl Store) {
    let nightly: Name = "nightly".parse().expect("a name");
    let now = Utc::now().trunc_subsecs(3);
    let mark = GroupCancel::new(nightly.clone(), &caller("alice"), now, None);
    assert!(store.set_group_work(&mark).await.expect(ANSWERS));
    let wish = rerun::RerunWish {
        of: "matrix".parse().expect("a name"),
        into: nightly.clone(),
        submission: "sub_1".into(),
        changes: Changes {
            env: [("A".into(), "a".into())].into(),
            timeout: Some("1h".into()),
            ..Changes::default()
        },
        add_secrets: vec!["TOKEN".into()],
    };
    let begun = GroupRerun::new(wish.clone(), &caller("bob"), now, now, None);
    assert!(store.set_group_work(&begun).await.expect(ANSWERS));
    assert!(
        !store.set_group_work(&begun).await.expect(ANSWERS),
        "somebody else was faster"
    );
    let read: GroupRerun = store
        .group_work(&nightly)
        .await
        .expect(ANSWERS)
        .expect("it is there");
    assert_eq!(
        read,
        GroupRerun {
            progress: stored(&read, &begun),
            ..begun
        }
    );
    assert!(read.is_for(&wish, &caller("bob")) && !read.is_for(&wish, &caller("alice")));
    assert_eq!(
        store.open_group_work::<GroupRerun>().await.expect(ANSWERS),
        std::slice::from_ref(&read)
    );
    let fault = FieldError {
        field: "cpu".into(),
        message: "is odd".into(),
    };
    let rejection = rerun::Rejection {
        execution_id: Wish::default().execution().id,
        errors: vec![fault],
    };
    let counts = rerun::RerunCounts {
        accepted: 90,
        existing: 3,
        rejected: 1,
        passed_over: 2,
    };
    let page = rerun::RerunPage {
        counts,
        rejections: vec![rejection],
    };
    assert!(
        store
            .set_group_work(&read.after(page.clone(), None, now))
            .await
            .expect(ANSWERS)
    );
    let done: GroupRerun = store
        .group_work(&nightly)
        .await
        .expect(ANSWERS)
        .expect("it is there");
    assert_eq!(
        (done.counts, &done.rejections, done.progress.done),
        (counts, &page.rejections, true)
    );
    assert_eq!(
        store.open_group_work::<GroupRerun>().await.expect(ANSWERS),
        []
    );
    let mark: GroupCancel = store
        .group_work(&nightly)
        .await
        .expect(ANSWERS)
        .expect("it is marked");
    assert_eq!(
        (
            mark.by.as_str(),
            store
                .open_group_work::<GroupCancel>()
                .await
                .expect(ANSWERS)
                .len()
        ),
        ("alice", 1)
    );
}

pub(crate) async fn concurrent_launches_never_exceed_the_limit(store: impl Shared) {
    let results = at_once(&store, 50, |store, number| async move {
        let execution = Wish {
            entropy: number.into(),
            ..Wish::default()
        }
        .submit(&store)
        .await;
        store
            .update(
                &execution,
                launching(&execution, at(9)),
                &admissions(&execution, Some(10 * CPU)),
            )
            .await
    });
    let (made, refused): (Vec<_>, Vec<_>) = results.await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 10);
    assert!(
        refused
            .iter()
            .all(|result| matches!(result, Err(UpdateError::Full(key)) if *key == POOL))
    );
    assert_eq!(used(&store, &POOL).await, 10 * CPU);
}

pub(crate) async fn without_a_limit_everything_is_admitted(store: impl Store) {
    for entropy in 0..5 {
        let execution = Wish {
            entropy,
            ..Wish::default()
        }
        .submit(&store)
        .await;
        launch(&store, &execution).await;
    }
    assert_eq!(used(&store, &POOL).await, 5 * CPU);
}

pub(crate) async fn usage_follows_a_launch_to_its_end(store: impl Store) {
    let deploy = lock("deploy");
    let execution = Wish {
        lock: Some("deploy"),
        ..Wish::default()
    }
    .submit(&store)
    .await;
    assert_eq!(
        (used(&store, &POOL).await, used(&store, &deploy).await),
        (0, 0)
    );
    let launched = launch(&store, &execution).await;
    assert_eq!(
        (used(&store, &POOL).await, used(&store, &deploy).await),
        (CPU, 1)
    );
    let refused = launched
        .refused(&token(&launched), POOL, "no room", at(9))
        .expect("it has no task");
    let refused = store
        .update(&launched, refused, &[])
        .await
        .expect("nobody else writes it");
    assert_eq!(
        (used(&store, &POOL).await, used(&store, &deploy).await),
        (0, 0)
    );
    let again = store
        .update(
            &refused,
            launching(&refused, at(10)),
            &admissions(&refused, Some(CPU)),
        )
        .await
        .expect("there is room");
    assert_eq!(
        (used(&store, &POOL).await, used(&store, &deploy).await),
        (CPU, 1)
    );
    close(&store, &again, 0).await;
    assert_eq!(
        (used(&store, &POOL).await, used(&store, &deploy).await),
        (0, 0)
    );
}

pub(crate) async fn a_slot_is_not_released_twice(store: impl Shared) {
    let other = Wish {
        entropy: 2,
        ..Wish::default()
    }
    .submit(&store)
    .await;
    launch(&store, &other).await;
    let execution = Wish::default().submit(&store).await;
    let launched = launch(&store, &execution).await;
    let results = at_once(&store, 10, move |store, _| {
        let launched = launched.clone();
        async move { store.update(&launched, stopped(&launched, 0), &[]).await }
    });
    assert_eq!(results.await.into_iter().filter(Result::is_ok).count(), 1);
    assert_eq!(
        used(&store, &POOL).await,
        CPU,
        "the other's slot is still held"
    );
}

pub(crate) async fn a_backlog_is_fair_between_submitters(store: impl Store) {
    for second in 0..6 {
        Wish::of("a", second * 1000).submit(&store).await;
    }
    Wish::of("b", 100_000).submit(&store).await;
    assert_eq!(submitters(&store).await, "abaaaaa");
}

pub(crate) async fn a_backlog_goes_by_priority_and_then_by_time(store: impl Store) {
    let wishes = [(0, 3), (5, 2), (0, 1), (5, 4)].map(|(priority, at)| Wish {
        priority,
        ..Wish::of("a", at)
    });
    for wish in &wishes {
        wish.submit(&store).await;
    }
    let entries = backlog(&store, &POOL, at(9), 9).await;
    let order: Vec<_> = entries
        .iter()
        .map(|entry| (entry.priority, entry.submitted_at))
        .collect();
    assert_eq!(order, [(5, at(2)), (5, at(4)), (0, at(1)), (0, at(3))]);
    let expected = wishes[1].execution().backlog_entry();
    assert_eq!(
        entries.first(),
        expected.as_ref(),
        "a ticket is the record's own"
    );
}

pub(crate) async fn who_was_started_waits_for_the_others(store: impl Store) {
    let first = Wish::of("a", 0).submit(&store).await;
    Wish::of("a", 1).submit(&store).await;
    Wish::of("b", 2).submit(&store).await;
    assert_eq!(submitters(&store).await, "aba");
    launch(&store, &first).await;
    assert_eq!(submitters(&store).await, "ba");
}

pub(crate) async fn who_comes_late_has_no_credit(store: impl Store) {
    for moment in 0..6 {
        Wish::of("a", moment).submit(&store).await;
    }
    for entry in backlog(&store, &POOL, at(9), 3).await {
        launch(&store, &load(&store, &entry.id).await).await;
    }
    for moment in 10..13 {
        Wish::of("b", moment).submit(&store).await;
    }
    let order = submitters(&store).await;
    assert!(
        order == "bababa" || order == "ababab",
        "three starts of a's past count against it: {order}"
    );
}

pub(crate) async fn an_entry_is_not_in_the_backlog_before_its_time(store: impl Store) {
    let execution = Wish::default().submit(&store).await;
    let launched = launch(&store, &execution).await;
    let refused = launched
        .refused(&token(&launched), POOL, "no room", at(100))
        .expect("it has no task");
    let refused = refused
        .postponed("no room".into(), at(5_000), at(100))
        .expect("it is in line");
    store
        .update(&launched, refused, &[])
        .await
        .expect("nobody else writes it");
    assert_eq!(backlog(&store, &POOL, at(4_999), 9).await, []);
    assert_eq!(store.backlogs(at(4_999)).await.expect(ANSWERS), []);
    assert_eq!(backlog(&store, &POOL, at(5_000), 9).await.len(), 1);
    assert_eq!(store.backlogs(at(5_000)).await.expect(ANSWERS), [POOL]);
}

pub(crate) async fn a_backlog_shows_no_more_than_asked_for(store: impl Store) {
    for (number, by) in ["a", "b", "c", "d"]
        .into_iter()
        .cycle()
        .take(20)
        .enumerate()
    {
        Wish {
            entropy: number as u128,
            ..Wish::of(by, 20 - number as i64)
        }
        .submit(&store)
        .await;
    }
    let whole = backlog(&store, &POOL, at(99), 100).await;
    assert_eq!(whole.len(), 20);
    for limit in [0, 1, 3, 4, 7, 20] {
        assert_eq!(
            backlog(&store, &POOL, at(99), limit).await,
            whole[..limit as usize],
            "the first {limit}"
        );
    }
}

pub(crate) async fn locks_and_pools_have_backlogs_of_their_own(store: impl Store) {
    let free = Wish::of("a", 0).submit(&store).await;
    let locked = Wish {
        lock: Some("deploy"),
        ..Wish::of("a", 1)
    }
    .submit(&store)
    .await;
    Wish {
        lock: Some("other"),
        ..Wish::of("a", 2)
    }
    .submit(&store)
    .await;
    let ids = |entries: Vec<BacklogEntry>| {
        entries
            .into_iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(backlog(&store, &POOL, at(9), 9).await),
        std::slice::from_ref(&free.id)
    );
    assert_eq!(
        ids(backlog(&store, &lock("deploy"), at(9), 9).await),
        [locked.id]
    );
    assert_eq!(backlog(&store, &lock("unknown"), at(9), 9).await, []);
    let backlogs: BTreeSet<_> = store
        .backlogs(at(9))
        .await
        .expect(ANSWERS)
        .into_iter()
        .collect();
    assert_eq!(
        backlogs,
        BTreeSet::from([POOL, lock("deploy"), lock("other")])
    );
    launch(&store, &free).await;
    assert!(
        !store.backlogs(at(9)).await.expect(ANSWERS).contains(&POOL),
        "an empty line is shown"
    );
}

pub(crate) async fn each_backlog_tells_its_size_and_age(store: impl Store) {
    assert_eq!(store.backlog_sizes(9).await.expect(ANSWERS), []);
    let first = Wish::of("b", 5).submit(&store).await;
    for (by, millis, priority) in [("a", 7, 9), ("a", 6, -9), ("b", 8, 0)] {
        let wish = Wish {
            priority,
            ..Wish::of(by, millis)
        };
        wish.submit(&store).await;
    }
    let locked = Wish {
        lock: Some("deploy"),
        ..Wish::of("a", 1)
    };
    locked.submit(&store).await;
    let size = |key: LimitKey, entries: u32, oldest: i64| BacklogSize {
        key,
        entries,
        oldest: at(oldest),
    };
    let sizes = async || {
        let mut sizes = store.backlog_sizes(9).await.expect(ANSWERS);
        sizes.sort_by(|a, b| a.key.cmp(&b.key));
        sizes
    };
    assert_eq!(
        sizes().await,
        [size(POOL, 4, 5), size(lock("deploy"), 1, 1)]
    );
    // A backed-off entry waits too, and still since it was submitted.
    let launched = launch(&store, &first).await;
    assert_eq!(sizes().await[0], size(POOL, 3, 6), "it has started");
    let refused = launched
        .refused(&token(&launched), POOL, "no room", at(100))
        .and_then(|back| back.postponed("no room".into(), at(5_000_000), at(100)))
        .expect("it is back");
    store
        .update(&launched, refused, &[])
        .await
        .expect("nobody else writes it");
    assert_eq!(sizes().await[0], size(POOL, 4, 5), "it is back");
    // At least as many as asked for of each of the two submitters are counted.
    let few = store.backlog_sizes(1).await.expect(ANSWERS);
    let few = few
        .iter()
        .find(|size| size.key == POOL)
        .expect("it is not empty");
    assert!((2..=4).contains(&few.entries), "{few:?}");
}

pub(crate) async fn an_entry_keeps_its_position_when_it_moves_to_another_backlog_and_back(
    store: impl Store,
) {
    let first = Wish::of("a", 0).submit(&store).await;
    Wish::of("a", 1).submit(&store).await;
    let mut record = first.clone();
    for key in [lock("deploy"), POOL] {
        let parked = record
            .parked(key.clone(), "waits".into(), at(9))
            .expect("it has a ticket");
        record = store
            .update(&record, parked, &[])
            .await
            .expect("nobody else writes it");
        assert_eq!(backlog(&store, &key, at(9), 9).await[0].id, first.id);
    }
    assert_eq!(backlog(&store, &lock("deploy"), at(9), 9).await, []);
}

/// Three submitters with entries of mixed priority and time, and some earlier starts.
async fn mixed_backlog(store: &impl Store) {
    let wishes = [
        ("a", 0, 10),
        ("a", 3, 11),
        ("b", 0, 5),
        ("c", 9, 30),
        ("b", 0, 12),
        ("a", 0, 1),
        ("c", 0, 2),
        ("a", -4, 0),
        ("b", 1, 40),
    ];
    for (by, priority, moment) in
        wishes
            .into_iter()
            .chain([("a", 0, 50), ("a", 0, 51), ("c", 0, 52), ("a", 2, 53)])
    {
        Wish {
            priority,
            ..Wish::of(by, moment)
        }
        .submit(store)
        .await;
    }
    for entry in backlog(store, &POOL, at(99), 2).await {
        launch(store, &load(store, &entry.id).await).await;
    }
    Wish {
        priority: 1,
        ..Wish::of("late", 60)
    }
    .submit(store)
    .await;
}

pub(crate) async fn the_position_is_the_number_of_entries_before(store: impl Store) {
    mixed_backlog(&store).await;
    let entries = backlog(&store, &POOL, at(99), 100).await;
    assert_eq!(entries.len(), 12);
    let mut places = Vec::new();
    for entry in &entries {
        places.push(store.ahead(entry, 100).await.expect(ANSWERS));
    }
    assert_eq!(
        places,
        (0..12).collect::<Vec<_>>(),
        "{:?}",
        names(entries.iter().map(|entry| &entry.submitter))
    );
}

pub(crate) async fn the_place_beyond_the_exact_ones_is_near(store: impl Store) {
    for moment in 0..30 {
        Wish::of(if moment % 3 == 0 { "a" } else { "b" }, moment)
            .submit(&store)
            .await;
    }
    let entries = backlog(&store, &POOL, at(99), 100).await;
    for (place, entry) in (0_u32..).zip(&entries) {
        let told = store.ahead(entry, 10).await.expect(ANSWERS);
        if place <= 10 {
            assert_eq!(told, place);
        } else {
            assert!(
                (10..=45).contains(&told),
                "the {place}th of 30 is told to be {told}th"
            );
        }
    }
}

/// Twelve executions of mixed kinds, oldest first.
async fn mixed_history(store: &impl Store) -> Vec<Execution> {
    let mut executions = Vec::new();
    for number in 0..12_i64 {
        let by = if number % 3 == 0 { "alice" } else { "bob" };
        let group = (number % 4 == 0).then_some("nightly");
        let execution = Wish {
            by,
            group,
            at: number * 10,
            ..Wish::default()
        }
        .submit(store)
        .await;
        executions.push(match number % 3 {
            0 => execution,
            1 => launch(store, &execution).await,
            _ => {
                close(
                    store,
                    &launch(store, &execution).await,
                    i32::try_from(number % 2).expect("small"),
                )
                .await
            }
        });
    }
    executions
}

/// Returns every page of a list, in order.
async fn pages(store: &impl Store, filter: &Filter, limit: u32) -> Vec<Vec<Execution>> {
    let page = async |cursor: Option<&_>| store.list(filter, cursor, limit).await.expect(ANSWERS);
    loaded::pages(page).await.into_iter().map(all).collect()
}

pub(crate) async fn history_is_paged_newest_first_without_repeat_or_gap(store: impl Store) {
    assert_eq!(
        pages(&store, &Filter::default(), 5).await,
        [[]],
        "an empty history is one empty page"
    );
    let mut newest_first = mixed_history(&store).await;
    newest_first.reverse();
    for limit in [1, 5, 6, 12, 50] {
        let pages = pages(&store, &Filter::default(), limit).await;
        assert!(pages.iter().all(|page| page.len() <= limit as usize));
        assert_eq!(pages.concat(), newest_first, "in pages of {limit}");
    }
}

pub(crate) async fn what_comes_between_two_pages_is_not_on_the_next(store: impl Store) {
    let executions = mixed_history(&store).await;
    let first = store
        .list(&Filter::default(), None, 5)
        .await
        .expect(ANSWERS);
    Wish::of("alice", 1_000).submit(&store).await;
    let second = store
        .list(&Filter::default(), first.next.as_ref(), 50)
        .await
        .expect(ANSWERS);
    let mut seen: Vec<_> = all(first.items)
        .into_iter()
        .chain(all(second.items))
        .collect();
    seen.reverse();
    assert_eq!(seen, executions);
}

fn filters() -> Vec<Filter> {
    let mut filters = Vec::new();
    for status in [
        None,
        Some(ExecutionStatus::Queued),
        Some(ExecutionStatus::Launching),
        Some(ExecutionStatus::Failed),
        Some(ExecutionStatus::Lost),
    ] {
        for group in [None, Some("nightly"), Some("unknown")] {
            for by in [None, Some("alice"), Some("bob"), Some("nobody")] {
                for since in [
                    None,
                    Some(at(0)),
                    Some(at(50)),
                    Some(at(50) + TimeDelta::microseconds(1)),
                    Some(at(9_999)),
                ] {
                    let group = group.map(|name| name.parse().expect("a name"));
                    filters.push(Filter {
                        status: status.clone(),
                        group,
                        by: by.map(str::to_owned),
                        by_id: None,
                        since,
                    });
                }
            }
        }
    }
    filters
}

pub(crate) async fn history_is_filtered_by_everything_at_once(store: impl Store) {
    let executions = mixed_history(&store).await;
    let mut matches = BTreeSet::new();
    for filter in filters() {
        let wanted: Vec<_> = executions
            .iter()
            .rev()
            .filter(|execution| filter.admits(execution))
            .cloned()
            .collect();
        matches.insert(wanted.len());
        let page = store.list(&filter, None, 50).await.expect(ANSWERS);
        assert_eq!(all(page.items), wanted, "{filter:?}");
    }
    assert!(
        matches.len() > 4,
        "the filters of this test tell little: {matches:?}"
    );
}

pub(crate) async fn filtered_history_is_paged(store: impl Store) {
    let executions = mixed_history(&store).await;
    for filter in filters() {
        let wanted: Vec<_> = executions
            .iter()
            .rev()
            .filter(|execution| filter.admits(execution))
            .cloned()
            .collect();
        assert_eq!(
            pages(&store, &filter, 2).await.concat(),
            wanted,
            "{filter:?}"
        );
    }
}

async fn find(store: &impl Store, fragment: &str, limit: u32) -> Vec<ExecutionId> {
    store.find(fragment, limit).await.expect(ANSWERS)
}

pub(crate) async fn an_execution_is_found_by_a_part_of_its_id(store: impl Store) {
    let [older, newer] = [
        Wish {
            entropy: 0xabcd,
            ..Wish::of("a", 0)
        },
        Wish {
            entropy: 0x1234,
            ..Wish::of("b", 50_000_000)
        },
    ];
    let (older, newer) = (older.submit(&store).await.id, newer.submit(&store).await.id);
    let ulid = older.as_str().trim_start_matches("exec_");
    let unique = (1..=26)
        .find(|length| !newer.as_str().contains(&ulid[..*length]))
        .expect("the ids differ");
    for fragment in [
        older.as_str(),
        ulid,
        &ulid[..unique],
        &ulid[20..],
        &ulid[25..],
        &format!("exec_{}", &ulid[..unique]),
    ] {
        for fragment in [fragment.to_owned(), fragment.to_lowercase()] {
            assert_eq!(
                find(&store, &fragment, 9).await,
                std::slice::from_ref(&older),
                "{fragment}"
            );
        }
    }
    let both = &ulid[..unique - 1];
    assert_eq!(
        find(&store, both, 9).await,
        [newer.clone(), older.clone()],
        "newest first"
    );
    assert_eq!(find(&store, both, 1).await, [newer]);
    assert_eq!(
        find(&store, &ulid[1..25], 9).await,
        [],
        "the middle is no end"
    );
}

pub(crate) async fn an_execution_is_found_by_its_task(store: impl Store) {
    let execution = Wish::default().submit(&store).await;
    let other = Wish {
        entropy: 2,
        ..Wish::default()
    }
    .submit(&store)
    .await;
    assert_eq!(find(&store, task_arn(&execution).as_str(), 9).await, []);
    for execution in [&execution, &other] {
        close(&store, &launch(&store, execution).await, 1).await;
    }
    for fragment in [task_arn(&execution).to_string(), task_id(&execution)] {
        assert_eq!(
            find(&store, &fragment, 9).await,
            std::slice::from_ref(&execution.id),
            "{fragment}"
        );
    }
    assert_eq!(
        find(&store, &format!("{}0", task_arn(&execution)), 9).await,
        []
    );
}

pub(crate) async fn what_is_no_part_of_an_id_finds_nothing(store: impl Store) {
    Wish::default().submit(&store).await;
    for fragment in [
        "%",
        "_",
        "*",
        "'",
        "exec_%",
        "é",
        "zzzz",
        "exec_exec_",
        "a b",
    ] {
        assert_eq!(find(&store, fragment, 9).await, [], "{fragment}");
    }
}

pub(crate) async fn what_is_launched_is_paged_completely(store: impl Store) {
    let executions = mixed_history(&store).await;
    let pages = loaded::pages(async |cursor| store.launched(cursor, 3).await.expect(ANSWERS)).await;
    assert!(pages.iter().all(|page| page.len() <= 3));
    let mut seen = all(pages.concat());
    seen.sort_by(|a, b| a.id.cmp(&b.id));
    let open: Vec<_> = executions
        .into_iter()
        .filter(|execution| execution.open_attempt().is_some())
        .collect();
    assert_eq!(open.len(), 4);
    assert_eq!(seen, open);
}

const RATE: Rate = Rate {
    burst: 10.0,
    per_second: 2.0,
};

pub(crate) async fn launches_are_bounded_by_burst_and_rate(store: impl Store) {
    let take = async |want, millis, pool| {
        store
            .take_tokens(RateKey::Launches(pool), RATE, want, at(millis))
            .await
            .expect(ANSWERS)
    };
    assert_eq!(take(4, 0, CapacityPool::Machine).await, (4, 0));
    assert_eq!(take(100, 0, CapacityPool::Machine).await, (6, 500));
    assert_eq!(take(1, 400, CapacityPool::Machine).await, (0, 100));
    assert_eq!(take(5, 500, CapacityPool::Machine).await, (1, 500));
    assert_eq!(take(5, 2_500, CapacityPool::Machine).await, (4, 500));
    assert_eq!(
        take(20, 2_500, CapacityPool::Fargate).await,
        (10, 500),
        "each pool has its own"
    );
    assert_eq!(
        take(99, 60_000, CapacityPool::Machine).await.0,
        10,
        "no more than the burst is saved up"
    );
}

pub(crate) async fn concurrent_takers_share_one_bucket(store: impl Shared) {
    let taken = at_once(&store, 20, |store, _| async move {
        let rate = Rate {
            burst: 100.0,
            per_second: 20.0,
        };
        store
            .take_tokens(RateKey::Launches(CapacityPool::Machine), rate, 10, at(0))
            .await
            .expect(ANSWERS)
            .0
    });
    assert_eq!(taken.await.iter().sum::<u32>(), 100);
}

pub(crate) async fn registrations_have_a_bucket_of_their_own(store: impl Store) {
    let take = async |key, want| {
        store
            .take_tokens(key, RATE, want, at(0))
            .await
            .expect(ANSWERS)
    };
    assert_eq!(
        take(RateKey::Launches(CapacityPool::Fargate), 10).await.0,
        10
    );
    assert_eq!(
        take(RateKey::Definitions, 0).await,
        (0, 0),
        "a look takes nothing"
    );
    assert_eq!(take(RateKey::Definitions, 99).await, (10, 500));
    assert_eq!(
        take(RateKey::Definitions, 0).await,
        (0, 500),
        "a look tells how long to wait"
    );
}

pub(crate) async fn a_sweep_goes_on_where_the_one_before_was_cut_short(store: impl Store) {
    assert_eq!(store.bookmark().await.expect(ANSWERS), None);
    let place = |entropy| {
        Cursor(
            Wish {
                entropy,
                ..Wish::default()
            }
            .execution()
            .id,
        )
    };
    for at in [Some(place(1)), Some(place(2)), None, None] {
        store.set_bookmark(at.as_ref()).await.expect(ANSWERS);
        assert_eq!(store.bookmark().await.expect(ANSWERS), at);
    }
}
