//! The jobs API of the admin listener. Every response is validated against the OpenAPI document.

mod begin;
mod document;
mod failed;
mod past;
mod paths;

const OLD: &str = "0.0.2.post1";
const NEW: &str = "0.0.30.post2";
