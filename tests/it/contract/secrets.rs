//! The rules of `domain::ports::Secrets`.

use std::{fs, os::unix::fs::PermissionsExt};

use aws::dynamo::DynamoStore;
use domain::{key::Role, ports::Secrets, secret::SecretRecord};
use tempfile::TempDir;

/// Makes a test of each rule, for the secrets that `$fresh` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { secrets, $fresh:
            a_secret_that_is_set_is_known_by_its_name
            one_that_is_not_set_is_not_known_and_the_fix_is_a_command
            one_that_was_removed_is_not_known_any_more
        }
    };
}

const ANSWERS: &str = "the secrets answer";

/// Secrets that a test can set.
pub(crate) trait Kept {
    type Secrets: Secrets;
    fn secrets(&self) -> &Self::Secrets;
    async fn set(&self, name: &str);
    async fn remove(&self, name: &str);
}

/// Secrets in files that only their owner can read.
struct Files(local::secrets::SecretFiles, TempDir);

impl Kept for Files {
    type Secrets = local::secrets::SecretFiles;

    fn secrets(&self) -> &Self::Secrets {
        &self.0
    }

    async fn set(&self, name: &str) {
        let path = self.1.path().join(name);
        fs::write(&path, "a value").expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
    }

    async fn remove(&self, name: &str) {
        fs::remove_file(self.1.path().join(name)).expect("it was there");
    }
}

impl Kept for DynamoStore {
    type Secrets = Self;

    fn secrets(&self) -> &Self {
        self
    }

    async fn set(&self, name: &str) {
        let record = SecretRecord {
            name: name.into(),
            role: Role::Submit,
            set_at: None,
            hosts: Vec::new(),
        };
        self.put_secret(&record).await.expect(ANSWERS);
    }

    async fn remove(&self, name: &str) {
        assert!(
            self.remove_secret(name).await.expect(ANSWERS),
            "it was there"
        );
    }
}

async fn files() -> (Files, ()) {
    let dir = tempfile::tempdir().expect("a directory");
    (
        Files(local::secrets::SecretFiles::new(dir.path().to_owned()), dir),
        (),
    )
}

mod on_one_machine {
    suite!(super::files);
}

mod in_dynamodb {
    suite!(crate::contract::dynamo::fresh_store);
}

pub(crate) async fn a_secret_that_is_set_is_known_by_its_name(kept: impl Kept) {
    kept.set("TOKEN").await;
    let found = kept
        .secrets()
        .find_secret("TOKEN")
        .await
        .expect(ANSWERS)
        .expect("it is set");
    assert_eq!((found.name.as_str(), found.role), ("TOKEN", Role::Submit));
    assert_eq!(
        kept.secrets().find_secret("TOKE").await.expect(ANSWERS),
        None
    );
}

pub(crate) async fn one_that_is_not_set_is_not_known_and_the_fix_is_a_command(kept: impl Kept) {
    assert_eq!(
        kept.secrets().find_secret("TOKEN").await.expect(ANSWERS),
        None
    );
    let remedy = kept.secrets().how_to_set("TOKEN");
    assert!(
        remedy.contains("`mycli ") && remedy.contains("secrets set TOKEN`"),
        "{remedy}"
    );
}

pub(crate) async fn one_that_was_removed_is_not_known_any_more(kept: impl Kept) {
    kept.set("TOKEN").await;
    kept.set("OTHER").await;
    kept.remove("TOKEN").await;
    assert_eq!(
        kept.secrets().find_secret("TOKEN").await.expect(ANSWERS),
        None
    );
    assert!(
        kept.secrets()
            .find_secret("OTHER")
            .await
            .expect(ANSWERS)
            .is_some()
    );
}
