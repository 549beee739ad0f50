//! The marker lines: lines that the runner writes into a task's output for mycli,
//! `::mycli:<nonce>:<version>:<word>[:<value>]`. A line without a version is from before versions
//! existed.
//!
//! The nonce belongs to the attempt, and the command does not know it, so the command cannot forge
//! a marker line. On the host, the command can read the output because it belongs to the same user.
//! There the nonce is replaced by a [`token`] of the word. A token reveals no other word's token,
//! so a command that has read `start` still cannot write `exit`.

use sha2::{Digest, Sha256};

use crate::{artifact::UploadSummary, stored};

/// The beginning of every marker line, whatever its nonce.
pub const PREFIX: &str = "::mycli:";

/// The phrases whose lines the CloudWatch Logs subscription filter leaves out: a success, and the
/// end of a stream. The task's own event tells as much, and each delivery is an invocation.
const LEFT_OUT: [&str; 2] = [":exit:0", ":ended"];

/// The pattern of the subscription filter: the lines with the prefix that have none of the phrases
/// which are left out (CloudWatch Logs user guide, "Filter pattern syntax").
#[must_use]
pub fn filter_pattern() -> String {
    let left_out = LEFT_OUT.map(|phrase| format!(" -\"{phrase}\""));
    format!("\"{PREFIX}\"{}", left_out.concat())
}

/// Whether the subscription filter delivers this line.
#[must_use]
pub fn is_delivered(line: &str) -> bool {
    line.contains(PREFIX) && !LEFT_OUT.iter().any(|phrase| line.contains(phrase))
}

/// The meaning of a marker line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// `setup`: the set-up begins.
    SetUp,
    /// `commit:<40 hex>`: this commit was checked out.
    Commit(String),
    /// `start`: the command begins.
    Start,
    /// `exit:<code>`: the command ended by itself.
    Exit(i32),
    /// `timeout`: the command exceeded its timeout; no `exit` follows.
    Timeout,
    /// `fail:<message>`: the set-up failed; the command did not start.
    Fail(String),
    /// `uploading`: the command ended by itself with exit code 0, and its files are being kept. It
    /// tells of a success for which the state tracker gets no `exit`.
    Uploading,
    /// `uploaded:<files>:<bytes>[:<reason>]`: this much of the command's files is kept.
    Uploaded(UploadSummary),
    /// `ended`: the runner writes nothing more to this stream. It is written to stdout and to
    /// stderr, so that a log with both is complete.
    Ended,
    /// A word or a version of a newer release. This release ignores it, and does not count it as
    /// output of the command.
    Other,
}

impl Marker {
    /// Whether it says how the command ended.
    #[must_use]
    pub fn is_outcome(&self) -> bool {
        matches!(
            self,
            Self::Exit(_) | Self::Timeout | Self::Fail(_) | Self::Uploading
        )
    }
}

/// The words that this release knows, without their values.
const WORDS: [&str; 9] = [
    "setup",
    "commit",
    "start",
    "exit",
    "timeout",
    "fail",
    "uploading",
    "uploaded",
    "ended",
];

/// The token that replaces the nonce for this word only. It reveals neither the nonce nor the token
/// of another word.
#[must_use]
pub fn token(nonce: &str, word: &str) -> String {
    hex::encode(&Sha256::digest(format!("{nonce}:{word}"))[..16])
}

/// The marker line with this word and value, without a newline, as it is written where the command
/// may read it.
#[must_use]
pub fn line(nonce: &str, said: &str) -> String {
    let word = said.split(':').next().unwrap_or_default();
    format!("{PREFIX}{}:{}:{said}", token(nonce, word), stored::FORM)
}

/// Splits a line of output into the command's own text and the marker at its end, if there is one
/// with this nonce.
///
/// A marker may follow an unfinished line of the command, so it is searched for anywhere in the
/// line. The text is `None` when the whole line is a marker. A marker with another nonce is text of
/// the command, and so is one with an unknown word.
#[must_use]
pub fn split<'a>(nonce: &str, line: &'a str) -> (Option<&'a str>, Option<Marker>) {
    let found = starts(line).find_map(|start| {
        let text = &line[start + PREFIX.len()..];
        match text
            .strip_prefix(nonce)
            .and_then(|text| text.strip_prefix(':'))
        {
            Some(text) => Some((start, parse(text)?.1)),
            None => {
                let (given, text) = text.split_once(':').filter(|(given, _)| is_token(given))?;
                let (word, marker) = parse(text)?;
                (given == token(nonce, word)).then_some((start, marker))
            }
        }
    });
    match found {
        Some((0, marker)) => (None, Some(marker)),
        Some((start, marker)) => (Some(&line[..start]), Some(marker)),
        None => (Some(line), None),
    }
}

/// The indexes at which a marker may start. The command's text may end with the beginning of a
/// marker, so one may start within another.
fn starts(line: &str) -> impl Iterator<Item = usize> {
    let next = |from: usize| Some(from + line.get(from..)?.find(PREFIX)?);
    std::iter::successors(next(0), move |start| next(start + 1))
}

/// Whether the text has the form of a token. This is checked first because a hash costs more.
fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The word without its value, and its marker.
fn parse(text: &str) -> Option<(&str, Marker)> {
    let text = text.trim_end_matches('\r');
    let versioned = text
        .split_once(':')
        .and_then(|(version, word)| Some((version.parse::<u64>().ok()?, word)));
    let (version, said) = versioned.unwrap_or((stored::FORM, text));
    let marker = if version > stored::FORM {
        Some(Marker::Other)
    } else {
        parse_word(said)
    };
    Some((said.split(':').next().unwrap_or_default(), marker?))
}

fn parse_word(word: &str) -> Option<Marker> {
    match word.split_once(':') {
        None if word == "setup" => Some(Marker::SetUp),
        None if word == "start" => Some(Marker::Start),
        None if word == "timeout" => Some(Marker::Timeout),
        None if word == "uploading" => Some(Marker::Uploading),
        None if word == "ended" => Some(Marker::Ended),
        Some(("commit", sha)) if is_commit(sha) => Some(Marker::Commit(sha.to_owned())),
        Some(("exit", code)) => code
            .parse()
            .ok()
            .filter(|code| (0..=255).contains(code))
            .map(Marker::Exit),
        Some(("uploaded", what)) => UploadSummary::read(what).map(Marker::Uploaded),
        Some(("fail", why)) => Some(Marker::Fail(why.to_owned())),
        Some((name, _)) if is_another_word(name) => Some(Marker::Other),
        None if is_another_word(word) => Some(Marker::Other),
        _ => None,
    }
}

/// Whether it has the form of a word but is none of this release's. A known word with an impossible
/// value is not another word.
fn is_another_word(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        && !WORDS.contains(&name)
}

/// Whether the text is a full SHA-1 or SHA-256 object id.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn each_word_is_read() {
        let read = |word: &str| split(NONCE, &format!("{PREFIX}{NONCE}:{word}")).1;
        assert_eq!(read("setup"), Some(Marker::SetUp));
        assert_eq!(
            read(&format!("commit:{}", "a".repeat(40))),
            Some(Marker::Commit("a".repeat(40)))
        );
        assert_eq!(read("start"), Some(Marker::Start));
        assert_eq!(read("exit:137"), Some(Marker::Exit(137)));
        assert_eq!(read("timeout"), Some(Marker::Timeout));
        assert_eq!(read("uploading"), Some(Marker::Uploading));
        assert_eq!(read("ended"), Some(Marker::Ended));
        assert_eq!(
            read("fail:no git: here"),
            Some(Marker::Fail("no git: here".into()))
        );
        assert_eq!(
            (
                read("exit:256"),
                read("exit:x"),
                read("commit:main"),
                read("")
            ),
            (None, None, None, None)
        );
        assert_eq!(
            (read("1:setup"), read("1:exit:137")),
            (Some(Marker::SetUp), Some(Marker::Exit(137)))
        );
    }

    #[test]
    fn a_success_and_the_end_of_a_stream_are_not_delivered() {
        let is_delivered = |said: &str| is_delivered(&line(NONCE, said));
        assert!(
            ["start", "exit:1", "exit:10", "timeout", "uploading"].map(is_delivered) == [true; 5]
        );
        assert!(["exit:0", "ended"].map(is_delivered) == [false; 2]);
        assert!(!super::is_delivered("a line of the command"));
        assert_eq!(filter_pattern(), r#""::mycli:" -":exit:0" -":ended""#);
    }

    /// A word of a newer release is not the command's output, and it is not taken for a known word.
    #[test]
    fn a_word_of_a_newer_release_is_passed_over() {
        for word in [
            "outputs",
            "1:outputs:17",
            "timed-out",
            "2:exit:0",
            "99:fail:why",
        ] {
            let line = format!("50%{PREFIX}{NONCE}:{word}");
            assert_eq!(
                split(NONCE, &line),
                (Some("50%"), Some(Marker::Other)),
                "{line}"
            );
        }
        assert!(!Marker::Other.is_outcome());
    }

    #[test]
    fn it_may_follow_an_unfinished_line() {
        let line = format!("50%{PREFIX}{NONCE}:exit:0");
        assert_eq!(split(NONCE, &line), (Some("50%"), Some(Marker::Exit(0))));
    }

    #[test]
    fn an_unfinished_line_may_end_like_the_beginning_of_one() {
        for text in [
            "::mycli",
            "::mycli:",
            ":",
            "::",
            "::mycli::mycli",
            "::mycli:0123",
        ] {
            let line = format!("{text}{PREFIX}{NONCE}:exit:3");
            assert_eq!(
                split(NONCE, &line),
                (Some(text), Some(Marker::Exit(3))),
                "{line}"
            );
        }
    }

    #[test]
    fn a_forged_one_is_plain_text() {
        let line = format!("{PREFIX}{}:exit:0", "f".repeat(32));
        assert_eq!(split(NONCE, &line), (Some(line.as_str()), None));
        let both = format!("{line}{PREFIX}{NONCE}:exit:3");
        assert_eq!(
            split(NONCE, &both),
            (Some(line.as_str()), Some(Marker::Exit(3)))
        );
    }

    #[test]
    fn a_words_token_says_that_word_alone() {
        let line = |token: &str, said: &str| format!("50%{PREFIX}{token}:1:{said}");
        let said = [
            "setup".to_owned(),
            format!("commit:{}", "a".repeat(40)),
            "start".into(),
            "exit:7".into(),
        ];
        for said in said.into_iter().chain([
            "timeout".into(),
            "fail:no git: here".into(),
            "uploaded:17:5:why".into(),
        ]) {
            let own = said.split(':').next().expect("a word");
            let (text, marker) = (Some("50%"), split(NONCE, &line(NONCE, &said)).1);
            assert!(marker.is_some(), "{said}");
            assert_eq!(
                split(NONCE, &line(&token(NONCE, own), &said)),
                (text, marker),
                "{said}"
            );
            for other in WORDS.iter().filter(|word| **word != own) {
                let forged = line(&token(NONCE, other), &said);
                assert_eq!(
                    split(NONCE, &forged),
                    (Some(forged.as_str()), None),
                    "{said} by {other}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn text_without_our_nonce_is_never_touched(line in ".*") {
            prop_assert_eq!(split(NONCE, &line), (Some(line.as_str()), None));
        }
    }
}
