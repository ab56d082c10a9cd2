//! The requests of `fixtures/hostile`, read as its README describes them.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostileCase {
    pub name: String,
    send: Vec<Piece>,
    pub status: Option<u16>,
    pub reason: Option<String>,
    #[serde(default)]
    pub accepted: u64,
    #[serde(default)]
    pub in_body: bool,
    pub closes: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Hex { hex: String },
    Repeat { text: String, times: usize },
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Hex { hex } => {
                let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
                digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
            }
            Self::Repeat { text, times } => text.repeat(*times).into_bytes(),
        }
    }
}

impl HostileCase {
    /// What the client sends, one write each.
    pub fn pieces(&self) -> impl Iterator<Item = Vec<u8>> {
        self.send.iter().map(Piece::bytes)
    }
}

pub fn table() -> Vec<HostileCase> {
    serde_json::from_str(include_str!("../../fixtures/hostile/requests.json")).unwrap()
}
