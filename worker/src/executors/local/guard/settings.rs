//! What a guard is told by its arguments.

use std::{ffi::OsString, str::FromStr, time::Duration};

use shared::{human_duration::HumanDuration, limits};

use super::{Bounds, StartLimits};

/// What a guard is told by its arguments: `[--start] [--grace 5s] [--silence 15s] [--memory-mib N] … -- PROGRAM [ARGUMENT]...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSettings {
    /// Which of the two it is.
    pub stage: Stage,
    /// Between asking the tree to end and ending it.
    pub grace: Duration,
    /// The worker gives signs of life, and is frozen or cut off from its guard if none came for this long; none: it gives none.
    pub silence: Option<Duration>,
    /// What the tree may use together.
    pub bounds: Bounds,
    /// What each process may use.
    pub limits: StartLimits,
    /// What is run.
    pub program: OsString,
    /// With which arguments.
    pub args: Vec<OsString>,
}

/// The two processes of a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It guards.
    Guard,
    /// It sets its own limits and becomes the command.
    Start,
}

impl GuardSettings {
    /// A guard of this program, with what is usual.
    pub fn of(program: impl Into<OsString>) -> Self {
        Self {
            stage: Stage::Guard,
            grace: limits::KILL_GRACE,
            silence: None,
            bounds: Bounds::default(),
            limits: StartLimits::default(),
            program: program.into(),
            args: Vec::new(),
        }
    }

    /// Reads the arguments after the word `guard`, as `to_args` writes them.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut args = args.into_iter();
        let mut settings = Self::of("");
        loop {
            let word = args.next().ok_or_else(usage)?;
            let option = word.to_str().unwrap_or_default();
            let StartLimits { address_space_mib, open_files, nice } = &mut settings.limits;
            match option {
                "--" => break,
                "--start" => settings.stage = Stage::Start,
                "--grace" => settings.grace = value::<HumanDuration>(option, args.next())?.0,
                "--silence" => settings.silence = Some(value::<HumanDuration>(option, args.next())?.0),
                "--memory-mib" => settings.bounds.memory_mib = Some(value(option, args.next())?),
                "--processes" => settings.bounds.processes = Some(value(option, args.next())?),
                "--address-space-mib" => *address_space_mib = Some(value(option, args.next())?),
                "--open-files" => *open_files = Some(value(option, args.next())?),
                "--nice" => *nice = Some(value(option, args.next())?),
                _ => return Err(format!("{} is not an option; {}", word.display(), usage())),
            }
        }
        settings.program = args.next().ok_or_else(usage)?;
        settings.args = args.collect();
        Ok(settings)
    }

    /// The arguments after the word `guard`.
    pub(super) fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                args.extend([name.into(), value.into()]);
            }
        };
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        if self.stage == Stage::Guard {
            option("--grace", Some(HumanDuration(self.grace).to_string()));
            option("--silence", self.silence.map(|silence| HumanDuration(silence).to_string()));
            option("--memory-mib", number(self.bounds.memory_mib));
            option("--processes", number(self.bounds.processes));
        }
        option("--address-space-mib", number(self.limits.address_space_mib));
        option("--open-files", number(self.limits.open_files));
        option("--nice", self.limits.nice.map(|nice| nice.to_string()));
        if self.stage == Stage::Start {
            args.push("--start".into());
        }
        args.extend(["--".into(), self.program.clone()]);
        args.extend(self.args.iter().cloned());
        args
    }
}

fn usage() -> String {
    "usage: guard [--grace 5s] [--silence 15s] [--memory-mib N] [--processes N] [--address-space-mib N] [--open-files N] [--nice N] -- \
     PROGRAM [ARGUMENT]..."
        .to_owned()
}

fn value<T: FromStr<Err: std::fmt::Display>>(option: &str, text: Option<OsString>) -> Result<T, String> {
    let text = text.ok_or_else(usage)?;
    text.to_string_lossy().parse().map_err(|error| format!("{option}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<GuardSettings, String> {
        GuardSettings::from_args(args.iter().map(OsString::from))
    }

    #[test]
    fn a_guard_reads_its_own_options_and_leaves_the_commands_alone() {
        let settings =
            read(&["--grace", "250ms", "--", "/bin/tool", "--grace", "--", "x"]).expect("settings");
        assert_eq!(settings.grace, Duration::from_millis(250));
        assert_eq!(settings.program, "/bin/tool");
        assert_eq!(settings.args, ["--grace", "--", "x"]);
        assert_eq!(read(&["--", "/bin/tool"]).expect("settings"), GuardSettings::of("/bin/tool"));
        for args in [
            &[][..],
            &["--"],
            &["/bin/tool"],
            &["--grace", "soon", "--", "x"],
            &["--grace"],
            &["--nice", "x"],
        ] {
            assert!(read(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut settings = GuardSettings::of("/bin/tool");
        settings.args = vec!["--nice".into(), "--".into()];
        assert_eq!(GuardSettings::from_args(settings.to_args()), Ok(settings.clone()));
        settings.limits = StartLimits { address_space_mib: Some(64), open_files: Some(8), nice: Some(19) };
        settings.silence = Some(Duration::from_millis(1_333));
        settings.bounds = Bounds { memory_mib: Some(5), processes: Some(7) };
        assert_eq!(GuardSettings::from_args(settings.to_args()), Ok(settings.clone()));
        settings.stage = Stage::Start;
        let start = GuardSettings::from_args(settings.to_args()).expect("settings");
        assert_eq!((start.stage, start.limits), (Stage::Start, settings.limits));
    }
}
