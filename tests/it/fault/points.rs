//! Every crash point in the code.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Mutex,
    thread,
    time::Instant,
};

use super::{
    stories::{IN_CONTAINERS, ON_HOST, Story},
    world::World,
};

/// How many stories run at once. A story spends most of its time waiting.
const AT_ONCE: usize = 4;

/// Collects the names in `failpoint!("…")`, outside of comments.
fn names(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("the sources are there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            names(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source is text");
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let calls = code.flat_map(|line| line.split("failpoint!(\"").skip(1));
            found.extend(
                calls
                    .filter_map(|rest| rest.split_once('"'))
                    .map(|(name, _)| name.to_owned()),
            );
        }
    }
}

/// A story in which the program dies at a point.
struct Case {
    name: String,
    point: String,
    story: &'static Story,
}

/// Every story that may reach a point, for the first and the second time that it is reached.
fn all_cases(name: &str) -> Vec<Case> {
    let (stories, hits) = if is_in_containers(name) {
        (IN_CONTAINERS, 1)
    } else {
        (ON_HOST, 2)
    };
    let points = (1..=hits).map(|hit| format!("{name}:{hit}"));
    points
        .flat_map(|point| stories.iter().map(move |story| (point.clone(), story)))
        .map(|(point, story)| Case {
            name: name.to_owned(),
            point,
            story,
        })
        .collect()
}

/// The cases that there is time for: the stories that run at every point, one of the others in
/// turn, and for some points the only story that reaches them.
fn chosen_cases(name: &str, turn: usize) -> Vec<Case> {
    let others: &[&str] = match name.split('.').next() {
        Some("container") => {
            return all_cases(name)
                .into_iter()
                .filter(|case| case.story.is_for(name))
                .collect();
        }
        Some("queue") => &["dead letters"],
        _ if name.contains("prune") => &["prune"],
        _ if name.contains("group_work") => &[
            "serve, submit, cancel the group",
            "rerun what failed of a group",
        ],
        _ if name.contains("_key") => &["serve with a new key"],
        _ if name.contains("submission") || name.contains("create_all") => &["bulk"],
        _ => &[
            "exec that fails",
            "exec --timeout",
            "taking over what runs",
            "prune",
            "dead letters",
        ],
    };
    // A detached `exec` reaches a `machine.` point once.
    let detached = if name.starts_with("machine.") {
        "exec --detach:1"
    } else {
        "exec --detach:2"
    };
    let always = [
        "exec on a repository:1",
        "taking over what was recorded:1",
        "serve, submit, cancel:1",
        detached,
    ];
    let other = format!("{}:1", others[turn % others.len()]);
    let wanted = |case: &Case| {
        let (_, hit) = case.point.rsplit_once(':').expect("a hit");
        let told = format!("{}:{hit}", case.story.name);
        told == other || always.contains(&told.as_str())
    };
    all_cases(name).into_iter().filter(wanted).collect()
}

#[derive(Default)]
struct Told {
    died: BTreeMap<String, usize>,
    failures: Vec<String>,
    slowest: BTreeSet<(u128, String)>,
}

fn tell(case: &Case, told: &Mutex<Told>) {
    let (since, label) = (
        Instant::now(),
        format!("{} at {}", case.story.name, case.point),
    );
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let world = World::new(case.story.engine);
        let died = (case.story.play)(&world, &case.point);
        world.recovers();
        died
    }));
    let mut told = told.lock().expect("no panic in here");
    told.slowest
        .insert((since.elapsed().as_millis(), label.clone()));
    match outcome {
        Ok(died) => *told.died.entry(case.name.clone()).or_default() += usize::from(died),
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into()));
            told.failures
                .push(format!("{label}: {}", said.unwrap_or_default()));
        }
    }
}

/// Whether a point is reached only with a container engine.
fn is_in_containers(name: &str) -> bool {
    name.starts_with("container.")
}

/// Whether a point is in the store of records.
fn is_in_store(name: &str) -> bool {
    name.starts_with("store.")
}

#[test]
fn nothing_is_lost_or_started_twice_whatever_the_crash_point_in_the_store() {
    check(is_in_store, chosen_cases);
}

#[test]
fn nothing_is_lost_or_started_twice_whatever_the_crash_point_elsewhere_on_the_host() {
    let elsewhere = |name: &str| !is_in_containers(name) && !is_in_store(name);
    check(elsewhere, chosen_cases);
}

/// The steps that prepare what a container needs, as parts of a crash point's name.
const PREPARING: [&str; 5] = [".program", ".workspace", ".fetch", ".user", ".artifacts"];
/// The calls to the container engine that make a container.
const MAKING: [&str; 4] = [".version", ".image", ".create", ".start"];
/// The calls that follow a container to its end.
const WATCHING: [&str; 4] = [".logs", ".drain", ".wait", ".poll"];

/// Whether a point is one of these calls. `container.image.inspect` is about the image, so it is
/// not.
fn is_one_of(calls: &[&str], name: &str) -> bool {
    name.strip_prefix("container")
        .is_some_and(|call| calls.iter().any(|prefix| call.starts_with(prefix)))
}

// The engine starts one container after the other. So the points are split into four tests, each
// with nextest's limit of five minutes.
#[test]
fn nothing_is_lost_or_started_twice_whatever_the_crash_point_of_preparing_a_container() {
    check(|name| is_one_of(&PREPARING, name), chosen_cases);
}

#[test]
fn nothing_is_lost_or_started_twice_whatever_the_crash_point_of_making_a_container() {
    check(|name| is_one_of(&MAKING, name), chosen_cases);
}

#[test]
fn nothing_is_lost_or_started_twice_whatever_the_crash_point_of_watching_a_container() {
    check(|name| is_one_of(&WATCHING, name), chosen_cases);
}

#[test]
fn nothing_is_lost_or_started_twice_whatever_the_crash_point_of_finding_or_ending_a_container() {
    check(
        |name| {
            let others = [&PREPARING[..], &MAKING, &WATCHING];
            is_in_containers(name) && !others.iter().any(|calls| is_one_of(calls, name))
        },
        chosen_cases,
    );
}

#[test]
#[ignore = "nightly: ten minutes"]
fn nothing_is_lost_or_started_twice_in_any_story() {
    check(|_| true, |name, _| all_cases(name));
}

#[track_caller]
#[expect(
    clippy::print_stdout,
    reason = "how many of how many is what the test is run for"
)]
fn check(wanted: impl Fn(&str) -> bool, cases: impl Fn(&str, usize) -> Vec<Case>) {
    let mut points = BTreeSet::new();
    names(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/local/src"),
        &mut points,
    );
    points.retain(|name| wanted(name));
    let queue: VecDeque<Case> = points
        .iter()
        .enumerate()
        .flat_map(|(turn, name)| cases(name, turn))
        .collect();
    let (queue, told) = (Mutex::new(queue), Mutex::new(Told::default()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().expect("no panic in here").pop_front() else {
                        return;
                    };
                    tell(&case, &told);
                }
            });
        }
    });
    let told = told.into_inner().expect("no panic in here");
    let reached = told.died.values().filter(|deaths| **deaths > 0).count();
    println!("crash points: {reached} of {}", points.len());
    for (millis, label) in told.slowest.iter().rev().take(12) {
        println!("{millis} ms: {label}");
    }
    let unreached: Vec<_> = points
        .iter()
        .filter(|name| told.died.get(*name).is_none_or(|deaths| *deaths == 0))
        .collect();
    let failures = told.failures.join("\n");
    assert!(
        told.failures.is_empty() && unreached.is_empty(),
        "{} stories ended badly:\n{failures}\nno story that ended well comes by {unreached:?}",
        told.failures.len()
    );
}
