//! Splits a client's query into the bridge's parameters and the backend's query.
//!
//! The bridge's parameters begin with `bridge.` and are never forwarded. Every other byte is forwarded in order.
//! `proxmox_endpoint_ids` restricts a sync; without it, the sync would write everything. In the query of a stream, the
//! parameters that replacements for `EventSource` add are the bridge's, too.

/// A parsed query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The query for the backend.
    pub backend_query: String,
    /// The bridge's parameters.
    pub parameters: BridgeParameters,
}

/// The bridge's own parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeParameters {
    /// `bridge.ids=1`: add an `id:` to every frame.
    pub ids: bool,
    /// `bridge.events=all`: pass on the event types of the backend's own stream.
    pub all_events: bool,
    /// `bridge.payload=1`: keep the backend's own payload in steps.
    pub payloads: bool,
    /// `bridge.fresh=1`: start a new job instead of attaching to a running one.
    pub fresh: bool,
    /// `bridge.last_event_id=…`, and in the query of a stream `lastEventId=…` or `Last-Event-ID=…`: replaces the
    /// `Last-Event-ID` header for clients that cannot send it.
    pub last_event_id: Option<String>,
    /// `bridge.backend=…`: the name of the backend, if neither host nor port determines it.
    pub backend: Option<String>,
}

/// An unknown parameter of the bridge, or an invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name}={value} is {} of this bridge. It knows bridge.ids=1, bridge.events=all, bridge.payload=1, bridge.fresh=1, \
     bridge.last_event_id=ID and bridge.backend=NAME.",
    if *.is_known { "no value of a parameter" } else { "no parameter" }
)]
pub struct InvalidParameter {
    name: String,
    value: String,
    /// Whether the bridge has the parameter, and its value is invalid.
    pub is_known: bool,
}

impl Query {
    /// Parses the query `text`.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`] for an unknown parameter that begins with `bridge.`. It is neither forwarded nor ignored,
    /// because both would change what the client meant.
    pub fn parse(text: &str) -> Result<Self, InvalidParameter> {
        Self::parse_parts(text, |_, _| false)
    }

    /// Parses the query `text` of a stream. Replacements for `EventSource` send the last event as `lastEventId` or
    /// `Last-Event-ID`, and a cache buster as `_`. With these in it, the query would be that of another sync.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`], as for [`Query::parse`].
    pub fn parse_stream(text: &str) -> Result<Self, InvalidParameter> {
        let mut last_event_id = None;
        let mut query = Self::parse_parts(text, |name, value| {
            if matches!(name, "lastEventId" | "Last-Event-ID") {
                last_event_id = Some(value.to_owned());
            }
            matches!(name, "lastEventId" | "Last-Event-ID" | "_")
        })?;
        // A parameter in the URL of a client stays, while the client updates its own.
        query.parameters.last_event_id = last_event_id.or(query.parameters.last_event_id);
        Ok(query)
    }

    /// Parses `text` without the parameters that `take` returns true for.
    fn parse_parts(text: &str, mut take: impl FnMut(&str, &str) -> bool) -> Result<Self, InvalidParameter> {
        let mut query = Self::default();
        let mut forwarded: Vec<&str> = Vec::new();
        for part in text.split('&') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match bridge_parameter(name) {
                Some(parameter) => query.parameters.set(parameter, value).map_err(|is_known| {
                    InvalidParameter { name: name.to_owned(), value: value.to_owned(), is_known }
                })?,
                None if take(name, value) => {}
                None => forwarded.push(part),
            }
        }
        query.backend_query = forwarded.join("&");
        Ok(query)
    }
}

/// The name after `bridge.`. Its dot may be written as `%2E`.
fn bridge_parameter(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("bridge")?;
    rest.strip_prefix('.').or_else(|| rest.strip_prefix("%2E")).or_else(|| rest.strip_prefix("%2e"))
}

impl BridgeParameters {
    /// Sets the parameter `name`. The error is whether only its value is invalid.
    fn set(&mut self, name: &str, value: &str) -> Result<(), bool> {
        let flag = match value {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        };
        match (name, flag) {
            ("ids", Some(flag)) => self.ids = flag,
            ("payload", Some(flag)) => self.payloads = flag,
            ("fresh", Some(flag)) => self.fresh = flag,
            ("events", None) if value == "all" => self.all_events = true,
            // Ids need no escaping in a query.
            ("last_event_id", _) => self.last_event_id = Some(value.to_owned()),
            ("backend", _) => self.backend = Some(value.to_owned()),
            (name, _) => return Err(matches!(name, "ids" | "payload" | "fresh" | "events")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_the_backend_is_kept_byte_for_byte() {
        let text = "proxmox_endpoint_ids=1,2&&x=%20+&bridge.ids=1&a=b=c&bridge%2Eevents=all&empty=&x";
        let query = Query::parse(text).unwrap();
        assert_eq!(query.backend_query, "proxmox_endpoint_ids=1,2&&x=%20+&a=b=c&empty=&x");
        assert_eq!(
            query.parameters,
            BridgeParameters { ids: true, all_events: true, ..BridgeParameters::default() }
        );
        assert_eq!(Query::parse("").unwrap(), Query::default());
        assert_eq!(Query::parse("bridged=1&bridge=2").unwrap().backend_query, "bridged=1&bridge=2");
    }

    #[test]
    fn what_event_source_polyfills_add_is_for_the_bridge_in_the_query_of_a_stream() {
        let text = "a=1&_=1767225600&lastEventId=x.1&&b=_&__=2";
        let stream = Query::parse_stream(text).unwrap();
        assert_eq!(stream.backend_query, "a=1&&b=_&__=2");
        assert_eq!(stream.parameters.last_event_id.as_deref(), Some("x.1"));
        let last = |text| Query::parse_stream(text).unwrap().parameters.last_event_id;
        assert_eq!(last("Last-Event-ID=x.2").as_deref(), Some("x.2"));
        assert_eq!(last("lastEventId=").as_deref(), Some(""), "it supports ids");
        assert_eq!(last("lastEventId=x.1&bridge.last_event_id=x.3").as_deref(), Some("x.1"), "the newer one");
        assert_eq!(last("_=1"), None);
        assert_eq!(Query::parse(text).unwrap().backend_query, text, "elsewhere they are the backend's");
    }

    #[test]
    fn a_parameter_of_ours_that_is_none_is_refused_by_name() {
        for (text, is_known) in [
            ("bridge.id=1", false),
            ("bridge.ids=yes", true),
            ("bridge.events=some", true),
            ("bridge.", false),
            ("a=b&bridge.payload", true),
        ] {
            let refused = Query::parse(text).unwrap_err();
            assert!(refused.to_string().contains("bridge.events=all"), "{refused}");
            assert_eq!(refused.is_known, is_known, "{refused}");
        }
    }
}
