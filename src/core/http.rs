//! HTTP requests: the checks before the parser, headers, query parameters, URLs of servers and limits.

pub mod csrf;
pub mod guard;
pub mod headers;
pub mod limit;
pub mod query;
pub mod url;
