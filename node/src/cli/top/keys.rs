//! Decides what a key means, by what is on the screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::screen::{Board, List};
use crate::job::JobId;

/// What somebody wants that the screen cannot do by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To leave.
    Leave,
    /// Another list.
    Recount,
    /// Something with a job.
    Do(Deed, JobId),
}

/// What can be done with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Run it now.
    Retry,
    /// Run it no more.
    Cancel,
}

/// What this key is to do. What it does to the screen alone is done.
pub(super) fn meant(board: &mut Board, key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return Some(Wish::Leave);
    }
    if let Some(job) = board.asks.take() {
        let sure = matches!(key.code, KeyCode::Char('y' | 'Y'));
        board.said = (!sure).then(|| "it stays as it is".to_owned());
        return sure.then_some(Wish::Do(Deed::Cancel, job));
    }
    let was_help = std::mem::take(&mut board.help);
    let chosen = board.chosen;
    match key.code {
        KeyCode::Char('q') => return Some(Wish::Leave),
        KeyCode::Esc if !was_help => return Some(Wish::Leave),
        KeyCode::Char('?' | 'h') => board.help = !was_help,
        KeyCode::Down | KeyCode::Char('j') => {
            board.choose(board.place().map_or(0, |place| place + 1));
        }
        KeyCode::Up | KeyCode::Char('k') => {
            board.choose(board.place().unwrap_or(0).saturating_sub(1));
        }
        KeyCode::Tab => {
            board.list = match board.list {
                List::Dead => List::Retrying,
                List::Retrying => List::Running,
                List::Running => List::Dead,
            };
            (board.chosen, board.jobs) = (None, Vec::new());
            return Some(Wish::Recount);
        }
        KeyCode::Char('r') => match chosen {
            Some(job) => return Some(Wish::Do(Deed::Retry, job)),
            None => board.said = Some("no job is chosen".to_owned()),
        },
        KeyCode::Char('c') => match chosen {
            Some(job) => board.asks = Some(job),
            None => board.said = Some("no job is chosen".to_owned()),
        },
        _ => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::job;
    use super::*;

    fn press(board: &mut Board, code: KeyCode) -> Option<Wish> {
        meant(board, KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn a_job_is_chosen_and_cancelled_only_by_who_is_sure() {
        let mut board = Board { jobs: vec![job(1), job(2)], ..Board::default() };
        for _ in 0..5 {
            press(&mut board, KeyCode::Down);
        }
        let second = board.jobs[1].id;
        assert_eq!(board.chosen, Some(second), "there is none below the last");
        assert_eq!(press(&mut board, KeyCode::Char('r')), Some(Wish::Do(Deed::Retry, second)));
        assert_eq!(press(&mut board, KeyCode::Char('c')), None);
        assert_eq!(press(&mut board, KeyCode::Char('q')), None, "any other key is a no");
        assert_eq!(board.said.as_deref(), Some("it stays as it is"));
        press(&mut board, KeyCode::Char('c'));
        assert_eq!(press(&mut board, KeyCode::Char('y')), Some(Wish::Do(Deed::Cancel, second)));
    }

    #[test]
    fn the_job_that_was_chosen_stays_it_wherever_the_list_has_it_now() {
        let mut board = Board { jobs: vec![job(1), job(2)], ..Board::default() };
        press(&mut board, KeyCode::Down);
        let first = board.jobs[0].id;
        board.list_anew(vec![job(7), job(8), job(1)]);
        assert_eq!(press(&mut board, KeyCode::Char('r')), Some(Wish::Do(Deed::Retry, first)));
        press(&mut board, KeyCode::Up);
        assert_eq!(board.chosen, Some(job(8).id), "the one above its new place");

        board.list_anew(vec![job(7), job(1)]);
        assert_eq!(press(&mut board, KeyCode::Char('r')), None, "the chosen one is gone");
        assert_eq!(board.said.as_deref(), Some("no job is chosen"));
        assert_eq!(press(&mut board, KeyCode::Char('c')), None);
        assert_eq!(board.asks, None);
    }

    #[test]
    fn without_a_job_nothing_is_done_and_one_may_leave() {
        let mut board = Board::default();
        assert_eq!(press(&mut board, KeyCode::Char('r')), None);
        assert_eq!(board.said.as_deref(), Some("no job is chosen"));
        press(&mut board, KeyCode::Char('?'));
        assert!(board.help);
        assert_eq!(press(&mut board, KeyCode::Esc), None, "help is left first");
        assert_eq!(press(&mut board, KeyCode::Esc), Some(Wish::Leave));
        let stop = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(meant(&mut board, stop), Some(Wish::Leave));
        assert_eq!(press(&mut board, KeyCode::Tab), Some(Wish::Recount));
        assert_eq!(board.list, List::Retrying);
    }
}
