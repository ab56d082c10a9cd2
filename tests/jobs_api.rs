//! The jobs, as whoever asks the admin listener sees them. Every answer is compared with the OpenAPI document.

mod begin;
mod document;
mod past;
mod paths;

const OLD: &str = "0.0.2.post1";
const NEW: &str = "0.0.30.post2";
