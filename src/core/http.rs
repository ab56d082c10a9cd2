//! Reading requests: what is refused before the parser, headers, query parameters, limits.

pub mod address;
pub mod guard;
pub mod headers;
pub mod limit;
pub mod query;
