//! Properties of every request, whatever a user writes.

use std::collections::BTreeMap;

use domain::request::{
    Arch, Changes, CommandLine, Defaults, GitRef, ImageRef, LaunchRequest, Place, RepoKind,
    RepoUrl, Scalar, SubmitRequest, Timeout,
};
use proptest::prelude::*;

/// Texts close to a repository URL: pieces of the valid forms, with the characters that attacks
/// use.
fn repo_text() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(vec![
        "", "https://", "http://", "ssh://", "file://", "git://", "ext::", "/",
    ]);
    let user = prop::sample::select(vec!["", "git@", "-o@", "a:b@", "%2d@", "@"]);
    let host = prop_oneof![
        "[a-z%.-]{0,8}",
        Just("[::1]".to_owned()),
        Just("localhost".to_owned())
    ];
    let middle = prop::sample::select(vec!["/", ":", ":22/", ":-", "/-", "::", ""]);
    let path = "[a-z/%.~:@ -]{0,10}";
    (scheme, user, host, middle, path).prop_map(|(scheme, user, host, middle, path)| {
        format!("{scheme}{user}{host}{middle}{path}")
    })
}

/// Texts of characters that occur in refs, and of characters that must not.
fn ref_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9/.@{}~^ _-]{0,12}",
        "-{0,2}[a-z]{1,8}(/[a-z]{1,8}){0,2}",
        "\\PC{0,8}"
    ]
}

fn image_text() -> impl Strategy<Value = String> {
    let registry = "(([a-zA-Z0-9-]{1,6}(\\.[a-z]{1,3})?|\\[::1\\])(:[0-9x]{0,4})?/)?";
    let path = "[a-zA-Z0-9._-]{1,8}(/[a-z0-9._-]{1,8}){0,2}";
    let tail = "(:[\\w.-]{0,6})?(@sha256:[0-9a-f]{64})?";
    (registry, path, tail).prop_map(|(registry, path, tail)| format!("{registry}{path}{tail}"))
}

/// The words that git or ssh receive for a repository's URL. They are split as `git` does it,
/// independently of mycli's code.
fn words_for_git(repo: &RepoUrl) -> Vec<String> {
    let text = repo.as_str();
    let mut words = vec![text.to_owned()];
    match repo.kind() {
        RepoKind::ScpLike => {
            let (host, path) = text.split_once(':').unwrap_or((text, ""));
            words.extend([host.to_owned(), path.to_owned()]);
            words.extend(host.split('@').map(str::to_owned));
        }
        RepoKind::Ssh | RepoKind::Http | RepoKind::Https => {
            let decoded = text.replace("%2d", "-").replace("%2D", "-");
            let rest = decoded
                .split_once("://")
                .map_or(decoded.as_str(), |(_, rest)| rest);
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            words.extend([
                authority.to_owned(),
                path.trim_start_matches('/').to_owned(),
            ]);
            words.extend(authority.split('@').map(str::to_owned));
        }
        RepoKind::File | RepoKind::Path => {}
    }
    words
}

/// Requests as users write them. Many are valid.
fn submit_request() -> impl Strategy<Value = SubmitRequest> {
    let places = (
        prop::option::of(prop::sample::select(vec![
            "https://github.com/me/project",
            "git@host:a/b",
            "/srv/a",
            "ssh://h/a",
        ])),
        prop::option::of(ref_text()),
        prop::option::of(image_text()),
    );
    let command = prop_oneof![
        "\\PC{1,20}".prop_map(CommandLine::from),
        prop::collection::vec("\\PC{0,8}", 0..4).prop_map(CommandLine::Words),
    ];
    let data = (
        command,
        prop::collection::btree_map("[A-Z]{1,4}", "\\PC{0,8}", 0..3),
        prop::collection::vec("[a-z]{1,4}", 0..3),
    );
    let size = (
        prop::option::of(prop::sample::select(vec![256, 512, 1024, 2048, 3000])),
        prop::option::of(prop::sample::select(vec![512, 1024, 2048, 4096, 8192])),
        prop::option::of(0..700_000_u32),
    );
    let rest = (
        prop::option::of(-110..110_i64),
        prop::option::of(-1..12_i64),
        prop::collection::vec(prop::sample::select(vec!["spot", "host", "failure"]), 0..3),
        prop::option::of("[a-z.-]{1,5}"),
        prop::option::of(prop::sample::select(vec!["1", "7", "full", "0"])),
        prop::option::of(any::<bool>()),
    );
    (places, data, size, rest).prop_map(
        |((repo, branch, image), (command, env, secrets), (cpu, memory, timeout), rest)| {
            let (priority, retries, retry_on, lock, depth, submodules) = rest;
            SubmitRequest {
                command: Some(command),
                branch: branch.filter(|_| repo.is_some()),
                depth: depth.filter(|_| repo.is_some()).map(Into::into),
                submodules: submodules.filter(|_| repo.is_some()),
                repo: repo.map(str::to_owned),
                image,
                env: env.into_iter().collect::<BTreeMap<_, _>>(),
                secrets,
                timeout: timeout.map(|seconds| Scalar::from(seconds.to_string())),
                cpu: cpu.map(|units: u32| Scalar::from(units.to_string())),
                memory: memory.map(|megabytes: u32| Scalar::from(megabytes.to_string())),
                priority,
                retries,
                retry_on: retry_on.into_iter().map(str::to_owned).collect(),
                lock,
                ..SubmitRequest::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn an_accepted_repository_has_no_word_that_git_reads_as_an_option(text in repo_text(), aws in any::<bool>()) {
        let place = if aws { Place::Aws } else { Place::OneMachine };
        if let Ok(repo) = RepoUrl::parse(&text, place) {
            for word in words_for_git(&repo) {
                prop_assert!(!word.starts_with('-'), "{text:?} has {word:?}");
            }
            prop_assert!(!text.contains(|c: char| c.is_control()));
            let transport = text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            prop_assert!(!text[transport.len()..].starts_with("::"), "{text:?} names a transport helper");
        }
    }

    #[test]
    fn an_accepted_ref_is_never_an_option_or_another_revision(text in ref_text()) {
        if let Ok(reference) = text.parse::<GitRef>() {
            prop_assert!(!reference.as_str().starts_with('-'));
            for operator in ["..", "~", "^", ":", "@{", " ", "//"] {
                prop_assert!(!text.contains(operator), "{text:?} holds {operator:?}");
            }
        }
    }

    #[test]
    fn an_accepted_image_is_shown_as_it_was_written(text in image_text()) {
        if let Ok(image) = text.parse::<ImageRef>() {
            prop_assert_eq!(image.to_string(), text.clone());
            prop_assert_eq!(serde_json::to_value(&image).unwrap(), text);
        }
    }

    #[test]
    fn no_text_whatever_makes_a_check_panic(text in any::<String>()) {
        let request = SubmitRequest {
            command: Some(text.clone().into()),
            repo: Some(text.clone()),
            branch: Some(text.clone()),
            depth: Some(text.clone().into()),
            image: Some(text.clone()),
            env: BTreeMap::from([(text.clone(), text.clone())]),
            secrets: vec![text.clone()],
            timeout: Some(text.clone().into()),
            cpu: Some(text.clone().into()),
            memory: Some(text.clone().into()),
            arch: Some(text.clone()),
            lock: Some(text.clone()),
            idempotency_key: Some(text.clone()),
            task_role: Some(text.clone()),
            registry_secret: Some(text),
            ..SubmitRequest::default()
        };
        let _ = format!("{request:?}");
        // A made-up architecture is always a fault.
        prop_assert!(request.validate(&Defaults::aws()).is_err_and(|faults| faults.iter().any(|fault| fault.field == "arch")));
    }

    #[test]
    fn a_validated_request_survives_storage_and_being_asked_for_again(request in submit_request(), aws in any::<bool>()) {
        let defaults = if aws { Defaults::aws() } else { Defaults::one_machine(Arch::X86_64) };
        let text = serde_json::to_string(&request).unwrap();
        prop_assert_eq!(&serde_json::from_str::<SubmitRequest>(&text).unwrap(), &request);
        if let Ok(launch) = request.validate(&defaults) {
            let stored = serde_json::to_string(&launch).unwrap();
            prop_assert_eq!(&serde_json::from_str::<LaunchRequest>(&stored).unwrap(), &launch);
            // The stack's defaults may have changed since.
            let changed = Defaults { timeout: Timeout::MAX, arch: Arch::Arm64, ..defaults };
            prop_assert_eq!(SubmitRequest::from(&launch).validate(&changed), Ok(launch));
        }
    }

    #[test]
    fn changing_nothing_asks_for_the_same_again(request in submit_request(), aws in any::<bool>()) {
        let defaults = if aws { Defaults::aws() } else { Defaults::one_machine(Arch::X86_64) };
        if let Ok(launch) = request.validate(&defaults) {
            prop_assert_eq!(Changes::default().applied_to(&launch).validate(&defaults), Ok(launch));
        }
    }

    #[test]
    fn changing_everything_leaves_nothing_but_other_variables(
        (before, after) in (submit_request(), submit_request()), aws in any::<bool>(),
    ) {
        let defaults = if aws { Defaults::aws() } else { Defaults::one_machine(Arch::X86_64) };
        if let (Ok(before), Ok(after)) = (before.validate(&defaults), after.validate(&defaults)) {
            let wanted = SubmitRequest::from(&after);
            let changed = Changes {
                // What the later request lacks has to be set explicitly.
                repo: Some(wanted.repo.clone().unwrap_or_default()),
                secrets: Some(wanted.secrets.clone()),
                retry_on: Some(wanted.retry_on.clone()),
                ..Changes::from(wanted.clone())
            }
            .applied_to(&before);
            let mut expected = wanted;
            for (name, value) in before.env.iter() {
                expected.env.entry(name.to_string()).or_insert_with(|| value.to_owned());
            }
            expected.image = expected.image.or_else(|| before.image.as_ref().map(ToString::to_string));
            expected.lock = expected.lock.or_else(|| before.lock.as_ref().map(ToString::to_string));
            prop_assert_eq!(changed, expected);
        }
    }

    #[test]
    fn each_change_survives_its_json(request in submit_request()) {
        let changes = Changes::from(request);
        let text = serde_json::to_string(&changes).unwrap();
        prop_assert_eq!(serde_json::from_str::<Changes>(&text).unwrap(), changes);
    }
}
