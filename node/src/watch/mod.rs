//! What happens in the farm, as the database tells it: one stream of events, for the dashboard, the terminal and
//! `turnwise events` alike. It only looks: no statement of its leaves a mark.
//!
//! - `event`: what can happen, in JSON and in words;
//! - `slots`: what became of each slot;
//! - `changes`: what the difference between two looks means;
//! - `past`: what the first look tells of the time before it;
//! - `names`: by what name a node is known;
//! - `farm`: the fold: from one look after the other to what happened in between, and where things stand;
//! - `hub`: when to look, and who is told;
//! - `limit`: how long people wait for the database.

mod changes;
mod event;
mod farm;
mod hub;
mod limit;
mod names;
mod past;
mod slots;

pub use event::{By, Event, Member, Weight, What};
pub use farm::{Farm, Sight};
pub use hub::{Feed, Hub, News};
pub(crate) use limit::{ANSWER_TIMEOUT, within};
pub use slots::{BeatMark, Place, SlotView};
