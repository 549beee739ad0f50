//! What is checked out for each ref.

use std::os::unix::fs::chown;

use domain::marker::Marker;

use super::{
    server::Origin,
    stage::{SHELLS, Shell, Stage},
};

/// Each name of [`Origin`], and the content of its file there.
fn names(origin: &Origin) -> Vec<(String, &'static str)> {
    let full = origin.commit("v1");
    let fixed = [
        ("", "main"),
        ("main", "main"),
        ("v1", "old"),
        ("noted", "old"),
        ("feature/a", "old"),
        ("twin", "twin branch"),
        ("refs/tags/twin", "twin tag"),
        ("refs/pull/1/head", "pulled"),
    ];
    let mut all: Vec<_> = fixed.map(|(name, text)| (name.to_owned(), text)).into();
    all.push((full[..7].to_owned(), "old"));
    all.push((full, "old"));
    all.push((origin.commit("refs/pull/1/head"), "pulled"));
    all
}

#[test]
fn every_kind_of_name_is_found() {
    let origin = Origin::new();
    for shell in SHELLS {
        for (name, text) in names(&origin) {
            let outcome = Stage::new(shell, "cat f; echo $MYCLI_COMMIT")
                .repo(origin.path(), &name)
                .play();
            let reference = if name.is_empty() {
                "HEAD"
            } else {
                name.as_str()
            };
            let reference = if name == "twin" {
                "refs/heads/twin"
            } else {
                reference
            };
            let commit = origin.commit(reference);
            assert_eq!(
                outcome.out(),
                format!("{text}\n{commit}\n"),
                "{shell:?} {name}: {outcome:?}"
            );
            let markers = [
                Marker::SetUp,
                Marker::Commit(commit),
                Marker::Start,
                Marker::Exit(0),
            ];
            assert_eq!(
                (outcome.err(), &outcome.markers[..]),
                (String::new(), &markers[..]),
                "{shell:?} {name}"
            );
        }
    }
}

#[test]
fn the_clone_is_shallow_on_its_branch_and_named_after_the_repository() {
    let origin = Origin::new();
    for shell in SHELLS {
        let command = "git rev-list --count HEAD; git branch --show-current; git status --porcelain; basename \"$PWD\"; ls -A ..";
        let outcome = Stage::new(shell, command)
            .repo(origin.path(), "main")
            .play();
        assert_eq!(
            outcome.out(),
            "1\nmain\nproject\nproject\n",
            "{shell:?}: {outcome:?}"
        );
    }
}

#[test]
fn a_branch_cannot_stand_in_for_the_commit_that_it_is_named_after() {
    let origin = Origin::new();
    let pinned = origin.commit("v1");
    let forged = origin.path().join("refs/heads").join(&pinned);
    std::fs::create_dir_all(forged.parent().unwrap()).unwrap();
    std::fs::write(forged, origin.commit("main")).unwrap();
    let outcome = Stage::new(Shell::Dash, "cat f")
        .repo(origin.path(), &pinned)
        .play();
    assert_eq!(outcome.out(), "old\n", "{outcome:?}");
}

#[test]
fn a_name_that_is_not_there_is_named() {
    let origin = Origin::new();
    for shell in SHELLS {
        for name in [
            "nope",
            "0123456",
            "0123456789012345678901234567890123456789",
            "refs/heads/nope",
            "-x",
        ] {
            let outcome = Stage::new(shell, "echo ran")
                .repo(origin.path(), name)
                .play();
            let expected = format!(
                "no branch, tag or commit {name} in {}",
                origin.path().display()
            );
            assert_eq!(outcome.failure(), expected, "{shell:?}");
            assert_eq!(
                (outcome.out(), outcome.files()),
                (String::new(), Vec::new()),
                "{shell:?}"
            );
        }
    }
}

#[test]
fn a_repository_that_is_not_there_is_gits_own_word() {
    for shell in SHELLS {
        let outcome = Stage::new(shell, "echo ran")
            .repo("/nowhere/at/all", "")
            .play();
        assert!(
            outcome
                .failure()
                .contains("does not appear to be a git repository"),
            "{shell:?}: {outcome:?}"
        );
    }
}

#[test]
fn another_users_repository_can_be_cloned_by_path_and_by_file_url() {
    let origin = Origin::new();
    for entry in ["", "objects", "refs", "config", "HEAD"] {
        chown(origin.path().join(entry), Some(4242), Some(4242)).unwrap();
    }
    for url in [
        origin.path().display().to_string(),
        format!("file://{}", origin.path().display()),
    ] {
        for name in [String::new(), "v1".into(), "abcdef0".into()] {
            let outcome = Stage::new(Shell::Dash, "cat f").repo(&url, &name).play();
            match name.as_str() {
                "abcdef0" => assert!(
                    outcome.failure().starts_with("no branch"),
                    "{url}: {outcome:?}"
                ),
                _ => assert_eq!(outcome.code, 0, "{url} {name}: {outcome:?}"),
            }
        }
    }
}

#[test]
fn a_user_without_rights_clones_into_the_temporary_directory() {
    let origin = Origin::new();
    std::fs::set_permissions(
        origin.path().parent().unwrap(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    for shell in SHELLS {
        let stage = Stage::new(shell, "id -u; pwd; cat f")
            .repo(origin.path(), "")
            .env("HOME", "/root")
            .env("MYCLI_WORKDIR", "");
        let clone = stage.directory("tmp").display().to_string();
        let outcome = stage.with_user(4343).play();
        let out = outcome.out();
        assert!(
            out.starts_with(&format!("4343\n{clone}/")) && out.ends_with("main\n"),
            "{shell:?}: {outcome:?}"
        );
    }
}

#[test]
fn a_work_directory_that_cannot_be_written_is_named() {
    let origin = Origin::new();
    let outcome = Stage::new(Shell::Dash, "true")
        .repo(origin.path(), "")
        .env("MYCLI_WORKDIR", "/proc")
        .play();
    assert!(
        outcome
            .failure()
            .starts_with("cannot clone: no writable directory at /proc"),
        "{outcome:?}"
    );
}
