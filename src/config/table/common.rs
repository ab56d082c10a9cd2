//! The keys of the whole bridge.

use super::{Key, key};
use crate::config::slot::Slot;

pub(super) static KEYS: &[Key] = &[
    key(
        "listen",
        Some("127.0.0.1:8800"),
        Slot::Address(|draft| &mut draft.listen),
        "The address on which clients are served.",
    ),
    key(
        "admin_listen",
        Some("127.0.0.1:8801"),
        Slot::Address(|draft| &mut draft.admin_listen),
        "The address of the admin listener, which has the live page, the jobs API, /metrics, /livez and \
         /readyz. One that is not a loopback address needs admin_token_file.",
    ),
    key(
        "admin_token_file",
        None,
        Slot::Path(|draft| &mut draft.admin_token_file),
        "The file with the token of operators, on one line, 16 characters or more. Everything on the admin \
         listener needs it but /livez and /readyz.",
    ),
    key(
        "admin_open_reads",
        Some("off"),
        Slot::Switch(|draft| &mut draft.admin_open_reads),
        "Whether reading needs no token for whoever comes to a loopback address of the admin listener by such an \
         address or as localhost. A proxy, tunnel or container port that leads there lets everybody read who \
         reaches it.",
    ),
    key(
        "admin_open_metrics",
        Some("off"),
        Slot::Switch(|draft| &mut draft.admin_open_metrics),
        "Whether /metrics needs no token on any address.",
    ),
    key(
        "data_dir",
        None,
        Slot::Path(|draft| &mut draft.data_dir),
        "The directory of the ledger, the durable record of jobs, made if it is missing; without it the \
         record is kept in memory and lost when the bridge ends.",
    ),
    key(
        "trusted_proxies",
        None,
        Slot::Networks(|draft| &mut draft.trusted_proxies),
        "The proxies in front of the bridge whose X-Forwarded-For, -Proto and -Host are believed; what others \
         send of these is replaced.",
    ),
    key(
        "tls.certificate",
        None,
        Slot::Path(|draft| &mut draft.certificate),
        "The file with the certificate of the bridge and those of its issuers, as PEM: with it, clients are \
         served over TLS. It is read again when it changes.",
    ),
    key(
        "tls.key",
        None,
        Slot::Path(|draft| &mut draft.key),
        "The file with the key of that certificate, as PEM.",
    ),
    key(
        "tls.client_ca",
        None,
        Slot::Path(|draft| &mut draft.client_ca),
        "The file with the authorities of client certificates, as PEM: with it, a client must have one.",
    ),
];
