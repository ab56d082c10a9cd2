//! A backend that fails in every way. The query of a request names the fault.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Pseudo-random numbers, equal for an equal seed (`SplitMix64`).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// How many faults there are, success included.
pub const COUNT: u64 = 12;
/// The faults before the head of a stream: its client may get a response that is no stream.
pub const REFUSING: std::ops::RangeInclusive<u64> = 1..=4;

/// Whether a sync with this fault completes: there is none, or frames follow its end.
pub fn completes(fault: u64) -> bool {
    matches!(fault, 0 | LATE_FRAMES)
}

const LATE_FRAMES: u64 = 10;

/// A backend with native streams.
pub struct FaultyBackend;

impl FaultyBackend {
    /// Starts it. Returns its address.
    pub async fn start(seed: u64) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let streams = Arc::new(AtomicU64::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let streams = Arc::clone(&streams);
                // The bridge may disconnect at any time.
                tokio::spawn(async move { drop(answer(stream, seed, &streams).await) });
            }
        });
        Ok(address)
    }
}

async fn answer(mut stream: TcpStream, seed: u64, streams: &AtomicU64) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("HEAD ") {
        return write(
            &mut stream,
            "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
    }
    let Some((_, fault)) = head.split_once("?fault=") else {
        let status = if head.contains(" /version") { "404 Not Found" } else { "200 OK" };
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}");
        return write(&mut stream, &head).await;
    };
    let fault: u64 = fault.split('&').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut random = Random::new(seed ^ streams.fetch_add(1, Ordering::Relaxed));
    fail(&mut stream, fault, &mut random).await
}

async fn write(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes()).await
}

/// Writes the chunk `text`.
async fn chunk(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    write(stream, &format!("{:x}\r\n{text}\r\n", text.len())).await
}

const COMPLETE: &str = "event: complete\ndata: {\"ok\": true, \"message\": \"Done.\"}\n\n";

/// Runs one sync, with the fault of this number.
async fn fail(stream: &mut TcpStream, fault: u64, random: &mut Random) -> std::io::Result<()> {
    match fault {
        1 => {
            return write(stream, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nOops")
                .await;
        }
        2 => return write(stream, "HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 2\r\n\r\n{}").await,
        // No response.
        3 => return Ok(()),
        // A response that never begins.
        4 => {
            sleep(Duration::from_secs(3)).await;
            return Ok(());
        }
        _ => {}
    }
    write(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    for number in 0..random.below(300) {
        // The first never fails: a sync of which every object has failed fails.
        let fails = random.below(20) == 0 && number > 0;
        let (status, completed) = if fails { ("failed", false) } else { ("completed", true) };
        let step = format!(
            "event: step\ndata: {{\"step\": \"virtual_machine\", \"status\": \"{status}\", \"message\": \"vm{number}\", \
             \"rowid\": \"vm{number}\", \"payload\": {{\"object\": \"virtual_machine\", \"data\": {{\"completed\": \
             {completed}, \"rowid\": \"vm{number}\", \"error\": null}}}}}}\n\n"
        );
        chunk(stream, &step).await?;
        if random.below(16) == 0 {
            sleep(Duration::from_millis(random.below(20))).await;
        }
    }
    match fault {
        // Cut in a frame, cleanly.
        5 => chunk(stream, "event: step\ndata: {\"step\": ").await?,
        // Cut in a chunk.
        6 => return write(stream, "ff\r\nevent: st").await,
        // Reset.
        7 => return stream.set_zero_linger(),
        // Silence.
        8 => sleep(Duration::from_secs(3)).await,
        // No events at all.
        9 => chunk(stream, "event: step\ndata: \u{0}garbage\n\nevent: error\ndata: [1]\n\n").await?,
        // The end twice, and frames after it.
        LATE_FRAMES => {
            chunk(stream, COMPLETE).await?;
            for _ in 0..3 {
                chunk(stream, "event: step\ndata: {\"step\": \"late\", \"status\": \"progress\", \"message\": \"Late.\"}\n\n")
                    .await?;
                sleep(Duration::from_millis(50)).await;
            }
            chunk(stream, COMPLETE).await?;
        }
        // A failure.
        11 => {
            let error = "event: error\ndata: {\"step\": \"vm\", \"error\": \"No.\", \"detail\": \"No.\"}\n\n";
            chunk(stream, error).await?;
            chunk(stream, "event: complete\ndata: {\"ok\": false, \"message\": \"It failed.\"}\n\n").await?;
        }
        _ => chunk(stream, COMPLETE).await?,
    }
    write(stream, "0\r\n\r\n").await
}
