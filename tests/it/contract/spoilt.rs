//! An unreadable record stops nothing but itself (rule 12). What a newer release wrote is neither
//! lost nor guessed at (rule 13).

use domain::{
    Timestamp,
    error::{Corrupt, PortError},
    execution::{Execution, ExecutionStatus, State},
    history::{Filter, Loaded},
    id::ExecutionId,
    limit::LimitKey,
    marker::Marker,
    scheduler::state::{BacklogState, LimitState},
    transition::{CancelDecision, Observation},
};
use tests::Store;

use tests::{callers::caller, loaded::pages};

use super::records::{POOL, Wish, at, launch, stopped, sweep};

/// Makes a test of each rule about a spoilt record, for the store that `$fresh` makes. `$fresh`
/// also gives access to the store's records.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::spoilt::rules! { $fresh:
            a_page_of_history_shows_the_others_and_names_it
            it_hides_nobody_at_the_head_of_a_backlog
            a_sweep_meets_it_and_goes_on
            what_is_derived_is_brought_in_line_all_the_same
        }
    };
}
pub(crate) use suite;

/// Makes a test of each rule about the forms of a newer release.
macro_rules! newer {
    ($fresh:path) => {
        $crate::contract::spoilt::rules! { $fresh:
            fields_of_a_newer_release_survive_a_rewrite
            a_status_of_a_newer_release_loads_as_such_and_is_left_alone
            a_form_of_a_newer_version_is_not_read
            the_state_of_a_limit_that_cannot_be_read_is_made_anew
            unknown_fields_of_a_limits_state_survive_a_rewrite
        }
    };
}
pub(crate) use newer;

macro_rules! rules {
    ($fresh:path: $($rule:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let (store, raw) = $fresh().await;
                $crate::contract::spoilt::$rule(store, raw).await;
            }
        )*
    };
}
pub(crate) use rules;

const ANSWERS: &str = "the store answers";

/// Spoils records, past the store.
pub(crate) trait Spoil {
    /// Gives this record a value that no release knows.
    async fn spoil(&self, id: &ExecutionId);
}

/// Writes what a newer release might write, past the store.
pub(crate) trait Newer {
    /// Adds a field that this release does not know to the record and to its last attempt.
    async fn add_fields(&self, id: &ExecutionId);

    /// The two fields as stored now.
    async fn fields(&self, id: &ExecutionId) -> [Option<String>; 2];

    /// Sets the status to this text.
    async fn set_status(&self, id: &ExecutionId, status: &str);

    /// Raises the version of the record's form by one.
    async fn raise_version(&self, id: &ExecutionId);

    /// Sets this text as what holds the backlog, in the backlog's state. `None` adds a field that
    /// this release does not know.
    async fn change_backlog_state(&self, key: &LimitKey, held: Option<&str>);

    /// That field of the backlog's state, as stored now.
    async fn backlog_state_field(&self, key: &LimitKey) -> Option<String>;
}

fn ids(items: &[Loaded]) -> Vec<ExecutionId> {
    let id = |loaded: &Loaded| match loaded {
        Ok(execution) => execution.id.clone(),
        Err(corrupt) => corrupt.id().expect("it names the execution").clone(),
    };
    items.iter().map(id).collect()
}

fn unreadable(items: &[Loaded]) -> Vec<ExecutionId> {
    items
        .iter()
        .filter_map(|loaded| loaded.as_ref().err().and_then(Corrupt::id).cloned())
        .collect()
}

async fn five(store: &impl Store) -> Vec<Execution> {
    let mut executions = Vec::new();
    for place in 0..5 {
        let wish = Wish {
            group: Some("nightly"),
            ..Wish::of("alice", place)
        };
        executions.push(wish.submit(store).await);
    }
    executions
}

pub(crate) async fn a_page_of_history_shows_the_others_and_names_it(
    store: impl Store,
    raw: impl Spoil,
) {
    let executions = five(&store).await;
    let newest_first: Vec<_> = executions
        .iter()
        .rev()
        .map(|execution| execution.id.clone())
        .collect();
    raw.spoil(&executions[2].id).await;

    let by = Filter {
        by: Some("alice".into()),
        ..Filter::default()
    };
    let group = Filter {
        group: Some("nightly".parse().expect("a name")),
        ..Filter::default()
    };
    for filter in [Filter::default(), by, group] {
        let page = store.list(&filter, None, 50).await.expect(ANSWERS);
        assert_eq!(ids(&page.items), newest_first, "{filter:?}");
        assert_eq!(unreadable(&page.items), [executions[2].id.clone()]);
    }
    let of_status = Filter {
        status: Some(ExecutionStatus::Queued),
        ..Filter::default()
    };
    let page = store.list(&of_status, None, 50).await.expect(ANSWERS);
    let readable: Vec<_> = newest_first
        .iter()
        .filter(|id| **id != executions[2].id)
        .cloned()
        .collect();
    assert_eq!(ids(&page.items), readable, "it is in no status");

    let one = async |cursor: Option<&_>| {
        store
            .list(&Filter::default(), cursor, 1)
            .await
            .expect(ANSWERS)
    };
    assert_eq!(
        ids(&pages(one).await.concat()),
        newest_first,
        "pages that end with it go on behind it"
    );

    match store.load(&executions[2].id).await {
        Err(PortError::Corrupt(corrupt)) => assert_eq!(corrupt.id(), Some(&executions[2].id)),
        other => panic!("{other:?}"),
    }
    let part = &executions[2].id.as_str()["exec_".len()..];
    assert_eq!(
        store.find(part, 2).await.expect(ANSWERS),
        [executions[2].id.clone()]
    );
}

pub(crate) async fn it_hides_nobody_at_the_head_of_a_backlog(store: impl Store, raw: impl Spoil) {
    let executions = five(&store).await;
    raw.spoil(&executions[0].id).await;
    let entries = store
        .backlog(&POOL, at(1_000_000), 50)
        .await
        .expect(ANSWERS);
    let behind: Vec<_> = entries
        .iter()
        .map(|entry| &entry.id)
        .filter(|id| **id != executions[0].id)
        .collect();
    assert_eq!(
        behind,
        executions[1..]
            .iter()
            .map(|execution| &execution.id)
            .collect::<Vec<_>>()
    );
    assert!(
        store
            .has_backlog(&POOL, at(1_000_000))
            .await
            .expect(ANSWERS)
    );
    assert_eq!(store.backlogs(at(1_000_000)).await.expect(ANSWERS), [POOL]);
    let last = executions[4].backlog_entry().expect("it waits");
    assert!((3..=4).contains(&store.ahead(&last, 100).await.expect(ANSWERS)));
    launch(&store, &executions[1]).await;
}

pub(crate) async fn a_sweep_meets_it_and_goes_on(store: impl Store, raw: impl Spoil) {
    let mut launched = Vec::new();
    for execution in five(&store).await {
        launched.push(launch(&store, &execution).await);
    }
    raw.spoil(&launched[1].id).await;
    let two = async |cursor: Option<&_>| store.launched(cursor, 2).await.expect(ANSWERS);
    let seen = pages(two).await.concat();
    let mut all = ids(&seen);
    all.sort();
    assert_eq!(
        all,
        launched
            .iter()
            .map(|execution| execution.id.clone())
            .collect::<Vec<_>>()
    );
    assert_eq!(unreadable(&seen), [launched[1].id.clone()]);
}

pub(crate) async fn what_is_derived_is_brought_in_line_all_the_same(
    store: impl Store,
    raw: impl Spoil,
) {
    let executions = five(&store).await;
    for execution in &executions[..3] {
        launch(&store, execution).await;
    }
    raw.spoil(&executions[0].id).await;
    for _ in 0..3 {
        sweep(&store).await;
    }
    let launched = store.launched(None, 9).await.expect(ANSWERS).items;
    assert_eq!(launched.len(), 3, "what cannot be read is not forgotten");
    assert!(
        store.usage(&POOL).await.expect(ANSWERS).used >= 512,
        "the others hold what they held"
    );
}

pub(crate) async fn fields_of_a_newer_release_survive_a_rewrite(
    store: impl Store,
    raw: impl Newer,
) {
    let launched = launch(&store, &Wish::default().submit(&store).await).await;
    raw.add_fields(&launched.id).await;
    let loaded = store
        .load(&launched.id)
        .await
        .expect(ANSWERS)
        .expect("it is there");
    let said = [(at(9), Marker::Start)];
    let observed = loaded
        .observe(1, &Observation::Markers(&said), at(9))
        .expect("that is news");
    let running = store.update(&loaded, observed, &[]).await.expect(ANSWERS);
    assert_eq!(
        raw.fields(&launched.id).await,
        [Some("new".into()), Some("new".into())],
        "once rewritten"
    );
    let loaded = store
        .load(&launched.id)
        .await
        .expect(ANSWERS)
        .expect("it is there");
    assert_eq!(loaded, running, "what is written is read");
    store
        .update(&running, stopped(&loaded, 0), &[])
        .await
        .expect(ANSWERS);
    assert_eq!(
        raw.fields(&launched.id).await,
        [Some("new".into()), Some("new".into())],
        "at its end"
    );
}

pub(crate) async fn a_status_of_a_newer_release_loads_as_such_and_is_left_alone(
    store: impl Store,
    raw: impl Newer,
) {
    let execution = Wish::default().submit(&store).await;
    raw.set_status(&execution.id, "BLOCKED").await;
    let loaded = store
        .load(&execution.id)
        .await
        .expect(ANSWERS)
        .expect("it is there");
    assert_eq!(
        loaded.state,
        State::Other {
            status: "BLOCKED".into()
        }
    );
    assert_eq!(loaded.status().to_string(), "BLOCKED");
    assert_eq!(
        (loaded.backlog_entry(), loaded.allocations()),
        (None, Vec::new()),
        "it is not launched on a guess"
    );
    let blocked = CancelDecision::NotKnown(ExecutionStatus::Other("BLOCKED".into()));
    assert_eq!(loaded.cancelled(&caller("bob"), at(9)), blocked);
    let page = store
        .list(&Filter::default(), None, 9)
        .await
        .expect(ANSWERS);
    assert!(matches!(&page.items[..], [Ok(listed)] if *listed == loaded));
}

pub(crate) async fn a_form_of_a_newer_version_is_not_read(store: impl Store, raw: impl Newer) {
    let execution = Wish::default().submit(&store).await;
    raw.raise_version(&execution.id).await;
    let error = store
        .load(&execution.id)
        .await
        .expect_err("it is of a newer release")
        .to_string();
    assert!(error.contains("a newer release of mycli wrote"), "{error}");
}

fn looking_at(state: &LimitState, next_look: Timestamp) -> LimitState {
    LimitState {
        backlog: BacklogState {
            next_look: Some(next_look),
            ..state.backlog.clone()
        },
        ..state.clone()
    }
}

pub(crate) async fn the_state_of_a_limit_that_cannot_be_read_is_made_anew(
    store: impl Store,
    raw: impl Newer,
) {
    let advice = looking_at(&LimitState::default(), at(7));
    assert!(
        store
            .set_limit_state(&POOL, &LimitState::default(), advice)
            .await
            .expect(ANSWERS)
    );
    raw.change_backlog_state(&POOL, Some("by the moon")).await;
    let read = store.limit_state(&POOL).await.expect(ANSWERS);
    assert_eq!((read.backlog.next_look, &read.backlog.held), (None, &None));
    let anew = looking_at(&read, at(8));
    assert!(
        store
            .set_limit_state(&POOL, &read, anew)
            .await
            .expect(ANSWERS)
    );
    assert_eq!(
        store
            .limit_state(&POOL)
            .await
            .expect(ANSWERS)
            .backlog
            .next_look,
        Some(at(8))
    );
}

pub(crate) async fn unknown_fields_of_a_limits_state_survive_a_rewrite(
    store: impl Store,
    raw: impl Newer,
) {
    let advice = looking_at(&LimitState::default(), at(7));
    assert!(
        store
            .set_limit_state(&POOL, &LimitState::default(), advice)
            .await
            .expect(ANSWERS)
    );
    raw.change_backlog_state(&POOL, None).await;
    let read = store.limit_state(&POOL).await.expect(ANSWERS);
    let next = looking_at(&read, at(8));
    assert!(
        store
            .set_limit_state(&POOL, &read, next)
            .await
            .expect(ANSWERS)
    );
    assert_eq!(raw.backlog_state_field(&POOL).await.as_deref(), Some("new"));
}
