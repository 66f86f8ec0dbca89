//! The allow-list: which commands a worker runs, and how. It belongs to the worker's operator; a schedule only
//! names an entry and adds arguments.
//!
//! ```yaml
//! commands:
//!   vacuum-tool:
//!     program: /usr/local/bin/vacuum-tool
//!     args: [--host, db-1]     # before the task's own arguments
//!     cwd: /var/lib/vacuum
//!     env: [PGHOST]            # passed on from the worker's environment; nothing else is
//!     secrets: [PGPASSWORD]    # passed on too, and masked wherever the command says it
//!     limits: {time: 10m, memory_mib: 512, processes: 20, open_files: 256, nice: 10}
//!     exit_codes: {success: [0, 3], permanent: [64, 65], retryable: [75], others: retryable}
//! ```

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize};
use shared::{limits, names::ActionName, suggest::explain_unknown};

pub use super::{
    exit_codes::{ExitCodes, Others},
    limits::CommandLimits,
};

/// Bytes kept of each of a command's two outputs, unless its entry says else: the last ones.
pub const OUTPUT_BYTES_DEFAULT: usize = 64 * 1024;
/// Fewest bytes of output that may be kept: a line of JSON needs some room.
pub const OUTPUT_BYTES_MIN: usize = 1024;
/// Most bytes of output that may be kept.
pub const OUTPUT_BYTES_MAX: usize = limits::RESPONSE_BYTES_MAX;
/// Bytes of the file, at most.
const FILE_BYTES_MAX: usize = limits::DEFINITIONS_BYTES_MAX;

/// What a worker may run on its own machine. By default: nothing.
#[derive(Debug, Clone, Default)]
pub struct LocalSettings {
    /// The allow-list.
    pub commands: BTreeMap<ActionName, CommandSettings>,
    /// The words that start the guard of a command, such as `/usr/bin/cronfleet guard`; see [`super::guard`].
    /// Empty: commands run without one, and outlive a worker that is killed.
    pub guard: Vec<OsString>,
}

/// How one command is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSettings {
    /// The program: an absolute path, so that no search path decides what runs.
    #[serde(deserialize_with = "absolute")]
    pub program: PathBuf,
    /// Arguments before the task's own.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub args: Vec<String>,
    /// The directory it runs in: an absolute path. Default: `/`.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "absolute_if_any")]
    pub cwd: Option<PathBuf>,
    /// Names of variables passed on from the worker's environment, if they are set there. Nothing else is passed on.
    #[serde(skip_serializing_if = "Vec::is_empty", default, deserialize_with = "variable_names")]
    pub env: Vec<String>,
    /// As `env`, and their values are secret: wherever the command says one, `***` is shown, kept and recorded instead.
    #[serde(skip_serializing_if = "Vec::is_empty", default, deserialize_with = "variable_names")]
    pub secrets: Vec<String>,
    /// How much it may use.
    #[serde(default)]
    pub limits: CommandLimits,
    /// What its exit codes mean.
    #[serde(default)]
    pub exit_codes: ExitCodes,
    /// Bytes kept of each of its outputs, the last ones: 1024 to 1048576. Default 65536.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "output_bytes")]
    pub output_bytes: Option<usize>,
}

/// Why there is no allow-list.
#[derive(Debug, thiserror::Error)]
pub enum LocalSettingsError {
    /// The file cannot be read.
    #[error("the allow-list {path} cannot be read: {error}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// It is no allow-list.
    #[error("the allow-list {path} is not one: {reason}", path = path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// What is wrong, where, and how it is written instead.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    commands: BTreeMap<ActionName, CommandSettings>,
}

impl LocalSettings {
    /// Reads the allow-list from a YAML or JSON file. `guard` are the words that start a command's guard.
    pub fn from_file(path: &Path, guard: Vec<OsString>) -> Result<Self, LocalSettingsError> {
        let text =
            read_bounded(path).map_err(|error| LocalSettingsError::Read { path: path.to_owned(), error })?;
        let commands =
            parse(&text).map_err(|reason| LocalSettingsError::Shape { path: path.to_owned(), reason })?;
        Ok(Self { commands, guard })
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    if text.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {FILE_BYTES_MAX} bytes"),
        ));
    }
    Ok(text)
}

/// JSON is YAML too, so one reader does. What it read is then looked at with serde's own messages, which name the
/// fields that exist.
fn parse(text: &str) -> Result<BTreeMap<ActionName, CommandSettings>, String> {
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let read: Result<File, _> = serde_path_to_error::deserialize(value);
    read.map(|file| file.commands).map_err(|error| {
        let words = explain_unknown(&error.inner().to_string());
        match error.path().to_string() {
            whole if whole == "." => words,
            place => format!("{place}: {words}"),
        }
    })
}

fn check_absolute<E: serde::de::Error>(path: PathBuf) -> Result<PathBuf, E> {
    if path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0) {
        return Ok(path);
    }
    Err(E::custom(format!(
        "{} is not an absolute path; write it from / on: nothing is searched for",
        path.display()
    )))
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    check_absolute(PathBuf::deserialize(deserializer)?)
}

fn absolute_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Option::<PathBuf>::deserialize(deserializer)?.map(check_absolute).transpose()
}

fn variable_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let bad = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    match names.iter().find(bad) {
        Some(name) => Err(serde::de::Error::custom(format!(
            "{name:?} is not the name of a variable; write names only, such as PGPASSFILE: values come from the worker's environment"
        ))),
        None => Ok(names),
    }
}

fn output_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    match Option::<usize>::deserialize(deserializer)? {
        Some(bytes) if !(OUTPUT_BYTES_MIN..=OUTPUT_BYTES_MAX).contains(&bytes) => {
            Err(serde::de::Error::custom(format!(
                "output_bytes is {bytes}; it is {OUTPUT_BYTES_MIN} to {OUTPUT_BYTES_MAX}"
            )))
        }
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_list_is_read_from_yaml_and_from_json() {
        let yaml = "commands:\n  vacuum-tool:\n    program: /bin/true\n    args: [--host, db-1]\n    env: [PGPASSFILE]\n";
        let json = r#"{"commands": {"vacuum-tool":
            {"program": "/bin/true", "args": ["--host", "db-1"], "env": ["PGPASSFILE"]}}}"#;
        let commands = parse(yaml).expect("yaml");
        assert_eq!(parse(json), Ok(commands.clone()));
        let (name, command) = commands.first_key_value().expect("one");
        assert_eq!((name.as_str(), command.program.as_path()), ("vacuum-tool", Path::new("/bin/true")));
        assert_eq!((command.cwd.as_ref(), command.output_bytes), (None, None));
    }

    #[test]
    fn what_is_no_allow_list_is_refused_with_the_place_and_the_repair() {
        let entry = |rest: &str| format!("commands:\n  tool: {{{rest}}}");
        for (text, parts) in [
            (entry("program: vacuum"), ["tool", "not an absolute path"]),
            (entry("program: /bin/true, cwd: here"), ["tool", "not an absolute path"]),
            (entry("program: /bin/true, arg: [x]"), ["tool", "did you mean `args`?"]),
            (entry("program: /bin/true, env: [A=b]"), ["tool", "names only"]),
            (entry("program: /bin/true, output_bytes: 5"), ["tool", "1024 to 1048576"]),
            (entry("program: /bin/true, secrets: [A=b]"), ["tool.secrets", "names only"]),
            (entry("program: /bin/true, limits: {nice: 40}"), ["tool.limits", "0 to 19"]),
            (entry("program: /bin/true, limits: {memory: 4}"), ["tool.limits", "unknown field `memory`"]),
            (
                entry("program: /bin/true, exit_codes: {success: [1, 1], permanent: [1]}"),
                ["tool.exit_codes", "twice"],
            ),
            (entry("args: [x]"), ["tool", "missing field `program`"]),
            ("commands:\n  a.b: {program: /bin/true}".to_owned(), ["commands", "only A-Z"]),
            (
                "commands:\n  a: {program: /bin/true}\n  a: {program: /bin/false}".to_owned(),
                ["a", "duplicate"],
            ),
            ("command: {}".to_owned(), ["command", "did you mean `commands`?"]),
            ("[]".to_owned(), ["expected", "struct"]),
        ] {
            let reason = parse(&text).expect_err(&text);
            for part in parts {
                assert!(reason.contains(part), "{text}: {reason}");
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error =
            LocalSettings::from_file(Path::new("/nowhere/commands.yaml"), Vec::new()).expect_err("no file");
        assert!(error.to_string().contains("/nowhere/commands.yaml cannot be read"), "{error}");
    }
}
