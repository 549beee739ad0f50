//! The program that runs inside tasks, as mycli carries it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use domain::request::Arch;
use goblin::elf::{Elf, header};
use sha2::{Digest as _, Sha256};

use crate::platform;

/// The program, for the system and the processor that mycli was built for.
pub static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mycli-runner"));

/// A program for containers.
pub struct ContainerProgram {
    /// The beginning of its SHA-256, in hexadecimal digits.
    pub digest: String,
    /// The file.
    pub bytes: Cow<'static, [u8]>,
}

/// The processor of the machine that mycli was built for.
#[must_use]
pub fn own_arch() -> Arch {
    match std::env::consts::ARCH {
        "aarch64" => Arch::Arm64,
        _ => Arch::X86_64,
    }
}

/// The programs for tasks on AWS: those that lie beside the functions' code, and the one that mycli
/// carries.
///
/// # Errors
/// The reason in words: a file cannot be read, or is no program for its processor.
pub fn for_image(folders: &[PathBuf]) -> Result<BTreeMap<Arch, Cow<'static, [u8]>>, String> {
    let mut programs = BTreeMap::new();
    if platform::IS_A_CONTAINERS {
        programs.insert(own_arch(), PROGRAM.into());
    }
    for arch in [Arch::Arm64, Arch::X86_64] {
        let name = format!("{}-{arch}", runner::PROGRAM);
        let mut paths = folders.iter().map(|folder| folder.join(&name));
        let Some(path) = paths.find(|path| path.exists()) else {
            continue;
        };
        let bytes = fs::read(&path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        check(&bytes, Some(arch)).map_err(|why| format!("{} {why}", path.display()))?;
        programs.insert(arch, bytes.into());
    }
    match programs.is_empty() {
        true => Err(format!(
            "there is no {0} for tasks: looked for {0}-arm64 and {0}-x86_64 beside the functions' code",
            runner::PROGRAM
        )),
        false => Ok(programs),
    }
}

/// The program for the containers of an engine: the file that the user has named, or the program
/// that mycli carries.
///
/// # Errors
/// The reason in words: no file can be read, or the program is not for the engine's processor.
pub fn for_containers(
    named: Option<&Path>,
    engine: Option<Arch>,
) -> Result<ContainerProgram, String> {
    if let Some(path) = named {
        let bytes = fs::read(path).map_err(|error| {
            format!(
                "{VARIABLE} names {}, which cannot be read: {error}",
                path.display()
            )
        })?;
        check(&bytes, engine)
            .map_err(|why| format!("{VARIABLE} names {}, which {why}", path.display()))?;
        return Ok(ContainerProgram {
            digest: hex::encode(&Sha256::digest(&bytes)[..8]),
            bytes: bytes.into(),
        });
    }
    let own = own_arch();
    match engine {
        Some(engine) if engine != own || !platform::IS_A_CONTAINERS => Err(format!(
            "containers need mycli-runner for linux/{engine}, and this mycli carries it for {}/{own}: name its \
             file in {VARIABLE}",
            std::env::consts::OS
        )),
        _ => Ok(ContainerProgram {
            digest: env!("RUNNER_DIGEST").to_owned(),
            bytes: PROGRAM.into(),
        }),
    }
}

/// Why a file cannot be the runner of an engine with this processor.
fn check(file: &[u8], engine: Option<Arch>) -> Result<(), String> {
    let elf = Elf::parse(file).ok();
    let machine = elf.as_ref().map(|elf| elf.header.e_machine);
    let arch = match machine {
        Some(header::EM_X86_64) => Arch::X86_64,
        Some(header::EM_AARCH64) => Arch::Arm64,
        _ => return Err("is no program for Linux on arm64 or x86_64".to_owned()),
    };
    if let Some(engine) = engine.filter(|engine| *engine != arch) {
        return Err(format!("is for {arch}, and one for {engine} is needed"));
    }
    match elf.and_then(|elf| elf.interpreter) {
        Some(_) => Err("needs a loader that an image may not have: build it statically".to_owned()),
        None => Ok(()),
    }
}

/// The variable that names a program for containers.
pub const VARIABLE: &str = "MYCLI_RUNNER";

/// Puts the program into a folder, under a name that its content decides. It is left alone if it is
/// there already, since other processes may be running it.
///
/// # Errors
/// When it cannot be written.
pub fn install(folder: &Path) -> io::Result<PathBuf> {
    let name = name();
    let path = folder.join(&name);
    let is_whole = |metadata: &fs::Metadata| metadata.len() == PROGRAM.len() as u64;
    if fs::metadata(&path).as_ref().is_ok_and(is_whole) {
        return Ok(path);
    }
    fs::create_dir_all(folder)?;
    // Under a name of its own until it is whole: others may do the same at this moment.
    static DRAFTS: AtomicU32 = AtomicU32::new(0);
    let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let draft = folder.join(format!("{name}.{pid}.{number}"));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(&draft)
        .and_then(|mut file| file.write_all(PROGRAM))
        .and_then(|()| fs::rename(&draft, &path));
    if written.is_err() {
        let _gone = fs::remove_file(&draft);
    }
    written.map(|()| path)
}

fn name() -> String {
    format!("mycli-runner-{}", env!("RUNNER_DIGEST"))
}

/// Removes the programs of other versions of mycli from a folder. A process that runs one of them
/// goes on, and a mycli that needs one puts it down again.
///
/// # Errors
/// When one of them cannot be removed.
pub fn remove_others(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let own = name();
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let file = file.to_string_lossy();
        // Drafts of this version may be under way.
        if file.starts_with("mycli-runner-") && !file.starts_with(&own) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_put_down_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: std::collections::BTreeSet<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| install(folder.path()).expect("it is written")))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("it ends"))
                .collect()
        });
        assert_eq!(paths.len(), 1);
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    }

    #[test]
    fn those_of_other_versions_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        remove_others(&folder.path().join("nowhere")).expect("nothing to remove");
        let own = install(folder.path()).expect("it is written");
        fs::write(folder.path().join("mycli-runner-0123456789abcdef"), "old").expect("written");
        remove_others(folder.path()).expect("removed");
        let left: Vec<_> = fs::read_dir(folder.path())
            .expect("read")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(left, [own]);
    }

    #[test]
    fn only_a_static_program_for_the_engine_will_do() {
        let other = match std::env::consts::ARCH {
            "aarch64" => Arch::X86_64,
            _ => Arch::Arm64,
        };
        assert_eq!(check(PROGRAM, None), Ok(()));
        let said = |file: &[u8], arch| check(file, arch).expect_err("refused");
        assert!(said(PROGRAM, Some(other)).contains("is needed"));
        assert!(said(b"#!/bin/sh\n", None).contains("no program for Linux"));
        assert!(said(b"", None).contains("no program for Linux"));
        let dynamic = fs::read("/bin/true").expect("a program");
        assert!(said(&dynamic, None).contains("needs a loader"));
    }

    #[test]
    fn it_is_put_down_once_and_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = install(folder.path()).expect("it is written");
        assert_eq!(install(folder.path()).expect("it is there"), path);
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
        let said = std::process::Command::new(path)
            .arg("--version")
            .output()
            .expect("it runs");
        assert!(said.status.success(), "{said:?}");
    }
}
