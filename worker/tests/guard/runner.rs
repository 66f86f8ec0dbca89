//! As much of a test harness as cargo and nextest ask for.

use std::{
    ffi::OsString,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    process::ExitCode,
};

/// A test: its name, and how it begins.
pub(crate) type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// Names tests by their functions.
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), || Box::pin($name()))),*] };
}
pub(crate) use tests;

/// Lists or runs the tests that the arguments ask for.
pub(crate) fn run(tests: &[Test], args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    let mut filters = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--format" | "--test-threads" | "--skip" | "--color" | "-Z" => drop(words.next()),
            option if option.starts_with('-') => {}
            filter => filters.push(filter),
        }
    }
    let wanted = |name: &str| {
        let fits = |filter: &&str| if flag("--exact") { name == *filter } else { name.contains(filter) };
        // None of these is ever ignored.
        !flag("--ignored") && (filters.is_empty() || filters.iter().any(fits))
    };
    let chosen: Vec<&Test> = tests.iter().filter(|(name, _)| wanted(name)).collect();
    if flag("--list") {
        for (name, _) in &chosen {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let failed = chosen.iter().filter(|test| !passes(test)).count();
    let (word, passed) = (if failed == 0 { "ok" } else { "FAILED" }, chosen.len() - failed);
    let left_out = tests.len() - chosen.len();
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left_out} filtered out\n"
    );
    ExitCode::from(if failed == 0 { 0 } else { 101 })
}

fn passes((name, test): &Test) -> bool {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let passed = catch_unwind(AssertUnwindSafe(|| runtime.block_on(test()))).is_ok();
    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    passed
}
