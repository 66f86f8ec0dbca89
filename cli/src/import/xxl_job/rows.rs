//! The rows of `xxl_job_info`, out of JSON or CSV, with their fields under one spelling.

use std::collections::BTreeMap;

use serde_json::Value;

/// How deep in a JSON document the rows may lie: the answer of a page query has them under `data`.
const DEPTH_MAX: usize = 3;

/// A row: its line in the file, and its fields by their names in lower case, without `_`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    pub(super) line: usize,
    fields: BTreeMap<String, String>,
}

impl Row {
    /// A field, without the blanks around it; none if it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let text = self.fields.get(name)?.trim();
        (!text.is_empty() && !text.eq_ignore_ascii_case("null")).then_some(text)
    }

    fn new<'a>(line: usize, fields: impl Iterator<Item = (&'a str, String)>) -> Self {
        let spelled = |name: &str| {
            let spelled =
                name.trim().trim_start_matches('\u{feff}').replace(['_', '`', '"'], "").to_lowercase();
            // Two names that one version and the next have for the same.
            match spelled.as_str() {
                "childjobkey" => "childjobid".to_owned(),
                "appid" => "appname".to_owned(),
                _ => spelled,
            }
        };
        Self { line, fields: fields.map(|(name, value)| (spelled(name), value)).collect() }
    }
}

/// Reads rows.
pub(super) fn read(text: &str) -> Result<Vec<Row>, String> {
    if text.trim_start_matches('\u{feff}').trim_start().starts_with(['[', '{']) {
        from_json(text)
    } else {
        from_csv(text)
    }
}

fn from_json(text: &str) -> Result<Vec<Row>, String> {
    let value: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| format!("it is no JSON: {error}"))?;
    let Some(objects) = objects_in(&value, DEPTH_MAX) else {
        return Err("it holds no rows; export xxl_job_info as an array of objects".to_owned());
    };
    let lines = lines_of_ids(text);
    let cell = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let row = |object: &&Value| {
        let fields =
            object.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), cell(value)));
        let row = Row::new(1, fields);
        let line = row.get("id").and_then(|id| lines.get(id)).copied().unwrap_or(1);
        Row { line, ..row }
    };
    Ok(objects.iter().map(row).collect())
}

/// The rows in a document: an array of objects, wherever it lies; or one object that is a row itself.
fn objects_in(value: &Value, depth: usize) -> Option<Vec<&Value>> {
    match value {
        Value::Array(all) if all.iter().any(Value::is_object) => {
            Some(all.iter().filter(|one| one.is_object()).collect())
        }
        Value::Object(map) if map.contains_key("jobDesc") || map.contains_key("job_desc") => {
            Some(vec![value])
        }
        Value::Object(map) if depth > 0 => map.values().find_map(|inner| objects_in(inner, depth - 1)),
        _ => None,
    }
}

/// The lines on which a field `id` stands, by its value; the first of each.
fn lines_of_ids(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        for part in line.split("\"id\"").skip(1) {
            let value = part.trim_start().trim_start_matches(':').trim_start().trim_start_matches('"');
            let id: String = value.chars().take_while(char::is_ascii_digit).collect();
            lines.entry(id).or_insert(index + 1);
        }
    }
    lines
}

fn from_csv(text: &str) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| format!("it is no CSV: {error}"))?.clone();
    let known = Row::new(1, header.iter().map(|name| (name, "x".to_owned())));
    if known.get("jobdesc").is_none() && known.get("executorhandler").is_none() {
        return Err(
            "its first line names neither job_desc nor executor_handler; export xxl_job_info with a header"
                .to_owned(),
        );
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| format!("it is no CSV: {error}"))?;
        let line = record.position().map_or(1, |position| usize::try_from(position.line()).unwrap_or(1));
        rows.push(Row::new(line, header.iter().zip(record.iter().map(str::to_owned))));
    }
    Ok(rows)
}
