//! A backend that has one stream, and says as much on it as fast as it is taken.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Its one stream.
pub const PATH: &str = "/virtualization/virtual-machines/create/stream";
/// How much is written at once, in bytes.
const AT_ONCE: usize = 64 * 1024;

/// Starts it, in a thread that nobody waits for. Its stream has `events` events, the last one included.
pub fn start(events: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            thread::spawn(move || answer(connection, events));
        }
    });
    address
}

/// Answers one request as releases without `/version` do. The bridge has a connection for each.
fn answer(mut connection: TcpStream, events: usize) {
    let mut head = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = head.next() else { return };
    head.take_while(|line| !line.is_empty()).for_each(drop);
    let mut request = request.split(' ');
    let answer = match (request.next(), request.next()) {
        (Some("GET"), Some(PATH)) => {
            // Whoever has gone has seen enough.
            drop(stream(&mut connection, events));
            return;
        }
        (_, Some(PATH)) => "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n",
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    };
    drop(connection.write_all(answer.as_bytes()));
}

fn stream(connection: &mut TcpStream, events: usize) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write_all(head.as_bytes())?;
    let mut piece = Vec::with_capacity(2 * AT_ONCE);
    for number in 1..events {
        event(&mut piece, number, events);
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
fn event(out: &mut Vec<u8>, number: usize, events: usize) {
    write!(
        out,
        "event: item_progress\ndata: {{\"event\": \"item_progress\", \"phase\": \"virtual-machines\", \
         \"status\": \"processing\", \"message\": \"Processing VM 'vm{number:06}'\", \
         \"item\": {{\"name\": \"vm{number:06}\", \"item_type\": \"qemu\"}}, \"operation\": \"created\", \"progress\": {{\"current\": {number}, \
         \"total\": {events}, \"percent\": 33.33333333333333}}}}\n\n"
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
