//! Golden files: what stands in `testdata/import/NAME.in` is printed as `NAME.yaml` and `NAME.commands.yaml`. With
//! `CRONFLEET_UPDATE_DOCS=1` they are written anew.

use std::path::Path;

use chrono_tz::Tz;
use proptest::prelude::*;
use shared::definitions::Definitions;
use worker::executors::local::LocalSettings;

use super::{
    Names, crontab, kubernetes,
    print::{self, Source},
    xxl_job,
};

type Read = fn(&str, &mut Names) -> Vec<super::Item>;

const GOLDEN: [(&str, Read); 5] = [
    ("crontab-user", |text, names| crontab::read(text, crontab::Options::default(), names)),
    ("crontab-system", |text, names| {
        crontab::read(text, crontab::Options { has_users: true, zone: None }, names)
    }),
    ("kubernetes", |text, names| kubernetes::read(text, None, names)),
    ("xxl-api", |text, names| xxl_job::read(text, Some(Tz::Asia__Shanghai), names).expect("rows")),
    ("xxl-table", |text, names| xxl_job::read(text, None, names).expect("rows")),
];

fn check(path: &Path, printed: &str) {
    if std::env::var_os("CRONFLEET_UPDATE_DOCS").is_some() {
        std::fs::write(path, printed).expect("written");
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == printed, "{} is not what is printed:\n{printed}", path.display());
}

#[test]
fn what_others_were_told_is_printed_as_the_golden_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/import");
    for (name, read) in GOLDEN {
        let text = std::fs::read_to_string(folder.join(format!("{name}.in"))).expect("a source");
        let source = Source { shown: format!("{name}.in"), items: read(&text, &mut Names::default()) };
        let sources = [source];
        let printed = print::definitions(&sources, &["made by a test".to_owned()]).expect("printed");
        check(&folder.join(format!("{name}.yaml")), &printed);
        check(&folder.join(format!("{name}.commands.yaml")), &print::allow_list(&sources).expect("printed"));
        can_be_read(&sources);
    }
}

/// What is printed is what `apply` and a worker read, and each reference in it leads somewhere.
fn can_be_read(sources: &[Source]) {
    let printed = print::definitions(sources, &[]).expect("printed");
    let definitions = Definitions::parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    definitions
        .check_references(&Definitions::default())
        .unwrap_or_else(|error| panic!("{error}\n{printed}"));
    let active = sources.iter().flat_map(|source| &source.items).filter_map(|item| item.entry.as_ref());
    for entry in active.filter(|entry| entry.is_active) {
        let wanted = shared::schedule::Schedule::try_from(entry.fields.clone())
            .expect("a schedule")
            .named(&entry.name);
        assert_eq!(definitions.schedules.get(&entry.name), Some(&wanted), "{printed}");
    }
    let allow_list = print::allow_list(sources).expect("printed");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &allow_list).expect("written");
    let read = LocalSettings::from_file(file.path(), Vec::new());
    let commands = read.unwrap_or_else(|error| panic!("{error}\n{allow_list}")).commands;
    for allowed in sources
        .iter()
        .flat_map(|source| &source.items)
        .filter_map(|item| item.entry.as_ref()?.command.as_ref())
    {
        if let Ok(settings) = &allowed.settings {
            assert_eq!(commands.get(&allowed.name), Some(settings), "{allow_list}");
        }
    }
}

#[test]
fn nothing_that_is_no_export_is_taken_for_one() {
    for (text, part) in [
        ("", "names neither"),
        ("a,b\n1,2", "names neither"),
        ("[1, 2]", "holds no rows"),
        ("{\"data\": ", "no JSON"),
    ] {
        let error = xxl_job::read(text, None, &mut Names::default()).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(crontab::read("# nothing\n\n", crontab::Options::default(), &mut Names::default()).is_empty());
    assert!(kubernetes::read("---\n# nothing\n---\n", None, &mut Names::default()).is_empty());
}

#[test]
fn two_files_never_give_two_schedules_one_name() {
    let mut names = Names::default();
    let mut items = |text: &str| crontab::read(text, crontab::Options::default(), &mut names);
    let all = [items("0 1 * * * /a/run.sh\n0 2 * * * /b/run.sh"), items("0 3 * * * /c/run.sh")].concat();
    let found: Vec<String> =
        all.iter().filter_map(|item| item.entry.as_ref()).map(|entry| entry.name.to_string()).collect();
    assert_eq!(found, ["run", "run-2", "run-3"]);
}

/// All three, whatever it is; and what they made of it can be read.
fn read_as_everything(text: &str) {
    let mut names = Names::default();
    let items = [
        crontab::read(text, crontab::Options::default(), &mut names),
        crontab::read(text, crontab::Options { has_users: true, zone: Some(Tz::Europe__Paris) }, &mut names),
        kubernetes::read(text, None, &mut names),
        xxl_job::read(text, None, &mut names).unwrap_or_default(),
    ];
    can_be_read(&items.map(|items| Source { shown: "x\ny".to_owned(), items }));
}

/// Pieces that mean something, between those that do not.
fn pieces() -> impl Strategy<Value = String> {
    let known = [
        "0 1 * * * ",
        "*/5 * * * * ",
        "@daily ",
        "@reboot ",
        "CRON_TZ=",
        "TZ=Asia/Tokyo",
        "%",
        "\\%",
        "\n",
        "\r\n",
        "\t",
        "  ",
        "#",
        "'",
        "\"",
        "kind: CronJob\n",
        "metadata: {name: a}\n",
        "spec:\n  schedule: '0 1 * * *'\n",
        "---\n",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\u{85}",
        "\u{2028}",
        "\u{0}",
        "\u{1b}[31m",
        "/bin/true",
        "root ",
        "数据",
        "job_desc,executor_handler,schedule_conf\n",
        "a,b,0 0 1 * * ?\n",
        "\u{202e}",
        "<<EOF",
        "|",
        ">",
    ];
    let piece =
        prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic_or_print_what_cannot_be_read(text in pieces()) {
        read_as_everything(&text);
    }

    #[test]
    fn no_command_line_is_changed_on_its_way_to_the_allow_list(command in "[^%\\p{C}\\p{Z}][^%\\n\\r]{0,80}") {
        let items = crontab::read(&format!("0 1 * * * {command}"), crontab::Options::default(), &mut Names::default());
        let line = format!("0 1 * * * {command}");
        let written = line.trim()[10..].to_owned();
        let found = items[0].entry.as_ref().and_then(|entry| entry.command.as_ref()).expect("a command");
        prop_assert_eq!(&found.settings.as_ref().expect("settings").args[1], &written);
        can_be_read(&[Source { shown: "x".to_owned(), items }]);
    }

    #[test]
    fn no_row_makes_the_reader_panic_or_print_what_cannot_be_read(
        cells in prop::collection::vec((any::<String>(), "[0-9,]{0,6}", "[-0-9*/?LW#, ]{0,20}", any::<String>(), "[0-9]{0,3}"), 0..6)
    ) {
        let rows: Vec<serde_json::Value> = cells.into_iter().enumerate().map(|(id, (desc, children, conf, param, number))| serde_json::json!({
            "id": id, "jobDesc": desc, "childJobId": children, "scheduleType": if id % 2 == 0 { "CRON" } else { "FIX_RATE" },
            "scheduleConf": if id % 3 == 0 { "0 0 1 * * ?".to_owned() } else if id % 3 == 1 { number.clone() } else { conf },
            "executorHandler": "h", "executorParam": param, "executorTimeout": number, "glueType": "BEAN", "triggerStatus": 1
        })).collect();
        read_as_everything(&serde_json::to_string(&rows).expect("JSON"));
    }
}
