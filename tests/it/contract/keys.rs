//! The rules of `domain::ports::Keys`.

use domain::{
    key::{KeyRecord, Role},
    ports::Keys,
    principal::Principal,
    stored::Unknown,
};

use super::records::at;

/// Makes a test of each rule, for the keys that `$fresh` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { keys, $fresh:
            a_key_is_found_by_its_id
            keys_are_listed_by_name
            a_name_is_taken_once
            a_removed_key_is_gone
            a_rotated_key_stays_as_long_as_the_new_one_says
            a_key_that_was_rotated_meanwhile_is_not_rotated_again
        }
    };
}
pub(crate) use suite;

const ANSWERS: &str = "the store answers";

fn key(name: &str, id: &str) -> KeyRecord {
    KeyRecord {
        id: id.into(),
        name: name.into(),
        role: Role::Submit,
        hash: format!("$2b$10$hash-of-{id}"),
        created_at: at(7),
        principal: Some(Principal::Key(id.into())),
        expires_at: None,
        previous: Vec::new(),
        unknown: Unknown::default(),
    }
}

pub(crate) async fn a_key_is_found_by_its_id(keys: impl Keys) {
    assert_eq!(keys.find_key("0123").await.expect(ANSWERS), None);
    assert!(keys.add_key(&key("ci", "0123")).await.expect(ANSWERS));
    assert!(keys.add_key(&key("ada", "4567")).await.expect(ANSWERS));
    assert_eq!(
        keys.find_key("0123").await.expect(ANSWERS),
        Some(key("ci", "0123"))
    );
    assert_eq!(
        keys.find_key("012").await.expect(ANSWERS),
        None,
        "a part of an id is no id"
    );
    assert_eq!(
        keys.find_key("ci").await.expect(ANSWERS),
        None,
        "a name is no id"
    );
}

pub(crate) async fn keys_are_listed_by_name(keys: impl Keys) {
    for (name, id) in [("zoe", "1"), ("ada", "3"), ("ci", "2")] {
        keys.add_key(&key(name, id)).await.expect(ANSWERS);
    }
    let names: Vec<_> = keys
        .list_keys()
        .await
        .expect(ANSWERS)
        .into_iter()
        .map(|key| key.name)
        .collect();
    assert_eq!(names, ["ada", "ci", "zoe"]);
}

pub(crate) async fn a_name_is_taken_once(keys: impl Keys) {
    assert!(keys.add_key(&key("ci", "1")).await.expect(ANSWERS));
    assert!(!keys.add_key(&key("ci", "2")).await.expect(ANSWERS));
    assert_eq!(
        keys.list_keys().await.expect(ANSWERS),
        [key("ci", "1")],
        "the first one stays as it was"
    );
    assert_eq!(keys.find_key("2").await.expect(ANSWERS), None);
}

pub(crate) async fn a_removed_key_is_gone(keys: impl Keys) {
    keys.add_key(&key("ci", "1")).await.expect(ANSWERS);
    keys.add_key(&key("ada", "2")).await.expect(ANSWERS);
    assert!(keys.remove_key("ci").await.expect(ANSWERS));
    assert!(!keys.remove_key("ci").await.expect(ANSWERS));
    assert_eq!(keys.find_key("1").await.expect(ANSWERS), None);
    assert_eq!(keys.list_keys().await.expect(ANSWERS), [key("ada", "2")]);
    assert!(
        keys.add_key(&key("ci", "3")).await.expect(ANSWERS),
        "the name is free again"
    );
}

async fn good(keys: &impl Keys) -> Vec<String> {
    let mut good = Vec::new();
    for id in ["1", "2", "3", "4", "5"] {
        good.extend(keys.find_key(id).await.expect(ANSWERS).map(|key| key.id));
    }
    good
}

/// Rotates the listed key.
async fn rotate(keys: &impl Keys, id: &str, until: i64, now: i64) {
    let old = keys.list_keys().await.expect(ANSWERS).remove(0);
    let (old, new) = old.rotated(key("of the record", id), at(until), at(now));
    assert!(keys.rotate_key(&old, &new).await.expect(ANSWERS));
    let listed = keys.list_keys().await.expect(ANSWERS);
    assert_eq!(listed, std::slice::from_ref(&new));
    assert_eq!(
        (&*new.name, new.principal(), new.expires_at),
        ("ci", Principal::Key("1".into()), None)
    );
}

/// A rotation's answer may be lost, and the key rotated again. The key that everybody still uses
/// stays valid as long as its own rotation said.
pub(crate) async fn a_rotated_key_stays_as_long_as_the_new_one_says(keys: impl Keys) {
    keys.add_key(&key("ci", "1")).await.expect(ANSWERS);
    rotate(&keys, "2", 100, 0).await;
    rotate(&keys, "3", 150, 50).await;
    assert_eq!(good(&keys).await, ["1", "2", "3"]);
    let first = keys
        .find_key("1")
        .await
        .expect(ANSWERS)
        .expect("it is there");
    assert_eq!(
        (first.is_good(at(99)), first.is_good(at(100))),
        (true, false)
    );
    rotate(&keys, "4", 210, 110).await;
    assert_eq!(good(&keys).await, ["2", "3", "4"], "one that is over goes");
    rotate(&keys, "5", 120, 120).await;
    assert_eq!(good(&keys).await, ["5"], "at once");
    rotate(&keys, "1", 300, 130).await;
    assert!(keys.remove_key("ci").await.expect(ANSWERS));
    assert_eq!(
        good(&keys).await,
        [""; 0],
        "a key that is revoked leaves none of before"
    );
}

pub(crate) async fn a_key_that_was_rotated_meanwhile_is_not_rotated_again(keys: impl Keys) {
    keys.add_key(&key("ci", "1")).await.expect(ANSWERS);
    let known = key("ci", "1");
    rotate(&keys, "2", 100, 0).await;
    let (old, new) = known.rotated(key("ci", "3"), at(100), at(0));
    assert!(!keys.rotate_key(&old, &new).await.expect(ANSWERS));
    assert_eq!(good(&keys).await, ["1", "2"]);
}
