//! A backend with one stream, which it writes as fast as the client reads.
#![allow(dead_code, reason = "not everybody uses all of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Its one stream.
pub const PATH: &str = "/virtualization/virtual-machines/create/stream";
/// An event stream that never ends.
pub const ENDLESS: &str = "/dcim/endless";
/// The head of an event stream.
const EVENT_STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
/// How much is written at once, in bytes.
const AT_ONCE: usize = 64 * 1024;

/// What its events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// Objects in progress.
    Progress,
    /// A stage that fails, each time for another reason.
    Failures,
    /// A stage that fails, each time for the same reason.
    RepeatedFailure,
    /// Objects of which each tenth fails.
    FailedObjects,
}

/// Starts it in a detached thread. Its stream has `count` events, the last one included.
pub fn start(count: usize, events: Events) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            thread::spawn(move || answer(connection, count, events));
        }
    });
    address
}

/// Answers one request as releases without `/version` do. The bridge has a connection for each.
fn answer(mut connection: TcpStream, count: usize, events: Events) {
    let mut head = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = head.next() else { return };
    head.take_while(|line| !line.is_empty()).for_each(drop);
    let mut request = request.split(' ');
    let answer = match (request.next(), request.next()) {
        (Some("GET"), Some(PATH)) => {
            // The client may disconnect at any time.
            drop(stream(&mut connection, count, events));
            return;
        }
        (_, Some(ENDLESS)) => {
            // Until the client disconnects.
            drop(
                connection
                    .write_all(format!("{EVENT_STREAM}5\r\nhello\r\n").as_bytes())
                    .and_then(|()| connection.read(&mut [0])),
            );
            return;
        }
        (_, Some(PATH)) => "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n",
        (_, Some("/version")) => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    };
    drop(connection.write_all(answer.as_bytes()));
}

fn stream(connection: &mut TcpStream, count: usize, events: Events) -> std::io::Result<()> {
    connection.write_all(EVENT_STREAM.as_bytes())?;
    let mut piece = Vec::with_capacity(2 * AT_ONCE);
    for number in 1..count {
        match events {
            Events::Progress => item(&mut piece, number, count),
            Events::Failures => failure(&mut piece, number),
            Events::RepeatedFailure => failure(&mut piece, 0),
            Events::FailedObjects => object(&mut piece, number),
        }
        if piece.len() >= AT_ONCE {
            chunk(connection, &mut piece)?;
        }
    }
    piece.extend_from_slice(
        b"event: complete\ndata: {\"ok\": true, \"message\": \"Virtual machines sync completed.\", \
          \"result\": {\"count\": 10000}}\n\n",
    );
    chunk(connection, &mut piece)?;
    connection.write_all(b"0\r\n\r\n")
}

/// As 0.0.30 says what it does: the same words, and as many of them. Each event is of another object, so that
/// what tells objects apart is full too.
fn item(out: &mut Vec<u8>, number: usize, count: usize) {
    write!(
        out,
        "event: item_progress\ndata: {{\"event\": \"item_progress\", \"phase\": \"virtual-machines\", \
         \"status\": \"processing\", \"message\": \"Processing VM 'vm{number:06}'\", \
         \"item\": {{\"name\": \"vm{number:06}\", \"item_type\": \"qemu\"}}, \"operation\": \"created\", \"progress\": {{\"current\": {number}, \
         \"total\": {count}, \"percent\": 33.33333333333333}}}}\n\n"
    )
    .unwrap();
}

/// A step of a virtual machine in the words of 0.0.11. Each tenth machine fails.
fn object(out: &mut Vec<u8>, number: usize) {
    let (status, error) = if number.is_multiple_of(10) {
        ("failed", "\"NetBox REST request failed: The fields name, cluster must make a unique set.\"")
    } else {
        ("completed", "null")
    };
    write!(
        out,
        "event: step\ndata: {{\"step\": \"virtual_machine\", \"status\": \"{status}\", \"message\": \"Virtual machine \
         vm{number:06} {status}.\", \"rowid\": \"vm{number:06}\", \"payload\": {{\"object\": \"virtual_machine\", \"data\": {{\
         \"completed\": {}, \"rowid\": \"vm{number:06}\", \"name\": \"vm{number:06}\", \"cluster\": \"lab\", \"error\": {error}\
         }}}}}}\n\n",
        status == "completed",
    )
    .unwrap();
}

/// As 0.0.11 says that something failed that is no single object.
fn failure(out: &mut Vec<u8>, number: usize) {
    write!(
        out,
        "event: step\ndata: {{\"step\": \"sync\", \"status\": \"failed\", \"message\": \"Failure {number} of the \
         synchronization of virtual machines, with as many words as such messages have.\"}}\n\n"
    )
    .unwrap();
}

fn chunk(connection: &mut TcpStream, piece: &mut Vec<u8>) -> std::io::Result<()> {
    write!(connection, "{:x}\r\n", piece.len())?;
    piece.extend_from_slice(b"\r\n");
    connection.write_all(piece)?;
    piece.clear();
    Ok(())
}
