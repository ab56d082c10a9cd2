//! The keys of a backend.

use super::{Key, key, put};
use crate::config::slot::Slot;
use crate::core::domain::channel::Choice;
use crate::core::run::policy::{EndpointIds, Unsupported};

pub(super) static KEYS: &[Key] = &[
    key(
        "backend.url",
        None,
        Slot::Url(|draft| &mut draft.url),
        "Where the backend is; the one key that has to be set. https is TLS to the backend.",
    ),
    key(
        "backend.name",
        None,
        Slot::Name(|draft| &mut draft.name),
        "What the backend is called in the log, in metrics and by the admin listener; host and port of its URL \
         if it is left out.",
    ),
    key(
        "backend.listen",
        None,
        Slot::OwnAddress(|draft| &mut draft.own_listen),
        "An address on which clients of this backend alone are served, in the place of listen.",
    ),
    key(
        "backend.hosts",
        None,
        Slot::Hosts(|draft| &mut draft.hosts),
        "The names, as clients write them in their URL, by which this backend is told from the others on \
         listen.",
    ),
    key(
        "backend.ca_file",
        None,
        Slot::Path(|draft| &mut draft.ca_file),
        "The file with the authorities that the backend's certificate may be of, as PEM, in the place of those \
         of the system.",
    ),
    key(
        "backend.pin",
        None,
        Slot::Pin(|draft| &mut draft.pin),
        "The SHA-256 of the one certificate that the backend may have, whoever it is of.",
    ),
    key(
        "backend.client_certificate",
        None,
        Slot::Path(|draft| &mut draft.backend_certificate),
        "The file with the certificate that the bridge shows to the backend, and those of its issuers, as PEM.",
    ),
    key(
        "backend.client_key",
        None,
        Slot::Path(|draft| &mut draft.backend_key),
        "The file with the key of that certificate, as PEM.",
    ),
    key(
        "backend.insecure",
        Some("off"),
        Slot::Switch(|draft| &mut draft.insecure),
        "Whether any certificate of the backend is taken: on says so in the log at every start.",
    ),
    key(
        "backend.channel",
        Some("auto"),
        Slot::Word(&Choice::WORDS, |draft, text| put(&mut draft.channel, text)),
        "How the backend is driven: auto chooses for each kind by what the backend can do.",
    ),
    key(
        "backend.unsupported",
        Some("auto"),
        Slot::Word(&Unsupported::WORDS, |draft, text| put(&mut draft.unsupported, text)),
        "What becomes of a sync that the backend has no way to run: refuse answers 404, skip a stream that \
         ends well and says that nothing was done. auto skips a stage that follows others in one job of the \
         plugin, which would stop there, and refuses everything else.",
    ),
    key(
        "backend.endpoint_ids",
        Some("backend"),
        Slot::Word(&EndpointIds::WORDS, |draft, text| put(&mut draft.endpoint_ids, text)),
        "Whose ids clients send as proxmox_endpoint_ids: backend for those of the backend's database, as plugins \
         since 0.0.20 send them, plugin for the primary keys of NetBox, as plugins 0.0.11 to 0.0.19 do.",
    ),
    key(
        "backend.object_failures",
        Some("all"),
        Slot::Policies(|draft| &mut draft.object_failures),
        "When objects that failed make a run a failed one: all when none completed of a kind that the plugin queues, \
         any when one failed, never repeats the verdict of the backend. Kinds that are named behind it have a word \
         of their own. See deploy/counts.md.",
    ),
    key(
        "backend.api_key_file",
        None,
        Slot::Path(|draft| &mut draft.api_key_file),
        "The file with the key that goes to the backend in the place of the key of clients on sync streams, on one line. Whoever reaches the bridge can then start a sync.",
    ),
    key(
        "backend.concurrency",
        Some("1"),
        Slot::Count(|draft| &mut draft.concurrency, 1, 64),
        "How many syncs run on the backend at once; two at once have made most objects of both fail on a \
         real backend.",
    ),
    key(
        "backend.queue",
        Some("16"),
        Slot::Count(|draft| &mut draft.queue, 0, 1000),
        "How many more syncs may wait for their turn before new ones are refused with 503.",
    ),
    key(
        "backend.netbox_listen",
        None,
        Slot::OwnAddress(|draft| &mut draft.netbox.listen),
        "An address on which the bridge stands in front of NetBox, for the backend alone. The backend is given this \
         address in the place of NetBox's. See deploy/netbox-listener.md.",
    ),
    key(
        "backend.netbox_certificate",
        None,
        Slot::Path(|draft| &mut draft.netbox.certificate),
        "The file with the certificate of netbox_listen and those of its issuers, as PEM: with it, the backend is served \
         over TLS there, and is told to verify it. It must be for the IP address of netbox_listen, and is read again when \
         it changes.",
    ),
    key(
        "backend.netbox_key",
        None,
        Slot::Path(|draft| &mut draft.netbox.key),
        "The file with the key of that certificate, as PEM.",
    ),
    key(
        "backend.netbox_allow",
        None,
        Slot::Networks(|draft| &mut draft.netbox.allow),
        "The addresses of the backend, which may connect to netbox_listen beside loopback addresses.",
    ),
    key(
        "backend.netbox_url",
        None,
        Slot::Url(|draft| &mut draft.netbox.url),
        "Where NetBox is; if it is left out, the address that the plugin pushes to /netbox/endpoint.",
    ),
    key(
        "backend.netbox_ca_file",
        None,
        Slot::Path(|draft| &mut draft.netbox.ca_file),
        "The file with the authorities that NetBox's certificate may be of, as PEM, in the place of those of the \
         system.",
    ),
    key(
        "backend.netbox_pin",
        None,
        Slot::Pin(|draft| &mut draft.netbox.pin),
        "The SHA-256 of the one certificate that NetBox may have, whoever it is of.",
    ),
    key(
        "backend.netbox_client_certificate",
        None,
        Slot::Path(|draft| &mut draft.netbox.client_certificate),
        "The file with the certificate that the bridge shows to NetBox, and those of its issuers, as PEM.",
    ),
    key(
        "backend.netbox_client_key",
        None,
        Slot::Path(|draft| &mut draft.netbox.client_key),
        "The file with the key of that certificate, as PEM.",
    ),
];
