//! `record`: what it writes replays to the same streams, without credentials and, on request, without names.

mod anonymous;
mod credentials;
mod golden;
