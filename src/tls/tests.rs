//! Accepted and refused certificates, and the texts of the errors.

mod files;
mod front;
mod support;
mod text;
mod towards;
