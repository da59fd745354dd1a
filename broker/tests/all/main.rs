//! A broker over real connections and as a process, in one program: each test program links RocksDB once more.

mod delivery;
mod process;
mod producing;
mod tools;
