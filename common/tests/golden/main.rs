//! Everything that was recorded from other implementations is read as they meant it, and hostile variants of it are
//! refused without harm.

mod bodies;
mod codec;
mod frames;
mod hostile;
mod vectors;
