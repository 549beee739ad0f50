//! The rules of `domain::ports::Keys`.

use domain::{
    key::{KeyRecord, Role},
    ports::Keys,
    principal::Principal,
    stored::Unknown,
};

use super::records::at;

/// Makes a test of each rule for the keys that the function makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { keys, $fresh:
            a_key_is_found_by_its_id
            keys_are_listed_by_name
            a_name_is_taken_once
            a_removed_key_is_gone
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
        previous: None,
        unknown: Unknown::default(),
    }
}

pub(crate) async fn a_key_is_found_by_its_id(keys: impl Keys) {
    assert_eq!(keys.find_key("0123").await.expect(ANSWERS), None);
    assert!(keys.add_key(&key("ci", "0123")).await.expect(ANSWERS));
    assert!(keys.add_key(&key("ada", "4567")).await.expect(ANSWERS));
    assert_eq!(keys.find_key("0123").await.expect(ANSWERS), Some(key("ci", "0123")));
    assert_eq!(keys.find_key("012").await.expect(ANSWERS), None, "a part of an id is no id");
    assert_eq!(keys.find_key("ci").await.expect(ANSWERS), None, "a name is no id");
}

pub(crate) async fn keys_are_listed_by_name(keys: impl Keys) {
    for (name, id) in [("zoe", "1"), ("ada", "3"), ("ci", "2")] {
        keys.add_key(&key(name, id)).await.expect(ANSWERS);
    }
    let names: Vec<_> = keys.list_keys().await.expect(ANSWERS).into_iter().map(|key| key.name).collect();
    assert_eq!(names, ["ada", "ci", "zoe"]);
}

pub(crate) async fn a_name_is_taken_once(keys: impl Keys) {
    assert!(keys.add_key(&key("ci", "1")).await.expect(ANSWERS));
    assert!(!keys.add_key(&key("ci", "2")).await.expect(ANSWERS));
    assert_eq!(keys.list_keys().await.expect(ANSWERS), [key("ci", "1")], "the first one stays as it was");
    assert_eq!(keys.find_key("2").await.expect(ANSWERS), None);
}

pub(crate) async fn a_removed_key_is_gone(keys: impl Keys) {
    keys.add_key(&key("ci", "1")).await.expect(ANSWERS);
    keys.add_key(&key("ada", "2")).await.expect(ANSWERS);
    assert!(keys.remove_key("ci").await.expect(ANSWERS));
    assert!(!keys.remove_key("ci").await.expect(ANSWERS));
    assert_eq!(keys.find_key("1").await.expect(ANSWERS), None);
    assert_eq!(keys.list_keys().await.expect(ANSWERS), [key("ada", "2")]);
    assert!(keys.add_key(&key("ci", "3")).await.expect(ANSWERS), "the name is free again");
}
