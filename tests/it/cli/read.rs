//! `status` and `history`.

use serde_json::{Value, json};

use super::stand_in::{ID, Mycli, Reply, StandIn, record};

fn history(next: Option<&str>) -> StandIn {
    let mut long = record("FAILED", Some(1), None);
    long["command"] =
        json!("for x in *; do\n  echo \u{1b}[31m$x and a lot more than a row can hold\ndone");
    let page =
        json!({"executions": [record("SUCCEEDED", Some(0), None), long], "next_cursor": next});
    StandIn::new(move |_| Reply::json(&page))
}

#[test]
fn history_is_a_table_of_80_columns_when_piped() {
    let api = history(Some("abc"));
    let ran = Mycli::on(&api)
        .run(&["history"])
        .exits(0)
        .says("--cursor abc");
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "a head, and a line a run: {}", ran.out);
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{}",
        ran.out
    );
    assert!(
        lines[1].starts_with(ID)
            && lines[1].contains("SUCCEEDED")
            && lines[1].ends_with("make deploy"),
        "{}",
        ran.out
    );
    assert!(
        !ran.out.contains('\u{1b}'),
        "neither colours of ours nor what others wrote"
    );
}

#[test]
fn history_passes_its_filters_on() {
    let api = history(None);
    let arguments = [
        "history",
        "--limit",
        "3",
        "--status",
        "timed_out",
        "--group",
        "g",
        "--by",
        "me",
        "--since",
        "2026-01-02T03:04:05Z",
        "--cursor",
        "c=",
    ];
    let ran = Mycli::on(&api).run(&arguments).exits(0);
    assert_eq!(ran.err, "", "no hint on the last page");
    assert_eq!(
        api.lines(),
        [
            "GET /executions?limit=3&status=TIMED_OUT&since=2026-01-02T03%3A04%3A05.000Z&group=g&by=me&cursor=c%3D"
        ]
    );
}

#[test]
fn history_refuses_what_it_cannot_ask_for() {
    let mycli = Mycli::unconfigured();
    for arguments in [
        ["history", "--limit", "0"],
        ["history", "--limit", "201"],
        ["history", "--status", "done"],
        ["history", "--since", "soon"],
    ] {
        mycli.run(&arguments).exits(2);
    }
}

#[test]
fn json_is_the_api_s_own() {
    let ran = Mycli::on(&history(Some("abc")))
        .run(&["history", "-o", "json"])
        .exits(0);
    assert_eq!(ran.json()["next_cursor"], "abc");
    let api = StandIn::finished(record("LOST", None, Some("gone")), &[]);
    assert_eq!(
        Mycli::on(&api)
            .run(&["status", ID, "-o", "json"])
            .exits(0)
            .json(),
        record("LOST", None, Some("gone"))
    );
}

#[test]
fn status_shows_what_is_known_and_no_values_of_variables() {
    let api = StandIn::finished(
        record("FAILED", Some(7), Some("the command exited with code 7")),
        &[],
    );
    let ran = Mycli::on(&api).run(&["status", ID]).exits(0);
    for known in [
        "FAILED",
        "the command exited with code 7",
        "make deploy",
        "https://git.example/me/infra",
        "sha256:feed",
        "0123456789abcdef0123456789abcdef01234567",
        "STAGE",
        "TOKEN",
        "by alice",
        "(ran 2 min 5 s)",
        "(after 4 s)",
        "attempt 1",
    ] {
        assert!(ran.out.contains(known), "no {known} in\n{}", ran.out);
    }
    assert!(!ran.out.contains("prod-value"), "{}", ran.out);
}

#[test]
fn status_without_an_id_is_of_the_caller_s_latest() {
    let page = json!({"executions": [record("RUNNING", None, None)], "next_cursor": null});
    let api = StandIn::new(move |asked| match asked.path.contains('?') {
        true => Reply::json(&page),
        false => Reply::json(&record("RUNNING", None, None)),
    });
    Mycli::on(&api).run(&["status"]).exits(0);
    assert_eq!(
        api.lines(),
        [
            "GET /executions?limit=1&by=me".to_owned(),
            format!("GET /executions/{ID}")
        ]
    );
    let none = StandIn::new(|_| Reply::json(&json!({"executions": [], "next_cursor": null})));
    Mycli::on(&none)
        .run(&["status"])
        .exits(1)
        .says("no runs yet");
}

#[test]
fn an_arn_is_asked_for_by_its_task_s_id() {
    let api = StandIn::new(|_| Reply::json(&record("RUNNING", None, None)));
    Mycli::on(&api)
        .run(&["status", "arn:aws:ecs:eu-west-1:1:task/c/t?x#y"])
        .exits(0);
    assert_eq!(api.lines(), ["GET /executions/t%3Fx%23y"]);
}

#[track_caller]
fn check_refusal(status: u16, errors: &Value, said: &str) {
    let problem = Reply::problem(status, "code", "the title", errors);
    let api = StandIn::new(move |_| problem.clone());
    let ran = Mycli::on(&api).run(&["status", "7Q9"]).exits(1).prints("");
    assert_eq!(ran.err, said);
    assert_eq!(api.lines().len(), 1, "asking again would not help");
}

#[test]
fn refusals_are_shown_in_the_server_s_words() {
    check_refusal(404, &json!([]), "error: the title\n");
    check_refusal(
        409,
        &json!([{"field": "id", "message": "may be exec_A"}, {"field": "id", "message": "may be exec_B"}]),
        "error: the title\n  id: may be exec_A\n  id: may be exec_B\n",
    );
    check_refusal(500, &json!([]), "error: the title\n");
}

#[test]
fn reading_is_repeated_when_the_server_is_busy() {
    let mut answers = 0;
    let api = StandIn::new(move |_| {
        answers += 1;
        if answers < 4 {
            Reply::status(429).header("retry-after", "0")
        } else {
            Reply::json(&record("RUNNING", None, None))
        }
    });
    Mycli::on(&api).run(&["status", ID]).exits(0);
    assert_eq!(api.lines().len(), 4);
}

#[test]
fn nobody_there_is_said_with_the_address() {
    let gone = StandIn::new(|_| Reply::status(500));
    let endpoint = gone.endpoint.clone();
    let mycli = Mycli::on(&gone);
    drop(gone);
    mycli
        .run(&["status", ID])
        .exits(1)
        .says(&format!("failed to reach {endpoint}"))
        .says("refused");
}
