//! What every contestant in Rust does alike. Decides how the harness tells it what to do, what a job's work is, and
//! how its completions are counted; not how jobs reach it.

mod clock;
mod count;
mod order;
mod work;

pub use clock::now;
pub use count::Count;
pub use order::{Order, Setting, Verb};
pub use work::Work;

/// A failure that ends the contestant, with its reason for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
