//! What can be wrong between keys, each of which is right alone.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::draft::{Draft, NetboxDraft};
use super::problem::{Origin, Problem};

/// What is wrong between the keys of `common` and of `backends`, whose blocks begin at `blocks`, as far as it
/// does not follow from the `problems` found before.
pub(super) fn problems(
    common: &Draft,
    backends: &[Draft],
    blocks: &[Origin],
    problems: &[Problem],
) -> Vec<Problem> {
    let mut found = no_backend(backends, blocks, problems);
    found.extend(shared_addresses(common, backends, problems));
    let checks = [nowhere_to_record, retention_too_short, half_tls, open_admin, short_token];
    found.extend(checks.into_iter().filter_map(|check| check(common, problems)));
    for backend in backends {
        found.extend(
            [trust(backend), no_tls(backend), no_netbox_tls(backend), half_client(backend)]
                .into_iter()
                .flatten(),
        );
        found.extend(netbox(backend, problems));
    }
    if !bad(problems, &["backend.hosts", "backend.listen", "backend.name"]) {
        found.extend(routes(backends));
    }
    found
}

/// Nothing names a backend, unless it may stand where something else is wrong.
fn no_backend(backends: &[Draft], blocks: &[Origin], problems: &[Problem]) -> Vec<Problem> {
    if unread(problems) || bad(problems, &["backend.url", "backend"]) {
        return Vec::new();
    }
    let missing = backends.iter().enumerate().filter(|(_, backend)| backend.url.is_none());
    let problem = |index: usize| match blocks.get(index) {
        Some(origin) if blocks.len() > 1 => Problem::NoUrl { origin: origin.clone() },
        _ => Problem::NoBackend,
    };
    missing.map(|(index, _)| problem(index)).collect()
}

/// The system would refuse to bind the second address after the first.
fn shared_addresses(common: &Draft, backends: &[Draft], problems: &[Problem]) -> Vec<Problem> {
    if bad(problems, &["listen", "admin_listen", "backend.listen", "backend.netbox_listen"]) {
        return Vec::new();
    }
    let own = backends.iter().flat_map(|backend| {
        let listeners =
            [("backend.listen", backend.own_listen), ("backend.netbox_listen", backend.netbox.listen)];
        listeners.into_iter().filter_map(|(key, address)| Some((key, address?)))
    });
    let all: Vec<_> =
        [("listen", common.listen), ("admin_listen", common.admin_listen)].into_iter().chain(own).collect();
    let mut found = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let shared = all.iter().skip(index + 1).filter(|other| is_shared(one.1, other.1));
        found.extend(shared.map(|other| Problem::SharedAddress { one: *one, other: *other }));
    }
    found
}

fn is_shared(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let wildcard = same_family && (one.ip().is_unspecified() || other.ip().is_unspecified());
    let same_port = one.port() != 0 && one.port() == other.port();
    same_port && (wildcard || one.ip() == other.ip())
}

/// Whoever reaches the admin listener from elsewhere must prove who they are.
fn open_admin(draft: &Draft, problems: &[Problem]) -> Option<Problem> {
    let address = draft.admin_listen;
    let hidden = unread(problems) || bad(problems, &["admin_listen", "admin_token_file"]);
    let is_open = !address.ip().to_canonical().is_loopback() && draft.admin_token_file.is_none();
    (is_open && !hidden).then_some(Problem::OpenAdmin { address })
}

/// A token that can be guessed proves nothing.
fn short_token(draft: &Draft, _: &[Problem]) -> Option<Problem> {
    let length = draft.admin_token.as_ref()?.expose().len();
    (length < SHORTEST_TOKEN).then_some(Problem::ShortToken { least: SHORTEST_TOKEN })
}

/// The shortest token of operators, in characters.
const SHORTEST_TOKEN: usize = 16;

/// Recordings are files, unlike the ledger, which can do without a directory.
fn nowhere_to_record(draft: &Draft, problems: &[Problem]) -> Option<Problem> {
    let hidden = unread(problems) || bad(problems, &["data_dir"]);
    (draft.jobs.recording && draft.data_dir.is_none() && !hidden).then_some(Problem::NowhereToRecord)
}

/// The last frames of a job are kept with its record, and go with it.
fn retention_too_short(draft: &Draft, problems: &[Problem]) -> Option<Problem> {
    let (retention, log_retention) = (draft.limits.retention, draft.limits.log_retention);
    let hidden = bad(problems, &["limits.retention", "limits.log_retention"]);
    (retention < log_retention && !hidden).then_some(Problem::RetentionTooShort { retention, log_retention })
}

/// A certificate is of no use without its key.
fn half_tls(draft: &Draft, problems: &[Problem]) -> Option<Problem> {
    let (key, with) = match (&draft.certificate, &draft.key, &draft.client_ca) {
        (None, Some(_), _) => ("tls.certificate", "tls.key"),
        (None, None, Some(_)) => ("tls.certificate", "tls.client_ca"),
        (Some(_), None, _) => ("tls.key", "tls.certificate"),
        _ => return None,
    };
    let hidden = unread(problems) || bad(problems, &["tls.certificate", "tls.key"]);
    (!hidden).then_some(Problem::HalfTls { key, with })
}

/// Neither is the one that a backend is shown.
fn half_client(draft: &Draft) -> Option<Problem> {
    half(&draft.backend_certificate, &draft.backend_key, ("backend.client_certificate", "backend.client_key"))
}

/// A certificate without its key, or a key without its certificate; `names` are the keys of the configuration.
fn half(
    certificate: &Option<PathBuf>,
    key: &Option<PathBuf>,
    names: (&'static str, &'static str),
) -> Option<Problem> {
    match (certificate, key) {
        (None, Some(_)) => Some(Problem::HalfTls { key: names.0, with: names.1 }),
        (Some(_), None) => Some(Problem::HalfTls { key: names.1, with: names.0 }),
        _ => None,
    }
}

/// There is one way to tell whose certificate it must be.
fn trust(draft: &Draft) -> Option<Problem> {
    let given = [draft.ca_file.is_some(), draft.pin.is_some(), draft.insecure];
    let is_many = given.into_iter().filter(|given| *given).count() > 1;
    is_many.then(|| Problem::ManyTrusts { name: name(draft), keys: "ca_file, pin and insecure" })
}

/// Whether no URL leads to `address`: it is any, or there is one on every network.
fn is_unreachable(address: IpAddr) -> bool {
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    address.is_unspecified() || is_link_local
}

/// The port to which backends speak TLS, whatever they are told of the certificate there.
const HTTPS: u16 = 443;

/// Validates the keys `backend.netbox_…`.
fn netbox(draft: &Draft, problems: &[Problem]) -> Vec<Problem> {
    let netbox = &draft.netbox;
    let given = [
        ("netbox_certificate", netbox.certificate.is_some()),
        ("netbox_key", netbox.key.is_some()),
        ("netbox_allow", !netbox.allow.is_empty()),
        ("netbox_url", netbox.url.is_some()),
        ("netbox_ca_file", netbox.ca_file.is_some()),
        ("netbox_pin", netbox.pin.is_some()),
        ("netbox_client_certificate", netbox.client_certificate.is_some()),
        ("netbox_client_key", netbox.client_key.is_some()),
    ];
    let mut found = Vec::new();
    match netbox.listen {
        Some(address) if is_unreachable(address.ip().to_canonical()) => {
            found.push(Problem::AnyNetboxListener { name: name(draft), address });
        }
        Some(address)
            if !address.ip().to_canonical().is_loopback()
                && netbox.allow.is_empty()
                && !bad(problems, &["backend.netbox_allow"]) =>
        {
            found.push(Problem::OpenNetboxListener { name: name(draft), address });
        }
        Some(address) if address.port() == HTTPS && netbox.certificate.is_none() => {
            found.push(Problem::PlainNetboxListener { name: name(draft), address });
        }
        None if !bad(problems, &["backend.netbox_listen"]) => {
            let key = given.into_iter().find_map(|(key, is_given)| is_given.then_some(key));
            found.extend(key.map(|key| Problem::NoNetboxListener { name: name(draft), key }));
        }
        _ => {}
    }
    if netbox.ca_file.is_some() && netbox.pin.is_some() {
        found.push(Problem::ManyTrusts { name: name(draft), keys: "netbox_ca_file and netbox_pin" });
    }
    let names = ("backend.netbox_certificate", "backend.netbox_key");
    found.extend(half(&netbox.certificate, &netbox.key, names));
    let names = ("backend.netbox_client_certificate", "backend.netbox_client_key");
    found.extend(half(&netbox.client_certificate, &netbox.client_key, names));
    found
}

/// A backend without TLS has no certificate. Whoever says what it must be like believes that it has.
fn no_tls(draft: &Draft) -> Option<Problem> {
    let given = [
        ("ca_file", draft.ca_file.is_some()),
        ("pin", draft.pin.is_some()),
        ("client_certificate", draft.backend_certificate.is_some()),
        ("insecure", draft.insecure),
    ];
    let (key, _) = given.into_iter().find(|(_, given)| *given)?;
    let is_plain = draft.url.as_ref().is_some_and(|url| !url.is_tls());
    is_plain.then(|| Problem::NoTls { name: name(draft), key, url: "url" })
}

/// Nor has a NetBox. What the plugin pushes is seen when it does.
fn no_netbox_tls(draft: &Draft) -> Option<Problem> {
    let NetboxDraft { url, ca_file, pin, client_certificate, .. } = &draft.netbox;
    let given = [
        ("netbox_ca_file", ca_file.is_some()),
        ("netbox_pin", pin.is_some()),
        ("netbox_client_certificate", client_certificate.is_some()),
    ];
    let (key, _) = given.into_iter().find(|(_, given)| *given)?;
    let is_plain = url.as_ref().is_some_and(|url| !url.is_tls());
    is_plain.then(|| Problem::NoTls { name: name(draft), key, url: "netbox_url" })
}

/// Every client must be for one backend, and every backend must be told from the others by its name.
fn routes(backends: &[Draft]) -> Vec<Problem> {
    let mut found = Vec::new();
    let both = backends.iter().filter(|backend| backend.own_listen.is_some() && !backend.hosts.is_empty());
    found.extend(both.map(|backend| Problem::TwoRoutes { name: name(backend) }));
    let mut open = backends.iter().filter(|backend| backend.own_listen.is_none() && backend.hosts.is_empty());
    if let (Some(first), Some(second)) = (open.next(), open.next()) {
        found.push(Problem::NoRoute { first: name(first), second: name(second) });
    }
    let hosts: Vec<String> = backends.iter().flat_map(|backend| backend.hosts.clone()).collect();
    found.extend(same("host", hosts, "a client must be for one of them"));
    let urls = backends.iter().filter_map(|backend| backend.url.as_ref()).map(ToString::to_string);
    found.extend(same("url", urls.collect(), "write one block, whose hosts are those of both"));
    let names = backends.iter().filter(|backend| backend.url.is_some()).map(name);
    if found.is_empty() {
        found.extend(same("name", names.collect(), "give one of them another name"));
    }
    found
}

/// The first value that stands twice among `values` of `key`.
fn same(key: &'static str, values: Vec<String>, way_out: &'static str) -> Option<Problem> {
    let twice = values.iter().enumerate().find(|(index, value)| values[..*index].contains(value));
    twice.map(|(_, value)| Problem::SameBackend { key, value: value.clone(), way_out })
}

/// What a message calls a backend.
fn name(draft: &Draft) -> String {
    let url = draft.url.as_ref().map(|url| url.authority());
    draft.name.clone().or(url).unwrap_or_else(|| "without url".to_owned())
}

/// Whether the file may set keys that are not known.
fn unread(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| matches!(problem, Problem::Unreadable { .. } | Problem::Syntax { .. }))
}

/// Whether the value of one of `keys` was refused.
fn bad(problems: &[Problem], keys: &[&str]) -> bool {
    problems.iter().filter_map(Problem::key).any(|key| keys.contains(&key))
}
