//! How things are written as JSON: decides the names, their order and their units, the same for the commands' `--json` and for
//! the API. They are promised to programs. (Nodes and events are written as they are read: `store::NodeView`,
//! `watch::Event`.)

mod audit;
mod batches;
mod jobs;
mod orders;
mod queues;
mod request;
mod schedules;

pub(crate) use audit::EntryLine;
pub(crate) use batches::{BatchLine, BatchMade, BatchOrdered, BatchPage, need};
pub(crate) use jobs::{EnqueuedLine, JobLine, JobPage};
pub(crate) use orders::{QueueOrdered, ScheduleOrdered, paused_or_resumed};
pub(crate) use queues::{PolicyLine, QueueLine, QueueLines};
pub(crate) use request::RequestLine;
pub(crate) use schedules::{ScheduleLine, ScheduleSet};
