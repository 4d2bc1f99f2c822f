//! The program to run: where it is, and whether it can be recorded.
//!
//! What the kernel and the dynamic loader would do is followed as far as it
//! matters: the search in `PATH`, `#!` lines, the ELF header. A program that
//! the interposer cannot get into is refused here, in words, instead of
//! running unrecorded.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, elf};
use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat};
use rustix::process::{getgid, getuid};

/// The program cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lookup {
    /// There is no such program.
    #[error("`{}` was not found{}", name.display(), if *searched { " in PATH" } else { "" })]
    NotFound {
        /// As given.
        name: OsString,
        /// It was looked for in `PATH`.
        searched: bool,
    },
    /// It is there, but cannot be executed.
    #[error("cannot execute `{}`", path.display())]
    NotExecutable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The interpreter that its `#!` line names is not there.
    #[error("cannot execute `{}`: its interpreter `{}` was not found", path.display(), interpreter.display())]
    NoInterpreter {
        /// The script.
        path: PathBuf,
        /// What its first line names.
        interpreter: PathBuf,
    },
}

impl Lookup {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Lookup::NotFound {
                name,
                searched: true,
            } if Path::new(name).is_file() => Some(format!(
                "it is in this directory: `leakline run -- ./{}`",
                name.display()
            )),
            Lookup::NotExecutable { path, source }
                if source.kind() == io::ErrorKind::PermissionDenied && path.is_file() =>
            {
                Some(format!(
                    "`chmod +x {}`, or name its interpreter",
                    path.display()
                ))
            }
            _ => None,
        }
    }

    /// The exit status, as a shell and `env` have it.
    pub fn status(&self) -> u8 {
        match self {
            Lookup::NotFound { .. } | Lookup::NoInterpreter { .. } => 127,
            Lookup::NotExecutable { .. } => 126,
        }
    }

    /// What the kernel's refusal to execute `path` means.
    pub(super) fn from_exec(path: &Path, error: io::Error) -> Lookup {
        if error.kind() == io::ErrorKind::NotFound {
            // The file was there a moment ago: its loader is not, or it went.
            let loader = loader_of(path);
            return match loader {
                Some(interpreter) => Lookup::NoInterpreter {
                    path: path.into(),
                    interpreter,
                },
                None => Lookup::NotFound {
                    name: path.into(),
                    searched: false,
                },
            };
        }
        Lookup::NotExecutable {
            path: path.into(),
            source: error,
        }
    }
}

/// The program would run, but unrecorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot record `{}`: {obstacle}", path.display())]
pub struct Unrecordable {
    /// The executable: the program, or the interpreter of the script.
    path: PathBuf,
    obstacle: Obstacle,
}

/// What keeps the interposer out of a program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Obstacle {
    #[error("it is statically linked, and LD_PRELOAD cannot reach it")]
    Static,
    #[error("it is linked against musl, and only glibc is supported")]
    Musl,
    #[error("it is a 32-bit program, and only 64-bit ones are supported")]
    Narrow,
    #[error("it is for another machine ({0})")]
    Machine(&'static str),
    #[error(
        "it runs with {0} than yours, and the dynamic loader ignores LD_PRELOAD in such programs"
    )]
    Privileged(Privilege),
}

/// Rights that a program gets from its file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Privilege {
    #[error("other user rights (setuid)")]
    User,
    #[error("other group rights (setgid)")]
    Group,
    #[error("more rights (file capabilities)")]
    Capabilities,
}

impl Unrecordable {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match &self.obstacle {
            Obstacle::Static => "link it dynamically (without `-static`)".into(),
            Obstacle::Musl => "build it for glibc, or run it in an image that has glibc".into(),
            Obstacle::Narrow => "build it for 64 bits".into(),
            Obstacle::Machine(_) => {
                format!(
                    "build it for {}, or record on its own machine",
                    std::env::consts::ARCH
                )
            }
            Obstacle::Privileged(Privilege::Capabilities) => {
                "run leakline as root, or a copy of the program (`cp` drops capabilities)".into()
            }
            Obstacle::Privileged(_) => "run leakline as the program's owner".into(),
        }
    }
}

/// Where `execvp` would find `name`.
///
/// A name with a slash is a path; another one is searched in `PATH`. The first
/// executable file counts; a file that is not executable is remembered and
/// reported if nothing better comes.
pub(super) fn find(name: &OsStr, path_list: Option<&OsStr>) -> Result<PathBuf, Lookup> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(error) if is_absence(&error) => Err(Lookup::NotFound {
                name: name.into(),
                searched: false,
            }),
            Err(source) => Err(Lookup::NotExecutable { path, source }),
        };
    }
    let mut denied = None;
    // glibc's default where PATH is not set.
    for directory in path_list
        .unwrap_or(OsStr::new("/bin:/usr/bin"))
        .as_bytes()
        .split(|b| *b == b':')
    {
        if name.is_empty() {
            break;
        }
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        let path = Path::new(OsStr::from_bytes(directory)).join(name);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(error) if is_absence(&error) => {}
            Err(source) => {
                denied.get_or_insert(Lookup::NotExecutable { path, source });
            }
        }
    }
    Err(denied.unwrap_or(Lookup::NotFound {
        name: name.into(),
        searched: true,
    }))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn executable(path: &Path) -> io::Result<()> {
    let metadata = path.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// Checks that what runs when `path` is executed can be recorded: `path`
/// itself, or the interpreter of a script.
pub(super) fn check(path: &Path, path_list: Option<&OsStr>) -> Result<(), crate::CliError> {
    /// One more than the kernel follows.
    const DEPTH: usize = 6;
    let mut path = path.to_owned();
    for _ in 0..DEPTH {
        // Executable but not readable: the kernel can, we cannot look.
        let Ok(file) = File::open(&path) else {
            return Ok(());
        };
        let head = match head(&file) {
            Ok(head) => head,
            Err(source) => return Err(Lookup::NotExecutable { path, source }.into()),
        };
        if head.starts_with(&elf::ELFMAG) {
            return match obstacle(&path, &file, &head) {
                Some(obstacle) => Err(Unrecordable { path, obstacle }.into()),
                None => Ok(()),
            };
        }
        // Without a `#!` line the kernel refuses, and the shell takes it.
        let Some(line) = Shebang::parse(&head) else {
            return Ok(());
        };
        match executable(&line.interpreter) {
            Ok(()) => {}
            Err(error) if is_absence(&error) => {
                return Err(Lookup::NoInterpreter {
                    path,
                    interpreter: line.interpreter,
                }
                .into());
            }
            Err(source) => {
                return Err(Lookup::NotExecutable {
                    path: line.interpreter,
                    source,
                }
                .into());
            }
        }
        path = line
            .through_env()
            .and_then(|name| find(&name, path_list).ok())
            .unwrap_or(line.interpreter);
    }
    Ok(())
}

/// The first bytes of a file: as many as the kernel looks at.
fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    file.take(256).read_to_end(&mut head)?;
    Ok(head)
}

/// A script's first line.
#[derive(Debug, PartialEq, Eq)]
struct Shebang {
    interpreter: PathBuf,
    argument: Option<OsString>,
}

impl Shebang {
    fn parse(head: &[u8]) -> Option<Shebang> {
        let line = head
            .strip_prefix(b"#!")?
            .split(|byte| *byte == b'\n')
            .next()?
            .trim_ascii();
        let mut words = line.splitn(2, |byte| matches!(byte, b' ' | b'\t'));
        let interpreter = words.next().filter(|word| !word.is_empty())?;
        Some(Shebang {
            interpreter: OsStr::from_bytes(interpreter).into(),
            argument: words
                .next()
                .map(<[u8]>::trim_ascii)
                .filter(|word| !word.is_empty())
                .map(|word| OsString::from_vec(word.to_vec())),
        })
    }

    /// The program that `#!/usr/bin/env PROGRAM` runs. A guess for `env -S`
    /// with quotes and options with arguments, which are rare.
    fn through_env(&self) -> Option<OsString> {
        if self.interpreter.file_name() != Some(OsStr::new("env")) {
            return None;
        }
        self.argument
            .as_ref()?
            .as_bytes()
            .split(u8::is_ascii_whitespace)
            .find(|word| !word.is_empty() && !word.starts_with(b"-") && !word.contains(&b'='))
            .map(|word| OsString::from_vec(word.to_vec()))
    }
}

/// What keeps the interposer out of an ELF executable. What cannot be made
/// sense of is left to the kernel to refuse.
fn obstacle(path: &Path, file: &File, head: &[u8]) -> Option<Obstacle> {
    if *head.get(4)? != elf::ELFCLASS64.0 {
        return Some(Obstacle::Narrow);
    }
    let cache = ReadCache::new(file);
    let header = elf::FileHeader64::<Endianness>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    let machine = header.e_machine(endian);
    if machine != NATIVE_MACHINE {
        return Some(Obstacle::Machine(machine_name(machine)));
    }
    match interpreter(header, endian, &cache).ok()? {
        // The dynamic loader itself, with the program as its argument.
        None if path.file_name()?.as_bytes().starts_with(b"ld-linux") => {}
        None => return Some(Obstacle::Static),
        Some(loader) if is_musl(&loader) => return Some(Obstacle::Musl),
        Some(_) => {}
    }
    privilege(file).map(Obstacle::Privileged)
}

fn machine_name(machine: elf::Machine) -> &'static str {
    match machine {
        elf::EM_X86_64 => "x86_64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_RISCV => "riscv64",
        elf::EM_PPC64 => "powerpc64",
        elf::EM_S390 => "s390x",
        _ => "neither x86_64 nor aarch64",
    }
}

/// The dynamic loader that an ELF executable asks for.
fn interpreter<'data>(
    header: &elf::FileHeader64<Endianness>,
    endian: Endianness,
    data: impl ReadRef<'data>,
) -> object::read::Result<Option<PathBuf>> {
    for segment in header.program_headers(endian, data)? {
        if let Some(path) = segment.interpreter(endian, data)? {
            return Ok(Some(OsStr::from_bytes(path).into()));
        }
    }
    Ok(None)
}

fn is_musl(loader: &Path) -> bool {
    loader
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"ld-musl"))
}

/// The loader or interpreter that executing `path` takes.
fn loader_of(path: &Path) -> Option<PathBuf> {
    let file = File::open(path).ok()?;
    if let Some(line) = Shebang::parse(&head(&file).ok()?) {
        return Some(line.interpreter);
    }
    let cache = ReadCache::new(&file);
    let header = elf::FileHeader64::<Endianness>::parse(&cache).ok()?;
    interpreter(header, header.endian().ok()?, &cache).ok()?
}

/// Rights that make the dynamic loader ignore `LD_PRELOAD` (`AT_SECURE`).
fn privilege(file: &File) -> Option<Privilege> {
    let metadata = file.metadata().ok()?;
    let ignored = rustix::thread::no_new_privs().unwrap_or(false)
        || rustix::fs::fstatvfs(file)
            .is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOSUID));
    if ignored {
        return None;
    }
    file_privilege(&metadata, getuid().as_raw(), getgid().as_raw()).or_else(|| {
        // The kernel gives root what it has anyway, and no secure mode.
        let has_capabilities = !getuid().is_root()
            && rustix::fs::fgetxattr(file, c"security.capability", &mut [0_u8; 64])
                .is_ok_and(|length| length > 0);
        has_capabilities.then_some(Privilege::Capabilities)
    })
}

/// Rights from the mode bits, for a user and group.
fn file_privilege(metadata: &Metadata, uid: u32, gid: u32) -> Option<Privilege> {
    const SET_USER: u32 = 0o4000;
    /// Without the group's execute bit, setgid meant mandatory locking.
    const SET_GROUP: u32 = 0o2010;
    if metadata.mode() & SET_USER != 0 && metadata.uid() != uid {
        Some(Privilege::User)
    } else if metadata.mode() & SET_GROUP == SET_GROUP && metadata.gid() != gid {
        Some(Privilege::Group)
    } else {
        None
    }
}

#[cfg(target_arch = "x86_64")]
const NATIVE_MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE_MACHINE: elf::Machine = elf::EM_AARCH64;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<(String, Option<String>)> {
        let line = Shebang::parse(line.as_bytes())?;
        let text = |text: OsString| text.into_string().unwrap();
        Some((text(line.interpreter.into()), line.argument.map(text)))
    }

    #[test]
    fn first_lines_are_read_as_the_kernel_reads_them() {
        let line = |interpreter: &str, argument: Option<&str>| {
            Some((interpreter.to_owned(), argument.map(ToOwned::to_owned)))
        };
        assert_eq!(parsed("#!/bin/sh\necho"), line("/bin/sh", None));
        assert_eq!(parsed("#! /bin/sh -e \n"), line("/bin/sh", Some("-e")));
        assert_eq!(parsed("#!/bin/a\tb c  d"), line("/bin/a", Some("b c  d")));
        assert_eq!(parsed("#!"), None);
        assert_eq!(parsed("#!\n/bin/sh"), None);
        assert_eq!(parsed("#/bin/sh"), None);
    }

    #[test]
    fn env_in_a_first_line_names_the_program() {
        let through = |line: &str| {
            let line = Shebang::parse(line.as_bytes()).unwrap();
            line.through_env().map(|name| name.into_string().unwrap())
        };
        assert_eq!(
            through("#!/usr/bin/env python3").as_deref(),
            Some("python3")
        );
        assert_eq!(
            through("#!/usr/bin/env -S A=b -i python3 -X dev").as_deref(),
            Some("python3")
        );
        assert_eq!(through("#!/usr/bin/env"), None);
        assert_eq!(through("#!/bin/sh python3"), None);
    }

    #[test]
    fn rights_of_another_are_seen_and_ones_own_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, "").unwrap();
        let with_mode = |mode| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.metadata().unwrap()
        };
        let setuid = with_mode(0o4755);
        let (uid, gid) = (setuid.uid(), setuid.gid());
        assert_eq!(file_privilege(&setuid, uid, gid), None);
        assert_eq!(file_privilege(&setuid, uid + 1, gid), Some(Privilege::User));
        let setgid = with_mode(0o2755);
        assert_eq!(file_privilege(&setgid, uid, gid), None);
        assert_eq!(
            file_privilege(&setgid, uid, gid + 1),
            Some(Privilege::Group)
        );
        let locked = with_mode(0o2745);
        assert_eq!(file_privilege(&locked, uid, gid + 1), None);
    }

    #[test]
    fn no_bytes_after_the_magic_make_the_check_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let good = std::fs::read("/proc/self/exe").unwrap();
        for length in (0..64).chain([100, 500, 1000, 2000]) {
            std::fs::write(&path, &good[..length]).unwrap();
            let _ = check(&path, None);
        }
        // Every byte of the headers, at its most misleading.
        for at in 4..600 {
            let mut bytes = good[..4096].to_vec();
            bytes[at] = 0xff;
            std::fs::write(&path, &bytes).unwrap();
            let _ = check(&path, None);
        }
    }
}
