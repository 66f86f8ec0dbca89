//! Definitions files, as `apply`, `diff` and `next` read them.

use std::{collections::BTreeSet, io::Read, path::Path};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use shared::{
    definitions::{Definitions, DefinitionsError},
    limits::{DEFINITIONS_BYTES_MAX, ICAL_BYTES_MAX},
    names::{Name, TargetName},
    target::{Target, TargetFields},
};

use super::known::unknown;

/// Which definitions.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// A file with definitions, YAML or JSON; `-` is stdin. May be given several times
    #[arg(long = "file", short = 'f', required = true, value_name = "FILE")]
    pub files: Vec<String>,

    /// Where a target of the files is reached here: replaces its `http`. May be given several times
    #[arg(long, value_name = "NAME=URL", value_parser = parse_target_url)]
    pub target_url: Vec<(TargetName, String)>,
}

fn parse_target_url(text: &str) -> Result<(TargetName, String), String> {
    let (name, url) =
        text.split_once('=').ok_or("write it as NAME=URL, such as storage=http://10.0.0.7:9101")?;
    Ok((name.parse().map_err(|error: shared::names::NameError| error.to_string())?, url.to_owned()))
}

/// What files say, and which of them says it, so that what is found wrong later has its file and line, too.
#[derive(Debug, Default)]
pub struct Files {
    /// The definitions of all of them together.
    pub definitions: Definitions,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    /// How people call it.
    shown: String,
    text: String,
    schedules: BTreeSet<Name>,
}

impl Files {
    /// Checks that everything a schedule refers to is in the files or in the fleet.
    pub fn check_references(&self, fleet: &Definitions) -> anyhow::Result<()> {
        let Err(error) = self.definitions.check_references(fleet) else { return Ok(()) };
        let says = |source: &&Source| {
            error.schedule().is_some_and(|name| source.schedules.iter().any(|said| said.as_str() == name))
        };
        match self.sources.iter().find(says) {
            Some(source) => Err(explain(&error, &source.text, &source.shown)),
            None => Err(error.into()),
        }
    }
}

/// A mistake with its place, and the file's name in front.
fn explain(error: &DefinitionsError, text: &str, shown: &str) -> anyhow::Error {
    anyhow!(error.explain(text).replace("<input>", shown)).context(shown.to_owned())
}

impl FileArgs {
    /// The definitions of all files, with the targets where they are here.
    pub fn read(&self) -> anyhow::Result<Files> {
        let mut files = read_all(&self.files)?;
        let definitions = &mut files.definitions;
        for (name, url) in &self.target_url {
            let Some(target) = definitions.targets.get(name) else {
                let known: Vec<&str> = definitions.targets.keys().map(TargetName::as_str).collect();
                return Err(unknown("target", name.as_str(), known)
                    .context(format!("--target-url {name}={url} is about a target of the files")));
            };
            let fields = TargetFields { http: Some(url.clone()), ..target.clone().into() };
            let moved = Target::try_from(fields).with_context(|| format!("--target-url {name}={url}"))?;
            definitions.targets.insert(name.clone(), moved);
        }
        Ok(files)
    }
}

/// The definitions of all these files together. What two of them define is an error: neither is meant to win.
pub fn read_all(files: &[String]) -> anyhow::Result<Files> {
    if files.iter().filter(|file| *file == "-").count() > 1 {
        bail!("`-f -` is given more than once; stdin can be read once");
    }
    let (mut all, mut sources) = (Definitions::default(), Vec::new());
    for file in files {
        let shown = if file == "-" { "stdin" } else { file };
        let text = read_text(file).with_context(|| format!("cannot read {shown}"))?;
        // A file that is named in another lies beside it; one that is named on stdin, here.
        let folder = Path::new(file).parent().filter(|_| file != "-").unwrap_or(Path::new(""));
        let mut read = |path: &str| read_beside(folder, path);
        let Definitions { targets, schedules, queues, calendars } =
            Definitions::parse_with_files(&text, &mut read).map_err(|error| explain(&error, &text, shown))?;
        let names = schedules.keys().cloned().collect();
        let twice = |kind: &str, name: &str| {
            format!("{shown}: {kind} {name:?} is defined in an earlier file, too; define it once")
        };
        for (name, value) in targets {
            let what = twice("target", name.as_str());
            if all.targets.insert(name, value).is_some() {
                bail!(what);
            }
        }
        for (name, value) in schedules {
            let what = twice("schedule", name.as_str());
            if all.schedules.insert(name, value).is_some() {
                bail!(what);
            }
        }
        for (name, value) in queues {
            let what = twice("queue", name.as_str());
            if all.queues.insert(name, value).is_some() {
                bail!(what);
            }
        }
        for (name, value) in calendars {
            let what = twice("calendar", name.as_str());
            if all.calendars.insert(name, value).is_some() {
                bail!(what);
            }
        }
        sources.push(Source { shown: shown.to_owned(), text, schedules: names });
    }
    Ok(Files { definitions: all, sources })
}

/// The text of a file, or of stdin, as far as any is read.
pub(super) fn read_text(file: &str) -> anyhow::Result<String> {
    // One byte more than is allowed, so that the parser sees that it is too much; never a whole disk.
    let limit = DEFINITIONS_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    if file == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    }
    String::from_utf8(bytes).context("it is not UTF-8 text")
}

/// A file that definitions name, such as a calendar's holidays. Never a device or a pipe, which might not end.
fn read_beside(folder: &Path, path: &str) -> Result<Vec<u8>, String> {
    let path = folder.join(path);
    let metadata = std::fs::metadata(&path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(ICAL_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The names of the schedules, for suggestions.
pub fn schedule_names(definitions: &Definitions) -> impl Iterator<Item = &str> {
    definitions.schedules.keys().map(Name::as_str)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    fn args(files: &[&tempfile::NamedTempFile], target_url: &[&str]) -> FileArgs {
        FileArgs {
            files: files.iter().map(|file| file.path().display().to_string()).collect(),
            target_url: target_url.iter().map(|text| parse_target_url(text).expect("NAME=URL")).collect(),
        }
    }

    #[test]
    fn several_files_are_one_and_a_target_is_where_it_is_here() {
        let targets =
            file("targets: {storage: {http: 'http://a:1', health: /healthz}, feed: {message: svc.feed}}");
        let queues = file(r#"{"queues": {"reports": {"max_in_flight": 2}}}"#);
        let read =
            args(&[&targets, &queues], &["storage=http://b:2/"]).read().expect("definitions").definitions;
        assert_eq!(read.queues.len(), 1);
        let storage = &read.targets[&"storage".parse::<TargetName>().expect("name")];
        assert_eq!(storage.health_url().as_deref(), Some("http://b:2/healthz"));
        for (target_url, part) in [
            ("storge=http://b", "did you mean \"storage\""),
            ("feed=http://b", "several"),
            ("storage=b", "base URL"),
        ] {
            let error = args(&[&targets], &[target_url]).read().expect_err(target_url);
            assert!(crate::exit::explain(&error).contains(part), "{error:#}");
        }
    }

    #[test]
    fn what_is_defined_twice_is_refused() {
        let (one, two) = (file("queues: {reports: {}}"), file("queues: {reports: {max_in_flight: 2}}"));
        let error = args(&[&one, &two], &[]).read().expect_err("twice").to_string();
        assert!(error.contains("queue \"reports\" is defined in an earlier file"), "{error}");
    }

    #[test]
    fn what_a_schedule_refers_to_in_vain_is_shown_in_its_file_and_line() {
        let targets = file("targets: {storage: {http: 'http://a:1'}}\nqueues: {reports: {}}");
        let schedules = file(
            "schedules:\n  hourly:\n    every: 1h\n    # queue: repots was wrong\n    queue: repots\n    task: \
             {target_service: storage, action: a}",
        );
        let json = file(
            r#"{"schedules": {"daily": {"every": "1d", "task": {"target_service": "storag", "action": "a"}}}}"#,
        );
        let none = Definitions::default();
        for (one, place, part) in [
            (&schedules, ":5:12", "queue \"repots\" is not declared (did you mean \"reports\"?)"),
            (&json, ":1:68", "target \"storag\" is not declared (did you mean \"storage\"?)"),
        ] {
            let files = args(&[&targets, one], &[]).read().expect("definitions");
            let message = crate::exit::explain(&files.check_references(&none).expect_err("a slip"));
            let path = one.path().display().to_string();
            assert!(message.starts_with(&path) && message.contains(&format!("{path}{place}")), "{message}");
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let bad = file("queues: [");
        let path = bad.path().display().to_string();
        assert!(crate::exit::explain(&args(&[&bad], &[]).read().expect_err("bad")).contains(&path));
        let gone = FileArgs { files: vec!["/nonexistent.yaml".into()], target_url: Vec::new() };
        assert!(crate::exit::explain(&gone.read().expect_err("gone")).contains("/nonexistent.yaml"));
    }

    #[test]
    fn holidays_are_read_from_a_file_beside_the_definitions_and_their_dates_are_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let ics = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20261001\r\nDTEND;VALUE=DATE:20261003\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
        std::fs::write(folder.path().join("cn.ics"), ics).expect("written");
        let yaml = folder.path().join("calendars.yaml");
        let read = |holidays: &str| {
            std::fs::write(
                &yaml,
                format!("calendars: {{cn: {{weekdays: mon-fri, holidays: {{ical: {holidays}}}}}}}"),
            )
            .expect("written");
            read_all(&[yaml.display().to_string()])
        };
        let calendars = read("cn.ics").expect("definitions").definitions.calendars;
        let kept = serde_json::to_string(&calendars).expect("json");
        assert_eq!(kept, r#"{"cn":{"weekdays":"mon-fri","except":["2026-10-01","2026-10-02"]}}"#);
        for (file, part) in [("gone.ics", "gone.ics"), (".", "not a file"), ("calendars.yaml", "line 1")] {
            let error = crate::exit::explain(&read(file).expect_err(file));
            assert!(error.contains(part) && error.contains("calendar \"cn\""), "{error}");
        }
    }
}
