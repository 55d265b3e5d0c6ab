//! Decides nothing: the clock on made-up roads of every kind, where the truth is known. `promises` says what it must do
//! there, `nearness` how near to the truth it must be, `bits` that it is the same clock on every build.

mod bits;
mod kinds;
mod nearness;
mod promises;
mod road;
