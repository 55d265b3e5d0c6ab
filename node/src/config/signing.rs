//! Decides which keys a node signs its calls with: those that `signing-key` names, then those in the files that
//! `signing-key-file` names. How a call is signed is not decided here.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::ConfigError;
use super::layers::Layers;
use crate::caller::signature::KEYS_MAX;
use crate::caller::{SigningKey, SigningKeys};

/// The longest file of keys that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The keys that the layers name, the current one first. No error repeats a key.
pub(super) fn signing_keys(layers: &Layers) -> Result<SigningKeys, ConfigError> {
    let mut keys = Vec::new();
    let mut source = None;
    if let Some(given) = layers.get("signing-key") {
        let of = |number| match given.values().len() {
            1 => String::new(),
            count => format!("key {number} of {count}: "),
        };
        for (number, text) in (1..).zip(given.values()) {
            let key = text.parse::<SigningKey>();
            keys.push(key.map_err(|error| given.bad(format!("{}{error}", of(number))))?);
        }
        if keys.is_empty() {
            return Err(given.bad("no key is given; leave it out and calls are not signed"));
        }
        source = Some(given);
    }
    if let Some(given) = layers.get("signing-key-file") {
        if given.values().is_empty() {
            return Err(given.bad("no file is named; leave it out and calls are not signed by one"));
        }
        for path in given.values() {
            let of_file = read(Path::new(path)).map_err(|reason| given.bad(reason))?;
            keys.extend(of_file);
        }
        source.get_or_insert(given);
    }
    let Some(source) = source else { return Ok(SigningKeys::default()) };
    SigningKeys::new(keys).map_err(|count| {
        source.bad(format!(
            "there are {count} keys to sign with, and {KEYS_MAX} at most; leave out those that no receiver verifies with any more"
        ))
    })
}

/// The keys in a file, one a line; what is empty or begins with `#` is none.
fn read(path: &Path) -> Result<Vec<SigningKey>, String> {
    let shown = path.display();
    let text = read_text(path).map_err(|error| {
        format!(
            "the keys in {shown} cannot be read: {error}; name a text file that the node may read"
        )
    })?;
    let lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<_> = keys
        .map(|(number, line)| line.parse().map_err(|error| format!("{shown}:{number}: {error}")))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(format!("there is no key in {shown}; write one a line"));
    }
    Ok(keys)
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Flags};
    use super::*;

    fn key(byte: u8) -> String {
        SigningKey::text_of(&[byte; 32])
    }

    fn parsed(bytes: &[u8]) -> SigningKeys {
        SigningKeys::new(bytes.iter().map(|byte| key(*byte).parse().unwrap())).unwrap()
    }

    fn keys(flags: &[(&'static str, &str)]) -> Result<SigningKeys, String> {
        let mut given = Flags::default();
        for (key, value) in flags {
            given.add(key, [*value]);
        }
        let layers = Layers::new(given, &Environment::default(), None).unwrap();
        signing_keys(&layers).map_err(|error| error.to_string())
    }

    #[test]
    fn the_keys_of_flags_come_before_those_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, format!("# the old ones\n\n  {}\r\n{}\n", key(3), key(1))).unwrap();
        let file = ("signing-key-file", path.to_str().unwrap());
        let both = format!("{}, {}", key(1), key(2));
        assert_eq!(keys(&[]).unwrap().count(), 0);
        assert_eq!(keys(&[("signing-key", &key(1))]).unwrap(), parsed(&[1]));
        assert_eq!(keys(&[file]).unwrap(), parsed(&[3, 1]));
        assert_eq!(keys(&[file, ("signing-key", &both)]).unwrap(), parsed(&[1, 2, 3]));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_key_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let half = &key(1)[..20];
        let second = format!("{},{half}", key(1));
        let many = (0..9).map(key).collect::<Vec<_>>().join(",");
        let (broken, empty) = (write("broken", &format!("\n{half}\n")), write("empty", "# none\n"));
        let (binary, long) = (write("binary", "x"), write("long", &"#".repeat(70_000)));
        std::fs::write(&binary, [0xff, 0xfe]).unwrap();
        let absent = folder.path().join("absent").to_str().unwrap().to_owned();
        let cases = [
            ("signing-key", half, "--signing-key: this is no key to sign with"),
            ("signing-key", &second, "--signing-key: key 2 of 2: this is no key to sign with"),
            ("signing-key", ",", "--signing-key: no key is given"),
            ("signing-key", &many, "--signing-key: there are 9 keys to sign with, and 8 at most"),
            ("signing-key-file", ",", "--signing-key-file: no file is named"),
            (
                "signing-key-file",
                &broken,
                &format!("--signing-key-file: {broken}:2: this is no key"),
            ),
            ("signing-key-file", &empty, "--signing-key-file: there is no key in "),
            ("signing-key-file", &absent, "--signing-key-file: the keys in "),
            ("signing-key-file", &binary, "--signing-key-file: the keys in "),
            ("signing-key-file", &long, "--signing-key-file: the keys in "),
        ];
        for (setting, value, start) in cases {
            let error = keys(&[(setting, value)]).unwrap_err();
            assert!(error.starts_with(start), "{error}");
            assert!(!error.contains(&half[6..]), "{error}");
        }
    }
}
