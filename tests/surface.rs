//! Every documented path of the backends, requested directly and through the bridge.
//!
//! `fixtures/openapi` has the paths and methods of five releases. Each is requested as documented, and in other
//! ways that HTTP allows. Both responses must be equal except for per-connection headers and the headers that the
//! bridge adds, and so must the requests that the backend received. The bridge's own responses have no `Via`: they
//! appear for the paths of [`own::BridgePaths`], and for no others.

mod calls;
mod headers;
mod http1;
mod http2;
mod idle;
mod listing;
mod odd;
mod own;
mod scripted;
mod walk;

use http::Version;

use crate::support::bridge::{BridgedReplay, fast, recordings};
use calls::{calls, calls_with_key};
use http1::Http1;
use http2::Http2;
use listing::{Listing, OLD, YOUNG};
use own::BridgePaths;
use scripted::EchoBackend;
use walk::{Protocol, Walk};

/// Walks `paths` of a recorded backend.
async fn walk_recorded(recorded: &str, version: &str) {
    let pair = BridgedReplay::start(recordings(recorded, &[]), fast(), &[]).await;
    let listing = Listing::for_versions(&[version]);
    let mut walk = Walk {
        direct: Http1::new(pair.backend.local_addr()),
        through: Protocol::Http1(Http1::new(pair.front.address)),
        scripted: None,
        own: BridgePaths::new(&listing),
    };
    walk.all(&calls_with_key(&listing)).await;
}

/// Walks all paths of these versions before a scripted backend, with responses of every form.
async fn walk_scripted(versions: &[&str], version: Version) {
    let listing = Listing::for_versions(versions);
    let scripted = EchoBackend::start(&listing).await;
    // Nothing is cached.
    let config = crate::support::bridge::config(scripted.address(), &[("limits.coalesce", "0s")]);
    let front = crate::support::bridge::TestBridge::start(config).await;
    let mut walk = Walk {
        direct: Http1::new(scripted.address()),
        through: match version {
            Version::HTTP_2 => Protocol::Http2(Http2::new(front.address)),
            _ => Protocol::Http1(Http1::new(front.address)),
        },
        scripted: Some(scripted),
        own: BridgePaths::new(&listing),
    };
    walk.all(&calls(&listing)).await;
}

#[tokio::test]
async fn the_surface_of_the_recorded_0_0_2_is_the_same_through_the_bridge() {
    walk_recorded("0.0.2.post1", "0.0.2.post1").await;
}

#[tokio::test]
async fn the_surface_of_the_recorded_0_0_3_is_the_same_through_the_bridge() {
    walk_recorded("0.0.3", "0.0.3").await;
}

#[tokio::test]
async fn the_surface_of_the_recorded_0_0_11_is_the_same_through_the_bridge() {
    walk_recorded("0.0.11.post2", "0.0.11.post2").await;
}

#[tokio::test]
async fn the_surface_of_the_recorded_0_0_30_is_the_same_through_the_bridge() {
    walk_recorded("0.0.30.post2", "0.0.30.post2").await;
}

#[tokio::test]
async fn the_surface_of_the_recorded_0_0_30_as_shipped_is_the_same_through_the_bridge() {
    walk_recorded("0.0.30.post2-default-mode", "0.0.30.post2").await;
}

#[tokio::test]
async fn every_exchange_with_an_old_backend_passes_over_http_1() {
    walk_scripted(OLD, Version::HTTP_11).await;
}

#[tokio::test]
async fn every_exchange_with_an_old_backend_passes_over_http_2() {
    walk_scripted(OLD, Version::HTTP_2).await;
}

#[tokio::test]
async fn every_exchange_with_a_new_backend_passes_over_http_1() {
    walk_scripted(YOUNG, Version::HTTP_11).await;
}

#[tokio::test]
async fn every_exchange_with_a_new_backend_passes_over_http_2() {
    walk_scripted(YOUNG, Version::HTTP_2).await;
}
