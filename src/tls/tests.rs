//! What is accepted, what is refused, and in which words.

mod files;
mod front;
mod support;
mod towards;
mod words;
