//! The output arrives complete, in order and unaltered.

use tests::engine::{BUSYBOX, Engine};

use super::*;

/// Compares two long texts. A failure shows only where they begin to differ.
fn assert_same(output: &[u8], expected: &str) {
    let same = output
        .iter()
        .zip(expected.as_bytes())
        .take_while(|(seen, wanted)| seen == wanted)
        .count();
    let around = &output[same.saturating_sub(60)..(same + 60).min(output.len())];
    assert_eq!(
        (output.len(), same),
        (expected.len(), expected.len()),
        "{:?}",
        text(around)
    );
}

#[tokio::test]
async fn container_log_of_50_000_lines_is_whole_though_it_exits_at_once() {
    let (runner, case) = (runner().await, Case::new(BUSYBOX, "seq 50000; exit 3"));
    let (ended, output) = case.run(&runner).await;
    let expected: String = (1..=50_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(ended.exit_code, Some(3));
    assert_same(&output, &expected);
}

#[tokio::test]
async fn container_log_read_while_it_is_written_is_whole() {
    let command = "n=0; while [ $n -lt 40 ]; do seq $((n*1000+1)) $((n*1000+1000)); n=$((n+1)); usleep 20000; done";
    let (runner, case) = (runner().await, Case::new(BUSYBOX, command));
    let (_, output) = case.run(&runner).await;
    assert_same(
        &output,
        &(1..=40_000).map(|n| format!("{n}\n")).collect::<String>(),
    );
}

#[tokio::test]
async fn container_log_has_both_streams_each_in_order() {
    let command = "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let (runner, case) = (runner().await, Case::new(BUSYBOX, command));
    let output = text(&case.run(&runner).await.1);
    for stream in ["out", "err"] {
        let lines: Vec<_> = output
            .lines()
            .filter(|line| line.starts_with(stream))
            .collect();
        let expected: Vec<_> = (0..500).map(|n| format!("{stream} {n}")).collect();
        assert_eq!(lines, expected);
    }
    assert_eq!(output.lines().count(), 1000);
}

#[tokio::test]
async fn container_log_keeps_every_byte_and_an_unfinished_last_line() {
    let command = r#"i=0; while [ $i -lt 256 ]; do printf "\\$(printf %03o $i)"; i=$((i+1)); done
        printf '\r\n\r\n\n'; head -c 40000 /dev/zero | tr '\0' x; printf '\n  unfinished '"#;
    let (runner, case) = (runner().await, Case::new(BUSYBOX, command));
    let (_, output) = case.run(&runner).await;
    let expected = [
        (0..=255).collect::<Vec<u8>>().as_slice(),
        b"\r\n\r\n\n",
        &[b'x'; 40_000],
        b"\n  unfinished ",
    ]
    .concat();
    assert!(
        output == expected,
        "{} bytes for {}: {:?}",
        output.len(),
        expected.len(),
        text(&output[..300])
    );
}

#[tokio::test]
async fn container_log_times_are_the_engines_and_never_go_back() {
    let (runner, case) = (runner().await, Case::new(BUSYBOX, "seq 100"));
    let started = case.start(&runner).await;
    let mut times = Vec::new();
    let ended = within(runner.follow(&started.container_id, 0, |at, _| times.push(at)))
        .await
        .expect("its end");
    assert!(times.is_sorted());
    // This engine's times are whole seconds.
    let second = chrono::TimeDelta::seconds(1);
    assert!(
        times[0] > started.started_at - second && times[99] <= ended.stopped_at + second,
        "{times:?}"
    );
}

/// A container that writes 1,000 lines, waits for a file and goes on, by default with 1,000 more
/// lines.
struct Gated {
    case: Case,
}

impl Gated {
    fn new() -> Self {
        Self::then("seq 1001 2000")
    }

    fn then(command: &str) -> Self {
        let command = format!("seq 1000; until [ -e /tmp/open ]; do sleep 0.1; done; {command}");
        Self {
            case: Case::new(BUSYBOX, &command),
        }
    }

    fn open(&self) {
        let ids = self.case.containers();
        let _ = Engine::shared().podman(&["exec", &ids[0], "touch", "/tmp/open"]);
    }

    fn expected() -> String {
        (1..=2000).map(|n| format!("{n}\n")).collect()
    }
}

#[tokio::test]
async fn container_followed_again_after_a_crash_has_no_gap_and_no_repeat() {
    let (gated, first_half) = (
        Gated::new(),
        (1..=1000).map(|n| format!("{n}\n").len()).sum::<usize>(),
    );
    let mut output = Vec::new();
    let id = {
        let runner = runner().await;
        let id = gated.case.start(&runner).await.container_id;
        let (whole, is_whole) = tokio::sync::oneshot::channel();
        let mut whole = Some(whole);
        let followed = runner.follow(&id, 0, |_, bytes| {
            output.extend_from_slice(bytes);
            if own(&output).len() == first_half {
                let _ = whole.take().map(|whole| whole.send(()));
            }
        });
        // The crash: whatever was being awaited is dropped.
        within(async {
            tokio::select! { _ = followed => panic!("it waits"), _ = is_whole => {} }
        })
        .await;
        id
    };
    gated.open();
    let runner = runner().await;
    // The saved output may end in the middle of a line.
    output.truncate(output.len() - 3);
    let (ended, rest) = follow_from(&runner, &id, output.len() as u64).await;
    output.extend(rest);
    assert_eq!(ended.exit_code, Some(0));
    assert_same(&own(&output), &Gated::expected());
    assert_eq!(follow_from(&runner, &id, output.len() as u64).await.1, b"");
}

/// Here the runner takes Podman for another engine, so it reads the log stream. Podman's stream can
/// lose output of a log that is being written. To avoid that, the container writes only one piece
/// after the gate.
#[tokio::test]
async fn container_log_whose_stream_breaks_has_no_gap_and_no_repeat() {
    use super::proxy::{Fate, Proxy};
    let unnamed = ("/version", Fate::Answered(200, "no name".into()));
    // The cuts are inside the answer's head, inside a frame's head and inside frames. After them
    // the stream is complete.
    let cuts = [60, 260, 1_000, 20_011].map(|bytes| ("follow=true", Fate::CutAfter(bytes)));
    let (gated, proxy) = (
        Gated::then("echo last; sleep 1; exit 6"),
        Proxy::before_engine(&[&[unnamed], &cuts[..]].concat()).await,
    );
    let runner = runner_at(&proxy.docker_host()).await;
    let id = gated.case.start(&runner).await.container_id;
    let expected: String = (1..=1000)
        .map(|n| format!("{n}\n"))
        .chain(["last\n".to_owned()])
        .collect();
    let mut output = Vec::new();
    let ended = within(runner.follow(&id, 0, |_, bytes| {
        output.extend_from_slice(bytes);
        if output.ends_with(b"1000\n") {
            gated.open();
        }
    }))
    .await
    .expect("its end");
    assert_eq!(
        (proxy.unused(), ended.exit_code),
        (0, Some(6)),
        "each cut was made"
    );
    assert_same(&own(&output), &expected);
}
