//! Keeps what is to be said to somebody who pressed a button, from the answer to the button to the page that they are
//! sent back to. Decides nothing; what nobody came for is forgotten.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// So many are kept.
const KEPT_MAX: usize = 64;

/// What came of an action, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// It was done; otherwise the text says why not.
    pub(super) done: bool,
}

/// The words that wait for their page.
#[derive(Debug, Default)]
pub(super) struct Said {
    words: Mutex<VecDeque<(Uuid, Word)>>,
}

impl Said {
    /// Keep a word; the key to it. Nobody can guess one: a link cannot make a page say what was not said.
    #[expect(clippy::disallowed_methods, reason = "a name for a moment, on a page")]
    pub(super) fn keep(&self, result: Result<String, String>) -> Uuid {
        let done = result.is_ok();
        let (Ok(text) | Err(text)) = result;
        let key = Uuid::new_v4();
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() == KEPT_MAX {
            words.pop_front();
        }
        words.push_back((key, Word { text, done }));
        key
    }

    /// The word behind a key. It stays: a page may be loaded again.
    pub(super) fn get(&self, key: Uuid) -> Option<Word> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().find(|(of, _)| *of == key).map(|(_, word)| word.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_wait_for_their_page_and_the_oldest_go() {
        let said = Said::default();
        let first = said.keep(Ok("done".to_owned()));
        let second = said.keep(Err("no".to_owned()));
        assert_eq!(said.get(first), Some(Word { text: "done".to_owned(), done: true }));
        assert_eq!(said.get(second), Some(Word { text: "no".to_owned(), done: false }));
        for _ in 0..KEPT_MAX - 1 {
            said.keep(Ok(String::new()));
        }
        assert_eq!((said.get(first), said.get(second).is_some()), (None, true));
    }
}
