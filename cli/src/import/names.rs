//! Names made of what stands there: legal, readable, each once.

use std::{collections::BTreeSet, str::FromStr};

use shared::{
    limits::NAME_CHARS_MAX,
    names::{Name, NameError},
};

/// Characters that are kept for what tells two names apart.
const SUFFIX_CHARS: usize = 6;

/// The names that were given.
#[derive(Debug, Default)]
pub struct Names(BTreeSet<Name>);

impl Names {
    /// A name that nobody has yet, as near to the wish as can be.
    pub fn take(&mut self, wish: &str) -> Result<Name, NameError> {
        let stem = legal_text(wish).unwrap_or_else(|| "imported".to_owned());
        let mut name: Name = stem.parse()?;
        let mut number = 1_usize;
        while self.0.contains(&name) {
            number += 1;
            name = format!("{stem}-{number}").parse()?;
        }
        self.0.insert(name.clone());
        Ok(name)
    }
}

/// A text as a name, with `_` for what a name may not have; none if nothing would be left.
pub(super) fn legal<T: FromStr<Err = NameError>>(text: &str) -> Option<T> {
    legal_text(text)?.parse().ok()
}

fn legal_text(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.trim().chars() {
        let c = if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        if c != '_' || !name.ends_with('_') {
            name.push(c);
        }
        if name.len() == NAME_CHARS_MAX - SUFFIX_CHARS {
            break;
        }
    }
    let name = name.trim_matches(['_', '-']);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_legal_readable_and_given_once() {
        let mut names = Names::default();
        let mut take = |wish: &str| names.take(wish).expect("a name").to_string();
        assert_eq!(take("nightly backup.sh"), "nightly_backup_sh");
        assert_eq!(take("nightly backup.sh"), "nightly_backup_sh-2");
        assert_eq!(take("数据"), "imported");
        assert_eq!(take("--"), "imported-2");
        let long = take(&"x".repeat(200));
        assert_ne!(long, take(&"x".repeat(200)));
        assert!(long.len() <= NAME_CHARS_MAX);
    }
}
