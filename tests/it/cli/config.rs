//! Endpoint and key: where they come from, and which servers and users may see them.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, process::Stdio};

use super::stand_in::{ID, KEY, Mycli, Ran, Reply, StandIn, record};

fn any_run() -> StandIn {
    StandIn::new(|_| Reply::json(&record("RUNNING", None, None)))
}

#[track_caller]
fn set_key(mycli: &Mycli, key: &str) -> Ran {
    let mut command = mycli.command(&["config", "set", "key"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mycli runs");
    child
        .stdin
        .take()
        .expect("mycli runs")
        .write_all(key.as_bytes())
        .expect("mycli runs");
    Ran::from(child.wait_with_output().expect("mycli runs"))
}

#[test]
fn a_first_run_hears_of_the_two_ways_to_go() {
    for arguments in [&["status"][..], &["history"], &["logs"]] {
        let ran = Mycli::unconfigured().run(arguments).exits(1).prints("");
        for way in [
            "--local",
            "--endpoint",
            "MYCLI_ENDPOINT",
            "MYCLI_API_KEY",
            "config",
        ] {
            assert!(ran.err.contains(way), "no {way} in {ran:#?}");
        }
    }
    Mycli::unconfigured()
        .run(&["exec", "--no-repo", "make"])
        .exits(125)
        .says("--local exec");
}

#[test]
fn what_is_set_is_used_and_belongs_to_the_user_alone() {
    let (api, mycli) = (any_run(), Mycli::unconfigured());
    mycli
        .run(&["config", "set", "endpoint", &api.endpoint])
        .exits(0);
    mycli.run(&["status", ID]).exits(1).says("no API key");
    set_key(&mycli, &format!("{KEY}\n")).exits(0);
    assert_eq!(
        fs::metadata(mycli.config()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    mycli.run(&["status", ID]).exits(0);
    assert_eq!(
        api.asked()[0].headers["authorization"],
        format!("Bearer {KEY}")
    );
    let shown = mycli.run(&["config", "show"]).exits(0);
    assert!(
        shown.out.contains(&api.endpoint) && !shown.out.contains(KEY),
        "{shown:#?}"
    );
    mycli.run(&["config", "unset", "key"]).exits(0);
    mycli.run(&["status", ID]).exits(1).says("no API key");
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let mycli = Mycli::unconfigured();
    mycli
        .run(&["config", "set", "endpoint", "https://stack.example/prod"])
        .exits(0);
    for mode in [0o644, 0o640, 0o604, 0o660] {
        fs::set_permissions(mycli.config(), fs::Permissions::from_mode(mode)).unwrap();
        mycli.run(&["status", ID]).exits(1).says("chmod 600");
    }
}

#[test]
fn the_stored_key_goes_to_its_own_endpoint_only() {
    let (api, mycli) = (any_run(), Mycli::unconfigured());
    mycli
        .run(&["config", "set", "endpoint", "https://stack.example/prod"])
        .exits(0);
    set_key(&mycli, KEY).exits(0);
    mycli
        .run(&["status", ID, "--endpoint", &api.endpoint])
        .exits(1)
        .says("belongs to another endpoint");
    assert!(api.asked().is_empty());
}

#[test]
fn a_key_does_not_move_to_another_endpoint() {
    let (api, mycli) = (any_run(), Mycli::unconfigured());
    mycli
        .run(&["config", "set", "endpoint", "https://stack.example/prod"])
        .exits(0);
    set_key(&mycli, KEY).exits(0);
    mycli
        .run(&["config", "set", "endpoint", &api.endpoint])
        .exits(0)
        .says("removed the key");
    mycli.run(&["status", ID]).exits(1).says("no API key");
    assert!(api.asked().is_empty());
}

#[test]
fn a_key_is_neither_taken_from_the_command_line_nor_repeated() {
    let mycli = Mycli::unconfigured();
    let ran = mycli.run(&["config", "set", "key", KEY]).exits(2);
    assert!(!ran.err.contains(KEY), "{ran:#?}");
    let ran = set_key(&mycli, "sk_live_wrong").exits(1);
    assert!(!ran.err.contains("sk_live_wrong"), "{ran:#?}");
    fs::create_dir_all(mycli.config().parent().unwrap()).unwrap();
    fs::write(
        mycli.config(),
        format!("endpoint: https://a.example\nkye: {KEY}\n"),
    )
    .unwrap();
    fs::set_permissions(mycli.config(), fs::Permissions::from_mode(0o600)).unwrap();
    let ran = mycli
        .run(&["status", ID])
        .exits(1)
        .says("config.yaml is not valid in line 2");
    assert!(!ran.err.contains(KEY), "{ran:#?}");
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let (flag, environment, mycli) = (any_run(), any_run(), Mycli::unconfigured());
    mycli
        .run(&["config", "set", "endpoint", "https://stack.example/prod"])
        .exits(0);
    let status = |arguments: &[&str]| {
        let mut command = mycli.command(arguments);
        Ran::from(
            command
                .env("MYCLI_ENDPOINT", &environment.endpoint)
                .env("MYCLI_API_KEY", KEY)
                .output()
                .unwrap(),
        )
        .exits(0)
    };
    status(&["status", ID]);
    assert_eq!(environment.asked().len(), 1);
    status(&["status", ID, "--endpoint", &flag.endpoint]);
    assert_eq!((environment.asked().len(), flag.asked().len()), (1, 1));
}

#[test]
fn an_address_that_is_none_is_refused() {
    for wrong in [
        "stack.example",
        "ftp://stack.example",
        "https://user:pw@stack.example",
    ] {
        let ran = Mycli::unconfigured()
            .run(&["config", "set", "endpoint", wrong])
            .exits(1)
            .says("https://host/stage");
        assert!(!ran.err.contains("pw"), "{ran:#?}");
    }
}
