//! Decides what `turnwise.toml` may look like: settings by their keys, nothing else. Whether a value is
//! good is not decided here.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::layers::{Given, Source};
use super::settings::{self, Kind, Setting};

/// A configuration file that was read.
#[derive(Clone, Debug, Default)]
pub(super) struct File(BTreeMap<&'static str, Given>);

impl File {
    /// Read a file that somebody named.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        Self::parse(path, &text)
    }

    /// Read a file that need not be there.
    pub(super) fn read_if_there(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unreadable(path, &error)),
        }
    }

    /// What it says of a setting.
    pub(super) fn get(&self, setting: &Setting) -> Option<Given> {
        self.0.get(setting.key).cloned()
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let line = |span: Range<usize>| line_at(text, span.start);
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line(error.span().unwrap_or_default()),
            reason: error.message().to_owned(),
        })?;
        let mut file = Self::default();
        for (key, value) in table.get_ref() {
            let Some(setting) = Setting::named(key.get_ref()) else {
                return Err(ConfigError::UnknownKey {
                    path: path.to_owned(),
                    line: line(key.span()),
                    key: key.get_ref().to_string(),
                    nearest: settings::nearest(key.get_ref()),
                });
            };
            let path = PathBuf::from(path);
            let source = Source::Line { path, line: line(value.span()), key: setting.key };
            let values = values(setting, value.get_ref()).map_err(|reason| source.bad(reason))?;
            file.0.insert(setting.key, Given::new(source, setting, values));
        }
        Ok(file)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() }
}

/// The line of a byte, from 1.
fn line_at(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1
}

fn values(setting: &Setting, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    match (setting.kind, value) {
        (Kind::Switch, DeValue::Boolean(on)) => Ok(vec![on.to_string()]),
        (Kind::Switch, _) => Err("write true or false, without quotes"),
        (Kind::One | Kind::Many | Kind::Urls, DeValue::String(text)) => Ok(vec![text.to_string()]),
        (Kind::One, DeValue::Integer(number)) => Ok(vec![number.to_string()]),
        (Kind::One, _) => Err("write a text in quotes, or a whole number"),
        (Kind::Many | Kind::Urls, DeValue::Array(items)) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned).ok_or(NOT_TEXTS))
            .collect(),
        (Kind::Many | Kind::Urls, _) => Err(NOT_TEXTS),
    }
}

const NOT_TEXTS: &str = "write a text in quotes, or a list of such texts in brackets";

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::string::string_regex;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        File::parse(Path::new("turnwise.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_read_by_their_keys() {
        let file = parse(
            "target = ['http://a', 'mail=http://b']\ncapacity = 8\nfail-fast = true\nqueues = 'a,b'",
        )
        .unwrap();
        let get = |key| file.get(Setting::named(key).unwrap()).unwrap();
        assert_eq!(get("target").values(), ["http://a", "mail=http://b"]);
        assert_eq!(get("capacity").value(), "8");
        assert_eq!(get("fail-fast").value(), "true");
        assert_eq!(get("queues").values(), ["a", "b"]);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_setting() {
        assert_eq!(
            parse("# mine\ncapcity = 8\n").unwrap_err(),
            "turnwise.toml:2: there is no setting \"capcity\". Did you mean \"capacity\"?"
        );
        let error = parse("\n\n[server]\nport = 1\n").unwrap_err();
        assert!(error.starts_with("turnwise.toml:3: there is no setting \"server\". The settings"));
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_its_line() {
        for (text, start) in [
            ("\nfail-fast = 'yes'", "turnwise.toml:2: fail-fast: "),
            ("capacity = 1.5", "turnwise.toml:1: capacity: "),
            ("queues = [1]", "turnwise.toml:1: queues: "),
            ("name = ", "turnwise.toml:1: not valid TOML: "),
            ("name = 'a'\nname = 'b'", "turnwise.toml:2: not valid TOML: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn whatever_stands_in_a_file_is_read_or_refused_with_its_line() {
        let key = "(target|capacity|queues|fail-fast|period|listen|signing-key|[a-z-]{1,9}|)";
        let value = r#"('[a-z0-9:/, ]{0,12}'|"[a-z\\\\]{0,4}"|-?[0-9]{1,20}|\[('a')?,? ?[0-9]?\]|true|\{\}|\PC{0,6})"#;
        let nearly = format!("((# x)?{key} ?=? ?{value}\n){{0,5}}\\PC{{0,12}}");
        let config = Config { cases: 1_000, failure_persistence: None, ..Config::default() };
        let chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let (read, refused) = (Cell::new(0), Cell::new(0));
        let mut runner = TestRunner::new_with_rng(config, chance);
        runner
            .run(&string_regex(&nearly).unwrap(), |text| {
                match parse(&text) {
                    Ok(_) => read.set(read.get() + 1),
                    Err(error) => {
                        refused.set(refused.get() + 1);
                        let rest = error.strip_prefix("turnwise.toml:");
                        let line = rest.and_then(|rest| rest.split(':').next()?.parse().ok());
                        let lines = text.matches('\n').count() + 1;
                        assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{error}");
                    }
                }
                Ok(())
            })
            .unwrap();
        assert!(read.get() > 20 && refused.get() > 20, "{read:?} read, {refused:?} refused");
    }
}
