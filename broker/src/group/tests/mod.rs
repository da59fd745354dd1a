//! Founding and joining: the decisions alone, in a world of folders that are wiped and processes that crash, and whole members
//! over loopback.

mod caring;
mod catching_up;
mod deciding;
mod operating;
mod ordering;
mod recovering;
mod whole;
mod world;
