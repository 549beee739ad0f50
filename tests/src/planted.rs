//! Values planted where a secret may enter, and the search for them: as they are, in the usual
//! encodings, and in pieces.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use crate::sandbox::{Process, files};

/// The length of the pieces that are searched for. A value cut in two is found if one part has this
/// many bytes. It is short enough to find parts, and long enough that two random texts never share
/// a piece.
const PIECE: usize = 12;

/// The time between two looks at all processes. It is shorter than the life of any process that
/// talks to another, and long enough not to keep a core busy.
const LOOK: Duration = Duration::from_millis(3);

/// Returns a value to plant that no other test has, because a watch sees the processes of all
/// tests. It begins with `p-` and ends with `=`.
#[must_use]
pub fn value() -> String {
    let random = [
        RandomState::new().hash_one(0),
        RandomState::new().hash_one(1),
    ]
    .map(u64::to_be_bytes);
    // The characters at the end are encoded in a URL, so that form can be told from the plain one.
    format!("p-{}/+&%=", STANDARD_NO_PAD.encode(random.concat()))
}

/// Returns such a value of characters that may stand anywhere in a URL.
#[must_use]
pub fn plain_value() -> String {
    hex::encode(value())[..32].to_owned()
}

/// The planted values.
#[derive(Clone, Debug, Default)]
pub struct Planted {
    /// Every run of [`PIECE`] bytes of every form of a value, with the value's name.
    pieces: HashMap<[u8; PIECE], &'static str>,
    /// Whether any piece begins with a byte, for each byte. Most of the searched bytes begin none.
    begins: Vec<bool>,
}

impl Planted {
    /// Adds a value of at least 24 random characters, so that either half identifies it. Findings
    /// are reported by `name`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        assert!(
            value.len() >= 2 * PIECE,
            "{name} is too short to be found in parts"
        );
        self.begins.resize(256, false);
        for form in forms(value.as_bytes()) {
            for piece in form.array_windows() {
                self.pieces.insert(*piece, name);
                self.begins[usize::from(piece[0])] = true;
            }
        }
        self
    }

    /// Returns the name of a value that `bytes` contain, whole or in part, in any form, even if
    /// lines are broken within it.
    #[must_use]
    pub fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        let begins = |piece: &&[u8; PIECE]| self.begins[usize::from(piece[0])];
        let search = |bytes: &[u8]| {
            bytes
                .array_windows()
                .filter(begins)
                .find_map(|piece| self.pieces.get(piece).copied())
        };
        search(bytes).or_else(|| search(&joined(bytes)))
    }

    /// Returns the files beneath a folder that contain a value. The files in `kept` are left out,
    /// since they are meant to hold one.
    ///
    /// # Panics
    /// When there is no file to search.
    #[must_use]
    pub fn found_beneath(&self, folder: &Path, kept: &[PathBuf]) -> Vec<(PathBuf, &'static str)> {
        let searched = files(folder)
            .into_iter()
            .filter(|path| !kept.iter().any(|kept| path.starts_with(kept)));
        // A named pipe holds nothing, and opening it would block until somebody writes.
        let searched: Vec<_> = searched.filter(|path| path.is_file()).collect();
        assert!(
            !searched.is_empty(),
            "there is nothing in {}",
            folder.display()
        );
        // A file may vanish during the search.
        let found = |path: PathBuf| {
            Some((
                self.found_in(&std::fs::read(&path).unwrap_or_default())?,
                path,
            ))
        };
        searched
            .into_iter()
            .filter_map(found)
            .map(|(name, path)| (path, name))
            .collect()
    }

    /// Watches the arguments and the environments of all processes from now on.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let (planted, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            // One more look after the request to stop, so that nothing present by then is missed.
            loop {
                let last = stopped.load(Ordering::SeqCst);
                Process::all().for_each(|process| seen.look_at(&planted, process));
                if last {
                    return seen.sightings;
                }
                thread::sleep(LOOK);
            }
        });
        Watch { stop, thread }
    }
}

/// Removes line ends, whether bytes or escapes, and the spaces that follow them.
fn joined(bytes: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(bytes.len());
    let (mut rest, mut at_start) = (bytes, false);
    while let Some((first, tail)) = rest.split_first() {
        (rest, at_start) = match (first, tail.first()) {
            (b'\n' | b'\r', _) => (tail, true),
            (b'\\', Some(b'n' | b'r')) => (&tail[1..], true),
            (b' ' | b'\t', _) if at_start => (tail, true),
            _ => {
                joined.push(*first);
                (tail, false)
            }
        };
    }
    joined
}

/// The forms in which a value may be written.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let lower = hex::encode(value);
    let mut forms = vec![
        value.to_vec(),
        lower.to_uppercase().into_bytes(),
        lower.into_bytes(),
    ];
    forms.extend([
        percent(value, char::to_ascii_uppercase),
        percent(value, char::to_ascii_lowercase),
    ]);
    forms.push(serde_json::to_vec(&String::from_utf8_lossy(value)).unwrap_or_default());
    // Base64 of a text that contains the value. The result depends on how many bytes come before
    // it.
    for before in 0..3 {
        let padded = [&[0; 2][..before], value].concat();
        let (clean, whole) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for text in [
            STANDARD_NO_PAD.encode(&padded),
            URL_SAFE_NO_PAD.encode(&padded),
        ] {
            forms.push(text.as_bytes()[clean..whole].to_vec());
        }
    }
    forms
}

/// Percent-encodes everything that a URL needs encoded.
fn percent(value: &[u8], case: fn(&char) -> char) -> Vec<u8> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let code = |byte: &u8| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02x}")
            .chars()
            .map(|digit| case(&digit))
            .collect(),
    };
    value.iter().map(code).collect::<String>().into_bytes()
}

/// See [`Planted::watch`].
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sightings>,
}

impl Watch {
    /// Looks once more, and returns what was seen.
    ///
    /// # Panics
    /// When the watch failed.
    #[must_use]
    pub fn end(self) -> Sightings {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the watch goes on")
    }
}

/// The result of a watch.
#[derive(Debug, Default)]
pub struct Sightings {
    /// All arguments seen, each once.
    pub arguments: HashSet<String>,
    /// The arguments that contained a value, with the value's name.
    pub in_arguments: Vec<(&'static str, String)>,
    /// The processes with a value in their environment, with the value's name.
    pub in_environments: Vec<(&'static str, Process)>,
}

/// What a watch has already searched, so that nothing is searched twice.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    hashes: HashSet<u64>,
    sightings: Sightings,
}

impl Seen {
    fn look_at(&mut self, planted: &Planted, process: Process) {
        if self.hashes.insert(self.hasher.hash_one(&process.argv)) {
            let text = String::from_utf8_lossy(&process.argv).replace('\0', " ");
            if let Some(name) = planted.found_in(&process.argv) {
                self.sightings.in_arguments.push((name, text.clone()));
            }
            self.sightings.arguments.insert(text);
        }
        if self
            .hashes
            .insert(self.hasher.hash_one((&process.argv, &process.environ)))
            && let Some(name) = planted.found_in(&process.environ)
        {
            self.sightings.in_environments.push((name, process));
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    const VALUE: &str = "k7Q+x/2Vb9=Lm&T4w%Zs8RcNhYp3";

    fn planted() -> Planted {
        Planted::default().with("the value", VALUE)
    }

    #[test]
    fn a_value_is_found_however_it_is_written() {
        let partly = "k7Q%2Bx%2F2Vb9%3DLm%26T4w%25Zs8RcNhYp3";
        let mut written = vec![
            VALUE.to_owned(),
            hex::encode(VALUE),
            hex::encode_upper(VALUE),
            partly.to_owned(),
        ];
        written.push(
            partly
                .replace("%2B", "%2b")
                .replace("%2F", "%2f")
                .replace("%3D", "%3d"),
        );
        written.extend(
            ["", "x", "xy", "user:"]
                .map(|before| BASE64_STANDARD.encode(format!("{before}{VALUE} and more"))),
        );
        written.push(format!("{}\n{}", &VALUE[..9], &VALUE[9..]));
        written.push(format!("{}\\n    {}", &VALUE[..9], &VALUE[9..]));
        written.push(VALUE[4..20].to_owned());
        let encoded = BASE64_STANDARD.encode(VALUE);
        written.push(format!("{}\r\n{}", &encoded[..11], &encoded[11..]));
        for text in written {
            assert_eq!(
                planted().found_in(format!("before {text} after").as_bytes()),
                Some("the value"),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            "k7Q",
            &VALUE[..11],
            &VALUE.to_lowercase()[..],
            &VALUE.chars().rev().collect::<String>()[..],
        ] {
            assert_eq!(planted().found_in(text.as_bytes()), None, "{text}");
        }
    }
}
