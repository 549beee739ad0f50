//! The rules of `domain::ports::Definitions`.

use domain::ports::Definitions;

use super::{records::at, store::at_once};

/// Makes a test of each rule, for the definitions that `$fresh` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { definitions, $fresh:
            a_definition_is_kept_under_its_hash
            of_many_one_has_the_turn
            a_turn_ends
            what_is_registered_needs_no_turn
            only_the_arn_that_is_gone_is_forgotten
        }
    };
}
pub(crate) use suite;

const ANSWERS: &str = "the store answers";

pub(crate) async fn a_definition_is_kept_under_its_hash(definitions: impl Definitions) {
    assert_eq!(definitions.definition("a").await.expect(ANSWERS), None);
    definitions
        .keep_definition("a", "arn:1")
        .await
        .expect(ANSWERS);
    definitions
        .keep_definition("b", "arn:2")
        .await
        .expect(ANSWERS);
    assert_eq!(
        definitions.definition("a").await.expect(ANSWERS).as_deref(),
        Some("arn:1")
    );
    definitions
        .keep_definition("a", "arn:3")
        .await
        .expect(ANSWERS);
    assert_eq!(
        definitions.definition("a").await.expect(ANSWERS).as_deref(),
        Some("arn:3")
    );
}

pub(crate) async fn of_many_one_has_the_turn(definitions: impl Definitions + Clone + 'static) {
    let turns = at_once(&definitions, 20, |definitions, _| async move {
        definitions
            .claim_definition("a", at(0), at(5_000))
            .await
            .expect(ANSWERS)
    });
    assert_eq!(turns.await.into_iter().filter(|turn| *turn).count(), 1);
    assert!(
        definitions
            .claim_definition("b", at(0), at(5_000))
            .await
            .expect(ANSWERS),
        "another content is free"
    );
    assert_eq!(
        definitions.definition("a").await.expect(ANSWERS),
        None,
        "a turn is no definition"
    );
}

pub(crate) async fn a_turn_ends(definitions: impl Definitions) {
    assert!(
        definitions
            .claim_definition("a", at(0), at(5_000))
            .await
            .expect(ANSWERS)
    );
    assert!(
        !definitions
            .claim_definition("a", at(4_999), at(9_999))
            .await
            .expect(ANSWERS)
    );
    assert!(
        definitions
            .claim_definition("a", at(5_000), at(10_000))
            .await
            .expect(ANSWERS)
    );
}

pub(crate) async fn what_is_registered_needs_no_turn(definitions: impl Definitions) {
    definitions
        .keep_definition("a", "arn:1")
        .await
        .expect(ANSWERS);
    assert!(
        !definitions
            .claim_definition("a", at(0), at(5_000))
            .await
            .expect(ANSWERS)
    );
    assert_eq!(
        definitions.definition("a").await.expect(ANSWERS).as_deref(),
        Some("arn:1")
    );
}

pub(crate) async fn only_the_arn_that_is_gone_is_forgotten(definitions: impl Definitions) {
    definitions
        .keep_definition("a", "arn:2")
        .await
        .expect(ANSWERS);
    definitions
        .forget_definition("a", "arn:1")
        .await
        .expect(ANSWERS);
    assert_eq!(
        definitions.definition("a").await.expect(ANSWERS).as_deref(),
        Some("arn:2"),
        "another was kept by then"
    );
    definitions
        .forget_definition("a", "arn:2")
        .await
        .expect(ANSWERS);
    assert_eq!(definitions.definition("a").await.expect(ANSWERS), None);
    assert!(
        definitions
            .claim_definition("a", at(0), at(5_000))
            .await
            .expect(ANSWERS),
        "it can be registered again"
    );
}
