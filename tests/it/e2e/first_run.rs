//! What a first-time user of `mycli` sees.

use tests::sandbox::Sandbox;

#[test]
fn a_first_run_explains_the_two_ways_to_go() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["exec", "--no-repo", "echo hello"][..],
        &["history"],
        &["status"],
        &["logs"],
    ] {
        let ran = sandbox
            .run(arguments)
            .says("mycli --local ")
            .says("--endpoint URL")
            .says("MYCLI_API_KEY");
        assert_eq!(
            ran.code,
            Some(if arguments[0] == "exec" { 125 } else { 1 }),
            "{ran:#?}"
        );
    }
    assert!(
        !sandbox.home().join(".mycli").exists(),
        "nothing is written by looking"
    );
    // The command that it suggests works unchanged.
    sandbox
        .run(&["--local", "exec", "--no-repo", "echo hello"])
        .exits(0)
        .prints("hello\n");
    sandbox.run(&["--local", "history"]).exits(0);
}

#[test]
fn an_empty_history_is_no_fault() {
    let sandbox = Sandbox::new();
    sandbox
        .local(&["history"])
        .exits(0)
        .prints("")
        .says("no runs");
    assert_eq!(
        sandbox.local(&["history", "-o", "json"]).exits(0).json(),
        serde_json::json!({"executions": [], "next_cursor": null})
    );
    sandbox.local(&["status"]).exits(1);
    sandbox
        .local(&["wait", "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9"])
        .exits(125)
        .says("exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9");
}

#[test]
fn every_command_s_help_has_examples() {
    let sandbox = Sandbox::new();
    for command in [
        "exec",
        "status",
        "wait",
        "logs",
        "cancel",
        "rerun",
        "history",
        "config",
        "local",
        "completions",
    ] {
        let ran = sandbox.run(&[command, "--help"]).exits(0);
        assert!(ran.out.contains("Examples:\n  mycli "), "{}", ran.out);
    }
}

#[test]
fn what_it_says_with_v_has_no_colours_in_a_file() {
    let ran = Sandbox::new()
        .run(&["-v", "--local", "exec", "--no-repo", "true"])
        .exits(0);
    assert!(
        ran.err.contains("submitted") && !ran.err.contains('\u{1b}'),
        "{}",
        ran.err
    );
}
