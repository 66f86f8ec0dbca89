//! The machine and the person in front of it.

/// The machine's name; members carry it in their ids.
pub fn host() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    if name.is_empty() { "localhost".to_owned() } else { name.into_owned() }
}

/// Who asks, for the audit: `user@host`. What the environment says, which is a hint and no proof.
pub fn person() -> String {
    let named = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = named.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
    // It travels in a header, where a line break would be refused.
    format!("{user}@{}", host()).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_asks_from_somewhere() {
        let person = person();
        let (user, host) = person.split_once('@').expect("user@host");
        assert!(!user.is_empty() && !host.is_empty(), "{person}");
    }
}
