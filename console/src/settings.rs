//! What a console is told, and what it refuses to be told.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use shared::limits::CONSOLE_TOKEN_CHARS_MIN;

/// Where it listens when nothing is said.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:8640";

/// What a console is told.
#[derive(Debug, Clone)]
pub struct ConsoleSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who presents it is let in. Without one everybody is who reaches a loopback address, and no other address is listened on.
    pub token: Option<Token>,
    /// The names under which browsers reach it, beside `localhost` and addresses: DNS names of a proxy, without ports.
    pub names: Vec<String>,
    /// Where the read model is kept.
    pub data_dir: PathBuf,
}

/// A bearer token. It is never shown, logged or compared letter by letter.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Settings that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Anybody on the network could steer the fleet.
    #[error(
        "{0} can be reached from other machines, and there is no token: whoever reaches it could steer the fleet. Listen on 127.0.0.1, or \
         set CRONFLEET_CONSOLE_TOKEN (or --token-file FILE) to at least {CONSOLE_TOKEN_CHARS_MIN} random characters, such as those of \
         `head -c 24 /dev/urandom | base64`"
    )]
    Open(SocketAddr),
    /// It could be guessed.
    #[error(
        "the token has {0} characters; it has at least {CONSOLE_TOKEN_CHARS_MIN}, such as those of `head -c 24 /dev/urandom | base64`"
    )]
    ShortToken(usize),
    /// It could not be sent in a header.
    #[error(
        "the token holds a blank or a character that no header carries; take letters, digits and - . _ ~ + / ="
    )]
    OddToken,
    /// Not a name.
    #[error(
        "{0:?} is no name of a host; write it as browsers do, without scheme and port: cronfleet.example.com"
    )]
    Name(String),
}

impl Token {
    /// Reads a token; blanks around it do not count.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let text = text.trim();
        if text.len() < CONSOLE_TOKEN_CHARS_MIN {
            return Err(SettingsError::ShortToken(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)) {
            return Err(SettingsError::OddToken);
        }
        Ok(Self(text.into()))
    }

    /// Whether this is it. Takes as long whatever was presented.
    pub fn is(&self, presented: &str) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.0.as_bytes(), presented.as_bytes()).into()
    }
}

impl ConsoleSettings {
    /// Refuses what would leave the fleet open.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !self.listen.ip().is_loopback() && self.token.is_none() {
            return Err(SettingsError::Open(self.listen));
        }
        let is_name = |name: &&String| {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            !name.is_empty() && name.chars().all(legal)
        };
        match self.names.iter().find(|name| !is_name(name)) {
            Some(name) => Err(SettingsError::Name(name.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str, token: Option<&str>) -> ConsoleSettings {
        ConsoleSettings {
            listen: listen.parse().expect("address"),
            token: token.map(|text| Token::parse(text).expect("token")),
            names: Vec::new(),
            data_dir: PathBuf::new(),
        }
    }

    #[test]
    fn only_a_loopback_address_is_open_without_a_token() {
        let token = Some("0123456789abcdef");
        for listen in ["127.0.0.1:8640", "[::1]:8640", "127.9.9.9:1"] {
            assert_eq!(settings(listen, None).check(), Ok(()), "{listen}");
        }
        for listen in ["0.0.0.0:8640", "192.0.2.1:8640", "[::]:8640"] {
            let refused = settings(listen, None).check().expect_err(listen).to_string();
            assert!(refused.contains("CRONFLEET_CONSOLE_TOKEN") && refused.contains(listen), "{refused}");
            assert_eq!(settings(listen, token).check(), Ok(()), "{listen}");
        }
    }

    #[test]
    fn a_token_is_long_is_compared_whole_and_is_never_shown() {
        assert_eq!(Token::parse("short").expect_err("short"), SettingsError::ShortToken(5));
        assert_eq!(Token::parse("0123456789 abcdef").expect_err("blank"), SettingsError::OddToken);
        let token = Token::parse(" 0123456789abcdef\n").expect("token");
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdefg", "0123456789ABCDEF"] {
            assert!(!token.is(other), "{other}");
        }
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn a_name_is_written_as_browsers_do() {
        let mut named = settings("127.0.0.1:1", None);
        named.names = vec!["https://x.example".to_owned()];
        assert!(named.check().expect_err("scheme").to_string().contains("without scheme"));
        named.names = vec!["cronfleet.example.com".to_owned()];
        assert_eq!(named.check(), Ok(()));
    }
}
