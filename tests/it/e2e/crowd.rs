//! Many runs at once through one server: none is lost, none runs twice.

use std::{collections::BTreeSet, sync::Barrier, thread};

use serde_json::{Value, json};
use tests::sandbox::Sandbox;

use super::api::{Http, ids};

const CLIENTS: usize = 20;
const EACH: usize = 10;

#[test]
fn two_hundred_at_once_from_twenty_clients_each_run_once() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "4"]);
    let place = sandbox.path("ran");
    std::fs::create_dir(&place).unwrap();
    let (endpoint, key) = (&*serve.endpoint, &*serve.key);
    let barrier = Barrier::new(CLIENTS);
    let client = |number: usize| {
        let http = Http::at(endpoint, key);
        barrier.wait();
        let submit = |nth: usize| {
            let file = place.join(format!("{number}-{nth}"));
            // Odd ones fail, so that history has both outcomes.
            let command = format!(
                "echo \"$MYCLI_EXECUTION_ID\" >>'{}'; exit {}",
                file.display(),
                nth % 2
            );
            (
                file,
                http.submit(&json!({"command": command, "group": format!("client-{number}")})),
            )
        };
        (0..EACH).map(submit).collect::<Vec<_>>()
    };
    let submitted: Vec<_> = thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    let http = Http::to(&serve);
    http.until_quiet();
    for (file, id) in &submitted {
        assert_eq!(
            std::fs::read_to_string(file).unwrap(),
            format!("{id}\n"),
            "once, and under its own id"
        );
    }
    let history = http.history("limit=100");
    assert_eq!(history.len(), CLIENTS * EACH);
    let told: BTreeSet<_> = ids(&history).into_iter().collect();
    assert_eq!(told, submitted.iter().map(|(_, id)| &**id).collect());
    let ended = |run: &Value| {
        (
            run["status"].as_str().unwrap().to_owned(),
            run["exit_code"].as_i64(),
            run["attempts"].as_array().unwrap().len(),
        )
    };
    for run in &history {
        let fails = run["command"].as_str().unwrap().ends_with('1');
        let expected = if fails {
            ("FAILED".to_owned(), Some(1), 1)
        } else {
            ("SUCCEEDED".to_owned(), Some(0), 1)
        };
        assert_eq!(ended(run), expected, "{run:#}");
    }
    assert_eq!(http.history("group=client-7").len(), EACH);
}
