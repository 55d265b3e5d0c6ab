//! Decides which of several values of a setting counts: a flag's before the environment's before the
//! file's. Whether the value is good is not decided here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::file::File;
use super::settings::{self, Kind, SETTINGS, Setting};

/// The file that is read when none is named, if it is there.
const DEFAULT_FILE: &str = "turnwise.toml";
/// Names the file.
const FILE_VARIABLE: &str = "TURNWISE_CONFIG";
/// Names the database for every program of a machine, and so for this one.
const SHARED_DATABASE_VARIABLE: &str = "DATABASE_URL";
/// Variables of this program that are no settings.
const OTHER_VARIABLES: [&str; 2] = [FILE_VARIABLE, "TURNWISE_LOG"];

/// The settings that were given as flags.
#[derive(Clone, Debug, Default)]
pub struct Flags(BTreeMap<&'static str, Vec<String>>);

impl Flags {
    /// Add what stood after `--key`. Nothing is added when there are no values.
    pub fn add<S: Into<String>>(&mut self, key: &'static str, values: impl IntoIterator<Item = S>) {
        let mut values = values.into_iter().map(Into::into).peekable();
        if values.peek().is_some() {
            self.0.entry(key).or_default().extend(values);
        }
    }
}

/// The environment's variables, as far as they concern this program. An empty one counts as not set.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. Fails when a variable of this program is not UTF-8.
    pub fn of_process() -> Result<Self, ConfigError> {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            if !name.starts_with("TURNWISE_") && name != SHARED_DATABASE_VARIABLE {
                continue;
            }
            let Ok(value) = value.into_string() else {
                return Err(Source::Variable(name).bad("its value is not UTF-8"));
            };
            variables.insert(name, value);
        }
        Ok(variables.into_iter().collect())
    }

    /// A warning for each variable that looks like one of this program's and is none.
    pub fn warnings(&self) -> Vec<String> {
        let is_known = |name: &str| {
            OTHER_VARIABLES.contains(&name)
                || SETTINGS.iter().any(|setting| setting.variable() == name)
        };
        let unknown = self.0.keys().filter(|name| !is_known(name));
        let named = unknown.filter_map(|name| Some((name, name.strip_prefix("TURNWISE_")?)));
        named
            .map(|(name, rest)| match settings::nearest(rest) {
                Some(near) => {
                    format!("{name} is set and means nothing. Did you mean {}?", near.variable())
                }
                None => format!("{name} is set and means nothing"),
            })
            .collect()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag, by its key.
    Flag(&'static str),
    /// A variable of the environment, by its name.
    Variable(String),
    /// A line of the file.
    Line {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: &'static str,
    },
    /// Nobody said anything, by the key.
    Default(&'static str),
}

impl Source {
    /// The value from here is bad.
    pub(super) fn bad(&self, reason: impl fmt::Display) -> ConfigError {
        ConfigError::Bad { given: self.clone(), reason: reason.to_string() }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{key}"),
            Self::Variable(name) => f.write_str(name),
            Self::Line { path, line, key } => write!(f, "{}:{line}: {key}", path.display()),
            Self::Default(key) => write!(f, "the default of {key}"),
        }
    }
}

/// What was given for a setting, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    source: Source,
    values: Vec<String>,
}

impl Given {
    pub(super) fn new(source: Source, setting: &Setting, values: Vec<String>) -> Self {
        let values = match setting.kind {
            Kind::One | Kind::Switch => values,
            Kind::Many => values
                .iter()
                .flat_map(|value| value.split(','))
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
                .collect(),
            Kind::Urls => values.iter().flat_map(|value| urls(value)).collect(),
        };
        Self { source, values }
    }

    /// Where.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The value of a setting that has one: the last that was given.
    pub fn value(&self) -> &str {
        self.values.last().map_or("", String::as_str)
    }

    /// The values of a setting that has several.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    pub(super) fn bad(&self, reason: impl fmt::Display) -> ConfigError {
        self.source.bad(reason)
    }
}

/// The URLs in a text. A word that is the beginning of no URL belongs to the one before it: a file's name may have a
/// space.
fn urls(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match urls.last_mut() {
            Some(last) if !word.contains("://") => {
                last.push(' ');
                last.push_str(word);
            }
            _ => urls.push(word.to_owned()),
        }
    }
    urls
}

/// Flags over the environment over the file.
#[derive(Clone, Debug)]
pub struct Layers {
    flags: Flags,
    environment: Environment,
    file: File,
}

impl Layers {
    /// The layers of a program that was started with `flags` in `environment`. `file` is the file that a
    /// flag names; else `TURNWISE_CONFIG` does; else `turnwise.toml` in the working directory, which
    /// need not be there. The file is read here, and all its keys are checked.
    pub fn new(
        flags: Flags,
        environment: &Environment,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let named = file.or_else(|| environment.get(FILE_VARIABLE).map(Path::new));
        let file = match named {
            Some(path) => File::read(path)?,
            None => File::read_if_there(Path::new(DEFAULT_FILE))?,
        };
        Ok(Self { flags, environment: environment.clone(), file })
    }

    /// What was given for the setting `key`.
    pub fn get(&self, key: &str) -> Option<Given> {
        let setting = Setting::named(key)?;
        self.flag(setting).or_else(|| self.variable(setting)).or_else(|| self.file.get(setting))
    }

    fn flag(&self, setting: &Setting) -> Option<Given> {
        let values = self.flags.0.get(setting.key)?.clone();
        Some(Given::new(Source::Flag(setting.key), setting, values))
    }

    fn variable(&self, setting: &Setting) -> Option<Given> {
        let own = setting.variable();
        let shared = (setting.key == "database-url").then(|| SHARED_DATABASE_VARIABLE.to_owned());
        [Some(own), shared].into_iter().flatten().find_map(|name| {
            let value = self.environment.get(&name)?.to_owned();
            Some(Given::new(Source::Variable(name), setting, vec![value]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_flag_counts_before_the_environment_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, "capacity = 3\nname = 'file'\nqueues = ['a', 'b']\n").unwrap();
        let mut flags = Flags::default();
        flags.add("capacity", ["1"]);
        let variables = [
            ("TURNWISE_CAPACITY", "2"),
            ("TURNWISE_NAME", "variable"),
            ("TURNWISE_QUEUES", ""),
            ("TURNWISE_CONFIG", path.to_str().unwrap()),
        ];
        let layers = Layers::new(flags, &environment(&variables), None).unwrap();
        assert_eq!(layers.get("capacity").unwrap().value(), "1");
        assert_eq!(layers.get("name").unwrap().value(), "variable");
        assert_eq!(layers.get("queues").unwrap().values(), ["a", "b"]);
        assert_eq!(layers.get("listen"), None);
    }

    #[test]
    fn the_own_variable_of_the_database_counts_before_the_shared_one() {
        let both = [("DATABASE_URL", "sqlite://a"), ("TURNWISE_DATABASE_URL", "sqlite://b")];
        for (variables, url) in [(&both[..1], "sqlite://a"), (&both[..], "sqlite://b")] {
            let layers = Layers::new(Flags::default(), &environment(variables), None).unwrap();
            assert_eq!(layers.get("database-url").unwrap().value(), url);
        }
    }

    #[test]
    fn several_servers_are_named_one_after_the_other() {
        let both = ["postgres://a,b/d", "postgres://c/d"];
        let mut flags = Flags::default();
        flags.add("database-url", both);
        let none = environment(&[]);
        let layers = Layers::new(flags, &none, None).unwrap();
        assert_eq!(layers.get("database-url").unwrap().values(), both);
        let set = environment(&[("DATABASE_URL", " postgres://a,b/d \n postgres://c/d ")]);
        let layers = Layers::new(Flags::default(), &set, None).unwrap();
        assert_eq!(layers.get("database-url").unwrap().values(), both);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, "database-url = ['postgres://a,b/d', 'postgres://c/d']").unwrap();
        let layers = Layers::new(Flags::default(), &none, Some(&path)).unwrap();
        assert_eq!(layers.get("database-url").unwrap().values(), both);
        let set = environment(&[("DATABASE_URL", "sqlite:///my jobs.db")]);
        let layers = Layers::new(Flags::default(), &set, None).unwrap();
        assert_eq!(layers.get("database-url").unwrap().values(), ["sqlite:///my jobs.db"]);
    }

    #[test]
    fn an_unknown_variable_is_pointed_out() {
        let set = environment(&[
            ("TURNWISE_CAPCITY", "1"),
            ("TURNWISE_FOO", "1"),
            ("TURNWISE_NAME", "1"),
            ("TURNWISE_CONFIG", "1"),
            ("DATABASE_URL", "1"),
        ]);
        assert_eq!(
            set.warnings(),
            [
                "TURNWISE_CAPCITY is set and means nothing. Did you mean TURNWISE_CAPACITY?",
                "TURNWISE_FOO is set and means nothing",
            ]
        );
    }
}
