//! The functions' code: one zip each, with one program named `bootstrap`, which is what Lambda's
//! `provided.al2023` runs.

use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Write},
    path::{Path, PathBuf},
};

use goblin::elf::{Elf, header};
use sha2::{Digest, Sha256};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// The functions of a stack. A function's zip has this name, and its Lambda function is called
/// `mycli-<stack>-<name>`.
pub const FUNCTIONS: [&str; 4] = ["submit", "launcher", "state-tracker", "query"];

const PROGRAM: &str = "bootstrap";
/// The largest program that is read. Lambda takes 250 MB unzipped (AWS Lambda quotas, "Deployment
/// package").
const PROGRAM_MAX: u64 = 250 << 20;

/// The processor architectures that Lambda has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Graviton.
    Arm64,
    /// Intel and AMD.
    X86_64,
}

impl Architecture {
    /// Lambda's name for the architecture.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86_64",
        }
    }

    fn of(program: &Elf<'_>) -> Option<Self> {
        match program.header.e_machine {
            header::EM_AARCH64 => Some(Self::Arm64),
            header::EM_X86_64 => Some(Self::X86_64),
            _ => None,
        }
    }
}

/// A glibc version as (major, minor): `GLIBC_2.34` is `(2, 34)`.
type Glibc = (u32, u32);

/// The version that Lambda's `provided.al2023` has (AWS-FACTS §9).
const GLIBC: Glibc = (2, 34);

/// Returns the newest version of glibc that a program requires; `None` if it is linked statically.
fn glibc_needed(program: &Elf<'_>) -> Option<Glibc> {
    let needs = program
        .verneed
        .iter()
        .flat_map(goblin::elf::symver::VerneedSection::iter);
    let versions = needs.flat_map(|library| library.iter().collect::<Vec<_>>());
    versions
        .filter_map(|version| glibc_version(program.dynstrtab.get_at(version.vna_name)?))
        .max()
}

/// Parses a version's name. glibc's private symbols (`GLIBC_PRIVATE`) and `GLIBC_ABI_…` are no
/// versions.
fn glibc_version(text: &str) -> Option<Glibc> {
    let mut numbers = text.strip_prefix("GLIBC_")?.split('.').map(str::parse);
    match (numbers.next()?, numbers.next()) {
        (Ok(major), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

/// Why the functions cannot be deployed.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// No folder has the zips.
    #[error(
        "the functions' code was not found: looked for {} in {}.\nA release of mycli has them in `functions/` beside the program; built from \
         source, `just package` makes them: then give --functions target/package", names(), list(.0)
    )]
    Missing(Vec<PathBuf>),
    /// A file cannot be read or written.
    #[error("failed to use {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A file is not a zip.
    #[error("{} is not a zip that can be read: {error}", path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: zip::result::ZipError,
    },
    /// A zip or a file holds no Linux program for Lambda's processors.
    #[error("{} holds no Linux program called `{PROGRAM}` for arm64 or x86_64: was it built for another system?", .0.display())]
    Program(PathBuf),
    /// A program requires a newer glibc than Lambda has.
    #[error(
        "{} needs glibc {}.{}, and Lambda has {}.{}: build it against an older one, with `just package arm64` (cargo-lambda) or \
         `cargo zigbuild --target …-unknown-linux-gnu.2.34`, or on an older distribution", path.display(), needed.0, needed.1, GLIBC.0, GLIBC.1
    )]
    Glibc {
        /// The file.
        path: PathBuf,
        /// The version that it requires.
        needed: (u32, u32),
    },
    /// The zips are of builds for different processors.
    #[error("the functions in {} are built for different processors: build them anew", .0.display())]
    Mixed(PathBuf),
}

fn names() -> String {
    FUNCTIONS.map(|name| format!("{name}.zip")).join(", ")
}

fn list(folders: &[PathBuf]) -> String {
    folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The code of all functions, from one build.
#[derive(Clone)]
pub struct Functions {
    /// The names and zips, in the order of [`FUNCTIONS`].
    pub(crate) zips: Vec<(&'static str, Vec<u8>)>,
    /// The architecture that they are built for.
    pub architecture: Architecture,
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Functions")
            .field("prefix", &self.prefix())
            .finish_non_exhaustive()
    }
}

impl Functions {
    /// Reads the functions from the first of `folders` that has any of them.
    ///
    /// # Errors
    /// [`PackageError`].
    pub fn find(folders: &[PathBuf]) -> Result<Self, PackageError> {
        let has_any =
            |folder: &&PathBuf| FUNCTIONS.iter().any(|name| zip_in(folder, name).exists());
        let folder = folders
            .iter()
            .find(has_any)
            .ok_or_else(|| PackageError::Missing(folders.to_vec()))?;
        Self::read(folder)
    }

    fn read(folder: &Path) -> Result<Self, PackageError> {
        let mut zips = Vec::with_capacity(FUNCTIONS.len());
        let mut architectures = Vec::with_capacity(FUNCTIONS.len());
        for name in FUNCTIONS {
            let path = zip_in(folder, name);
            let bytes = fs::read(&path).map_err(|error| PackageError::File {
                path: path.clone(),
                error,
            })?;
            architectures.push(architecture(&path, &bytes)?);
            zips.push((name, bytes));
        }
        let architecture = architectures[0];
        if architectures.iter().any(|other| *other != architecture) {
            return Err(PackageError::Mixed(folder.to_owned()));
        }
        Ok(Self { zips, architecture })
    }

    /// The functions' key prefix in the bucket, derived from their content. So the same code is
    /// never stored or deployed twice, and a change of code is always noticed.
    #[must_use]
    pub fn prefix(&self) -> String {
        let mut hash = Sha256::new();
        for (name, bytes) in &self.zips {
            hash.update(name);
            hash.update([0]);
            hash.update(Sha256::digest(bytes));
        }
        format!("functions/{}", &hex::encode(hash.finalize())[..16])
    }
}

fn zip_in(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.zip"))
}

fn architecture(path: &Path, bytes: &[u8]) -> Result<Architecture, PackageError> {
    let zip = |error| PackageError::Zip {
        path: path.to_owned(),
        error,
    };
    let none = || PackageError::Program(path.to_owned());
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(zip)?;
    let entry = match archive.by_name(PROGRAM) {
        Err(zip::result::ZipError::FileNotFound) => return Err(none()),
        other => other.map_err(zip)?,
    };
    let mut program = Vec::new();
    entry
        .take(PROGRAM_MAX)
        .read_to_end(&mut program)
        .map_err(|error| PackageError::File {
            path: path.to_owned(),
            error,
        })?;
    checked(path, &program)
}

/// Returns the architecture of a program, if Lambda can run it.
fn checked(path: &Path, program: &[u8]) -> Result<Architecture, PackageError> {
    let none = || PackageError::Program(path.to_owned());
    let elf = Elf::parse(program).map_err(|_| none())?;
    let architecture = Architecture::of(&elf).ok_or_else(none)?;
    match glibc_needed(&elf).filter(|needed| *needed > GLIBC) {
        Some(needed) => Err(PackageError::Glibc {
            path: path.to_owned(),
            needed,
        }),
        None => Ok(architecture),
    }
}

/// Packs the built functions of one folder into zips in another, if Lambda can run them. The same
/// programs always give the same bytes: the zips hold no times, and the permissions are fixed.
///
/// # Errors
/// [`PackageError`].
pub fn pack(programs: &Path, zips: &Path) -> Result<(), PackageError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| PackageError::File { path, error }
    };
    fs::create_dir_all(zips).map_err(failed(zips))?;
    for name in FUNCTIONS {
        let (built, path) = (program_in(programs, name), zip_in(zips, name));
        let size = fs::metadata(&built).map_err(failed(&built))?.len();
        if size > PROGRAM_MAX {
            return Err(PackageError::Program(built));
        }
        let program = fs::read(&built).map_err(failed(&built))?;
        checked(&built, &program)?;
        let file = File::create(&path).map_err(failed(&path))?;
        write(file, &program).map_err(|error| PackageError::Zip { path, error })?;
    }
    Ok(())
}

/// Returns the path of a built program. cargo writes it to `<name>`, cargo-lambda to
/// `<name>/bootstrap`.
fn program_in(folder: &Path, name: &str) -> PathBuf {
    let plain = folder.join(name);
    if plain.is_dir() {
        plain.join(PROGRAM)
    } else {
        plain
    }
}

fn write(file: impl Write + io::Seek, program: &[u8]) -> zip::result::ZipResult<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(9))
        .last_modified_time(DateTime::default())
        .unix_permissions(0o755);
    let mut zip = ZipWriter::new(file);
    zip.start_file(PROGRAM, options)?;
    zip.write_all(program)?;
    zip.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that calls one function of glibc and requires this version for it. Made with `gcc
    /// -nostdlib` and a library of that name whose only symbol has that version.
    const NEEDS_2_34: &[u8] = include_bytes!("../fixtures/needs-glibc-2.34");
    const NEEDS_2_38: &[u8] = include_bytes!("../fixtures/needs-glibc-2.38");

    /// The same program with another processor in its ELF header.
    fn elf(machine: u8) -> Vec<u8> {
        let mut program = NEEDS_2_34.to_vec();
        program[18] = machine;
        program
    }

    fn tried(programs: [Vec<u8>; 4]) -> (tempfile::TempDir, Result<(), PackageError>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, program) in FUNCTIONS.iter().zip(programs) {
            fs::write(folder.path().join(name), program).unwrap();
        }
        let result = pack(folder.path(), &folder.path().join("zips"));
        (folder, result)
    }

    fn packed(programs: [Vec<u8>; 4]) -> tempfile::TempDir {
        let (folder, result) = tried(programs);
        result.unwrap();
        folder
    }

    fn read(folder: &tempfile::TempDir) -> Result<Functions, PackageError> {
        Functions::find(&["nowhere".into(), folder.path().join("zips")])
    }

    #[test]
    fn the_same_programs_make_the_same_zips_and_others_are_noticed() {
        let of = |machine| packed([(); 4].map(|()| elf(machine)));
        let (one, two) = (of(0x3e), of(0x3e));
        let bytes =
            |folder: &tempfile::TempDir| fs::read(folder.path().join("zips/submit.zip")).unwrap();
        assert_eq!(bytes(&one), bytes(&two));
        let (one, arm) = (read(&one).unwrap(), read(&of(0xb7)).unwrap());
        assert_eq!(
            (one.architecture, arm.architecture),
            (Architecture::X86_64, Architecture::Arm64)
        );
        assert_ne!(one.prefix(), arm.prefix());
        assert_eq!(one.prefix().len(), "functions/".len() + 16);
    }

    #[test]
    fn a_bootstrap_can_be_executed() {
        let folder = packed([(); 4].map(|()| elf(0x3e)));
        let mut zip =
            ZipArchive::new(File::open(folder.path().join("zips/query.zip")).unwrap()).unwrap();
        let entry = zip.by_name(PROGRAM).unwrap();
        assert_eq!(entry.unix_mode().unwrap() & 0o777, 0o755);
    }

    #[test]
    fn a_program_that_asks_for_a_newer_glibc_than_lambda_has_is_neither_packed_nor_deployed() {
        let new = || NEEDS_2_38.to_vec();
        let error = tried([elf(0x3e), elf(0x3e), new(), elf(0x3e)])
            .1
            .unwrap_err()
            .to_string();
        for part in [
            "state-tracker needs glibc 2.38",
            "Lambda has 2.34",
            "cargo-lambda",
            "zigbuild",
        ] {
            assert!(error.contains(part), "{error}");
        }
        // The zips may have been packed by other means than [`pack`].
        let zips = packed([(); 4].map(|()| elf(0x3e)));
        write(
            File::create(zips.path().join("zips/query.zip")).unwrap(),
            &new(),
        )
        .unwrap();
        assert!(matches!(
            read(&zips),
            Err(PackageError::Glibc {
                needed: (2, 38),
                ..
            })
        ));
    }

    #[test]
    fn what_lambda_could_not_run_is_not_deployed() {
        let mixed = packed([elf(0x3e), elf(0x3e), elf(0x3e), elf(0xb7)]);
        assert!(matches!(read(&mixed), Err(PackageError::Mixed(_))));
        let script = tried([
            elf(0x3e),
            b"#!/bin/sh\nexec of a kind\n".to_vec(),
            elf(0x3e),
            elf(0x3e),
        ])
        .1;
        assert!(matches!(script, Err(PackageError::Program(path)) if path.ends_with("launcher")));
        let zips = packed([(); 4].map(|()| elf(0x3e)));
        write(
            File::create(zips.path().join("zips/launcher.zip")).unwrap(),
            b"MZ",
        )
        .unwrap();
        assert!(
            matches!(read(&zips), Err(PackageError::Program(path)) if path.ends_with("launcher.zip"))
        );
        let none = tempfile::tempdir().unwrap();
        let error = Functions::find(&[none.path().to_owned()])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--functions") && error.contains("just package"),
            "{error}"
        );
    }
}
