//! WebSocket tunnels to paths that the bridge does not serve itself.
//!
//! Clients and backends in three languages, each with its own library, exchange messages through the bridge in
//! every combination. `bytes.rs` covers byte sequences that no library sends.

mod bytes;
mod frames;
mod process;
mod rust;
mod wire;

use std::net::SocketAddr;

use crate::support::bridge::{TestBridge, config};

/// The language of a peer.
#[derive(Clone, Copy, Debug)]
enum Language {
    Rust,
    Python,
    Node,
}

/// A backend with the protocol that `tests/peers/peer.py` documents.
enum PeerBackend {
    Rust(rust::RustServer),
    Other(process::ProcessServer),
}

impl PeerBackend {
    async fn start(language: Language) -> Self {
        match language {
            Language::Rust => Self::Rust(rust::RustServer::start().await),
            Language::Python => Self::Other(process::ProcessServer::start(process::python()).await),
            Language::Node => Self::Other(process::ProcessServer::start(process::node()).await),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Rust(server) => server.address,
            Self::Other(server) => server.address,
        }
    }
}

/// Makes all exchanges through a bridge.
async fn exchange_through_bridge(client: Language, backend: Language) {
    let backend = PeerBackend::start(backend).await;
    let front = TestBridge::start(config(backend.address(), &[])).await;
    match client {
        Language::Rust => rust::run_client(front.address).await,
        Language::Python => process::run_client(process::python(), front.address).await,
        Language::Node => process::run_client(process::node(), front.address).await,
    }
}

/// Pseudo-random bytes.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[tokio::test]
async fn a_rust_client_and_a_rust_backend_exchange_messages() {
    exchange_through_bridge(Language::Rust, Language::Rust).await;
}

#[tokio::test]
async fn a_rust_client_and_a_python_backend_exchange_messages() {
    exchange_through_bridge(Language::Rust, Language::Python).await;
}

#[tokio::test]
async fn a_rust_client_and_a_node_backend_exchange_messages() {
    exchange_through_bridge(Language::Rust, Language::Node).await;
}

#[tokio::test]
async fn a_python_client_and_a_rust_backend_exchange_messages() {
    exchange_through_bridge(Language::Python, Language::Rust).await;
}

#[tokio::test]
async fn a_python_client_and_a_python_backend_exchange_messages() {
    exchange_through_bridge(Language::Python, Language::Python).await;
}

#[tokio::test]
async fn a_python_client_and_a_node_backend_exchange_messages() {
    exchange_through_bridge(Language::Python, Language::Node).await;
}

#[tokio::test]
async fn a_node_client_and_a_rust_backend_exchange_messages() {
    exchange_through_bridge(Language::Node, Language::Rust).await;
}

#[tokio::test]
async fn a_node_client_and_a_python_backend_exchange_messages() {
    exchange_through_bridge(Language::Node, Language::Python).await;
}

#[tokio::test]
async fn a_node_client_and_a_node_backend_exchange_messages() {
    exchange_through_bridge(Language::Node, Language::Node).await;
}
