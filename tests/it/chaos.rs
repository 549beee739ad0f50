//! The whole pipeline under faults, on virtual time: no rule of DESIGN §4 is ever broken.

use std::ops::Range;

use tests::simulation::chaos::{self, LaunchPlan};

/// Runs a plan. If a rule is broken, it prints the story and the command that repeats it.
#[track_caller]
fn holds(plan: &LaunchPlan, again: &str) -> chaos::Outcome {
    let outcome = chaos::run(plan);
    if !outcome.broken.is_empty() {
        let story = chaos::tell(plan).story.join("\n");
        panic!(
            "{story}\n\nbroken:\n{}\n\nagain: {again}",
            outcome.broken.join("\n")
        );
    }
    outcome
}

/// Runs CI's seeds. They are always the same, so a failure comes from the change under test. `just
/// simulate` runs more.
#[track_caller]
fn seeds(range: Range<u64>) {
    for seed in range {
        let _ = holds(&LaunchPlan::drawn(seed), &format!("just simulate 1 {seed}"));
    }
}

#[test]
fn in_fair_weather_everything_ends_as_it_should() {
    let outcome = holds(&LaunchPlan::small(), "just test in_fair_weather");
    assert_eq!(outcome.tasks, 4, "four runs, four tasks: {outcome:?}");
}

#[test]
fn the_same_seed_is_the_same_story() {
    let [one, other] = [
        chaos::tell(&LaunchPlan::drawn(3)),
        chaos::tell(&LaunchPlan::drawn(3)),
    ];
    assert_eq!(one.story, other.story);
    assert_ne!(one.story, chaos::tell(&LaunchPlan::drawn(4)).story);
}

/// The process dies at each await of each handler and of the sweep in turn, in the middle of
/// whatever it is doing.
#[test]
fn a_process_that_dies_at_any_await_loses_and_doubles_nothing() {
    let awaits = chaos::run(&LaunchPlan::small()).awaits;
    assert!(awaits > 300, "{awaits} awaits are not all there are");
    for number in 0..awaits {
        let plan = LaunchPlan {
            crash_at: Some(number),
            ..LaunchPlan::small()
        };
        let _ = holds(&plan, &format!("the crash at await {number} of {awaits}"));
    }
}

/// One request cancels ten thousand waiting executions under any faults. From one second after its
/// answer none starts, and all of them end.
#[test]
fn ten_thousand_waiting_are_cancelled_by_one_request_in_bad_weather() {
    for seed in [7, 21, 42] {
        let plan = LaunchPlan::ten_thousand_cancelled(seed);
        let outcome = holds(&plan, &format!("Plan::ten_thousand_cancelled({seed})"));
        assert!(
            outcome.tasks < 2_000,
            "{} were started before the cancel came",
            outcome.tasks
        );
    }
}

/// Each failed execution is rerun once, whatever dies, is lost or arrives twice in between.
#[test]
fn five_hundred_that_failed_are_run_again_by_one_request_in_bad_weather() {
    for seed in [7, 21, 42] {
        let plan = LaunchPlan::a_thousand_rerun(seed);
        let outcome = holds(&plan, &format!("Plan::a_thousand_rerun({seed})"));
        assert!(outcome.tasks > 1_400, "{} tasks are not all", outcome.tasks);
    }
}

#[test]
fn no_rule_is_broken_in_the_first_quarter_of_the_seeds() {
    seeds(0..500);
}

#[test]
fn no_rule_is_broken_in_the_second_quarter_of_the_seeds() {
    seeds(500..1_000);
}

#[test]
fn no_rule_is_broken_in_the_third_quarter_of_the_seeds() {
    seeds(1_000..1_500);
}

#[test]
fn no_rule_is_broken_in_the_last_quarter_of_the_seeds() {
    seeds(1_500..2_000);
}
