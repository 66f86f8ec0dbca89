//! In Chinese.

use super::{DayRule, Days, Part, Said, Told};

const WEEKDAYS: [&str; 7] = ["周日", "周一", "周二", "周三", "周四", "周五", "周六"];

/// From the greatest to the least: year, month, day, time.
pub(super) fn sentence(said: &Said) -> String {
    let mut text = String::new();
    if said.year != Part::Every {
        text += &items(&said.year.items(), "年", "年", &|year| year.to_string());
    }
    if said.month != Part::Every {
        append(&mut text, &items(&said.month.items(), "月", "个月", &|month| month.to_string()));
    }
    let every_month = if said.month == Part::Every { "每月" } else { "" };
    let times = said.times();
    let is_daily = times.is_some() || matches!(said.hour, Part::Items(_));
    let of_month = |month: &Part| {
        let mut words = every_month.to_owned();
        append(&mut words, &days_of_month(month));
        words
    };
    let days = match said.days() {
        Days::Every if is_daily => "每天".to_owned(),
        Days::Every => String::new(),
        Days::Month(month) => of_month(month),
        Days::Week(week) => days_of_week(week, "每"),
        Days::Both(month, week) => format!("{}（且为{}）", of_month(month), days_of_week(week, "")),
        Days::Either(month, week) => format!("{}，以及{}，", of_month(month), days_of_week(week, "每")),
    };
    append(&mut text, &days);
    let time = match times {
        Some(times) => times.into_iter().map(clock).collect::<Vec<_>>().join("、"),
        None => of_clock(said),
    };
    append(&mut text, &time);
    if said.spread {
        text += "（H 和 ~ 由计划名称决定）";
    }
    text
}

/// A space stands between Chinese and a figure, and nowhere else.
fn append(text: &mut String, words: &str) {
    let after_word = text.chars().last().is_some_and(|last| !"，）".contains(last));
    if after_word && words.starts_with(|c: char| c.is_ascii_digit()) {
        text.push(' ');
    }
    text.push_str(words);
}

fn clock(time: u32) -> String {
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    if second == 0 { format!("{hour:02}:{minute:02}") } else { format!("{hour:02}:{minute:02}:{second:02}") }
}

fn of_clock(said: &Said) -> String {
    if said.on_the_hour() {
        return match said.hour {
            Part::Stride(hours) => format!("每 {hours} 小时整点"),
            _ => "每小时整点".to_owned(),
        };
    }
    let plain = |value: u16| value.to_string();
    let mut pieces = Vec::new();
    match &said.hour {
        Part::Every if matches!(said.minute, Part::Items(_)) => pieces.push("每小时".to_owned()),
        Part::Every => {}
        Part::Stride(hours) => pieces.push(format!("每 {hours} 小时")),
        hours @ Part::Items(_) => pieces.push(items(&hours.items(), "点", "小时", &plain)),
    }
    match &said.minute {
        Part::Every if matches!(said.second, Part::Every | Part::Stride(_)) => {}
        Part::Every => pieces.push("每分钟".to_owned()),
        Part::Stride(minutes) => pieces.push(format!("每 {minutes} 分钟")),
        minutes @ Part::Items(_) => {
            pieces.push(format!("第 {}", items(&minutes.items(), "分", "分钟", &plain)));
        }
    }
    if !said.on_the_minute() {
        pieces.push(match &said.second {
            Part::Every => "每秒".to_owned(),
            Part::Stride(seconds) => format!("每 {seconds} 秒"),
            seconds @ Part::Items(_) => format!("第 {}", items(&seconds.items(), "秒", "秒", &plain)),
        });
    }
    pieces.join("的")
}

fn days_of_month(part: &Part) -> String {
    if *part == Part::Every {
        "每一天".to_owned()
    } else {
        items(&part.items(), "日", "天", &|day| day.to_string())
    }
}

fn days_of_week(part: &Part, every: &str) -> String {
    if *part == Part::Every {
        return format!("{every}天");
    }
    let (rules, plain): (Vec<Told>, Vec<Told>) =
        part.items().into_iter().partition(|item| matches!(item, Told::Rule(_)));
    let mut words = Vec::new();
    if !plain.is_empty() {
        let plain = items(&plain, "", "", &|day| WEEKDAYS[usize::from(day % 7)].to_owned());
        words.push(format!("{every}{plain}"));
    }
    if !rules.is_empty() {
        let month = if every.is_empty() { "当月" } else { "每月" };
        words.push(format!("{month}{}", items(&rules, "", "", &|day| day.to_string())));
    }
    words.join("、")
}

/// `1 日、15 日至 20 日、最后一天`: each item with its unit; a step has one of its own.
fn items(items: &[Told], unit: &str, step_unit: &str, name: &dyn Fn(u16) -> String) -> String {
    let space = if unit.is_empty() { "" } else { " " };
    let value = |value: u16| format!("{}{space}{unit}", name(value));
    let words = items.iter().map(|item| match *item {
        Told::One(one) => value(one),
        Told::Range(from, to) => format!("{}至{space}{}", value(from), value(to)),
        Told::Steps(from, step, None) => format!("{}起每 {step} {step_unit}", value(from)),
        Told::Steps(from, step, Some(to)) => format!("{}至 {}每 {step} {step_unit}", value(from), value(to)),
        Told::Rule(rule) => rule_words(rule),
    });
    words.collect::<Vec<_>>().join("、")
}

fn rule_words(rule: DayRule) -> String {
    let weekday = |day: u16| WEEKDAYS[usize::from(day % 7)];
    match rule {
        DayRule::FromLast(0) => "最后一天".to_owned(),
        DayRule::FromLast(before) => format!("倒数第 {} 天", before + 1),
        DayRule::LastWorkday => "最后一个工作日".to_owned(),
        DayRule::NearestWorkday(day) => format!("离 {day} 日最近的工作日"),
        DayRule::Nth(day, nth) => format!("第 {nth} 个{}", weekday(day)),
        DayRule::LastOf(day) => format!("最后一个{}", weekday(day)),
    }
}
