//! Reloading the configuration while the bridge serves.

use std::fs;
use std::sync::{Arc, Mutex};

use proxbox_bridge::config::{Config, Flags, keys};
use tokio::time::Instant;

use crate::support::bridge::{Client, DEVICES, MACHINES, STORAGE, TOKEN, TestBridge, configured};
use crate::support::manual::ManualBackend;
use crate::support::scripted::{Backend, answer};

/// A bridge whose file can be changed.
pub(super) struct ReloadableBridge {
    pub(super) front: TestBridge,
    file: Arc<Mutex<String>>,
}

impl ReloadableBridge {
    pub(super) async fn start(text: String) -> Self {
        let file = Arc::new(Mutex::new(text.clone()));
        let read = Arc::clone(&file);
        let front = TestBridge::reloading(configured(&text), move || {
            let flags = Flags {
                config: Some("bridge.toml".to_owned()),
                admin_token_file: Some("token".to_owned()),
                ..Flags::default()
            };
            let text = read.lock().unwrap().clone();
            Config::parse(&flags, [], |path| match path.to_str() {
                Some("token") => Ok(TOKEN.as_bytes().to_vec()),
                Some("bridge.toml") => Ok(text.clone().into_bytes()),
                _ => fs::read(path),
            })
        })
        .await;
        Self { front, file }
    }

    pub(super) async fn reload(&self, text: String) -> (u16, String) {
        *self.file.lock().unwrap() = text;
        let answer = self.front.admin_request("POST", "/reload", &[]).await;
        (answer.status, answer.detail())
    }
}

pub(super) fn file(backend: std::net::SocketAddr, more: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{more}\n[backend]\nurl = \"http://{backend}\"\n"
    )
}

#[tokio::test(start_paused = true)]
async fn what_begins_afterwards_has_the_new_configuration_and_a_stream_that_runs_keeps_its_own() {
    let mut backend = ManualBackend::start().await;
    let other = Backend::start(|_| async { answer(200, &[], "the other") }).await;
    let changing = ReloadableBridge::start(file(backend.address, "")).await;
    let stream = changing.front.open("/dcim/devices/create/stream", &[]).await;
    let mut backend_stream = backend.next_stream().await;
    backend_stream.device("pve1", "completed").await;

    let (status, detail) = changing.reload(file(other.address, "")).await;
    assert_eq!(status, 200, "{detail}");
    assert_eq!(changing.front.get("/x", &[]).await.text(), "the other");

    backend_stream.device("pve2", "completed").await;
    backend_stream.complete().await;
    let answer = stream.answer().await;
    assert!(answer.text().contains("Synced device pve2"), "{}", answer.text());
    assert!(answer.text().contains("\"ok\": true"), "{}", answer.text());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_replaced_in_its_file_is_sent_after_a_reload() {
    let stream = "event: complete\ndata: {\"ok\": true}\n\n";
    let backend =
        Backend::start(move |_| async move { answer(200, &[("content-type", "text/event-stream")], stream) })
            .await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let text = file(backend.address, "") + &format!("api_key_file = {key:?}\n");
    let keys = ["the-first-key-of-the-backend", "the-second-key-of-the-backend"];
    fs::write(&key, keys[0]).unwrap();
    let changing = ReloadableBridge::start(text.clone()).await;
    changing.front.get(DEVICES, &[]).await;
    fs::write(&key, keys[1]).unwrap();
    let (status, detail) = changing.reload(text).await;
    assert_eq!(status, 200, "{detail}");
    changing.front.get(DEVICES, &[]).await;
    let requests = backend.requests().into_iter();
    let sent = requests.filter(|received| received.method == "GET" && received.target == DEVICES);
    let sent: Vec<_> = sent.map(|received| received.header("x-proxbox-api-key").map(str::to_owned)).collect();
    assert_eq!(sent, keys.map(|key| Some(key.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_changes_nothing_and_says_why() {
    let backend = Backend::start(|_| async { answer(200, &[], "here") }).await;
    let changing = ReloadableBridge::start(file(backend.address, "")).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let restarts: Vec<&str> = keys().filter(|key| key.needs_restart).map(|key| key.name).collect();
    assert_eq!(restarts, ["data_dir", "log_format", "jobs.log_frames"], "each is refused below");
    for (bad, why) in [
        ("[backend]\nurl = \"ftp://x\"".to_owned(), "bridge.toml:2: backend.url must be a URL".to_owned()),
        ("listen = 1".to_owned(), "bridge.toml:1: listen must be".to_owned()),
        (file(backend.address, "data_dir = \"/elsewhere\""), "data_dir cannot change from none".to_owned()),
        (
            file(backend.address, "log_format = \"text\""),
            "log_format cannot change from none to text".to_owned(),
        ),
        (
            file(backend.address, "[jobs]\nlog_frames = 7"),
            "jobs.log_frames cannot change from 1000 to 7".to_owned(),
        ),
        (
            file(backend.address, "[tls]\ncertificate = \"/no/cert.pem\"\nkey = \"/no/key.pem\""),
            "cannot read the certificate \"/no/cert.pem\"".to_owned(),
        ),
        (
            file(backend.address, "").replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1),
            "cannot listen on".to_owned(),
        ),
    ] {
        let (status, detail) = changing.reload(bad.clone()).await;
        assert_eq!(status, 422, "{bad}");
        assert!(detail.contains(&why), "{detail}");
        assert_eq!(changing.front.get("/x", &[]).await.text(), "here", "{bad}");
    }
    let metrics = changing.front.admin_request("GET", "/metrics", &[]).await;
    let start = "proxbox_bridge_reloads_total{result=\"failure\"} ";
    let failed = metrics.text().lines().find_map(|line| line.strip_prefix(start)).unwrap();
    assert!(failed.parse::<u64>().unwrap() >= 6, "{failed}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_hangs_does_not_delay_the_stop() {
    let backend = Backend::start(|_| async { answer(200, &[], "here") }).await;
    let text = file(backend.address, "");
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let (released, read) = (Mutex::new(released), text.clone());
    let mut front = TestBridge::reloading(configured(&text), move || {
        begun.send(()).unwrap();
        // Longer than the test waits, for a bridge that blocks.
        let _ = released.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        Ok(configured(&read))
    })
    .await;
    let token = format!("Bearer {TOKEN}");
    let reload = Client::send(front.admin, "POST", "/reload", &[("Authorization", &token)]).await;
    has_begun.recv().await.unwrap();
    front.request_stop();
    let answer = reload.answer().await;
    assert!(answer.detail().contains("the bridge is stopping"), "{}", answer.text());
    front.stop().await;
    assert!(release.send(()).is_ok(), "the bridge waited for the file");
}

#[tokio::test(start_paused = true)]
async fn listeners_come_and_go_with_the_configuration() {
    let backend = Backend::start(|_| async { answer(200, &[], "here") }).await;
    let changing = ReloadableBridge::start(file(backend.address, "")).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let moved = file(backend.address, "").replacen("127.0.0.1:0", &free.to_string(), 1);
    // An open connection continues to its end.
    let mut old = Client::send(changing.front.address, "GET", "/x", &[]).await;
    let (status, detail) = changing.reload(moved).await;
    assert_eq!(status, 200, "{detail}");
    assert_eq!(old.head().await.0, 200);
    assert_eq!(Client::send(free, "GET", "/x", &[]).await.answer().await.text(), "here");
    assert!(
        tokio::net::TcpStream::connect(changing.front.address).await.is_err(),
        "the old listener is closed"
    );
}

#[tokio::test(start_paused = true)]
async fn the_number_of_jobs_at_once_may_change() {
    let mut backend = ManualBackend::start().await;
    let text = |concurrency: u8| file(backend.address, "") + &format!("concurrency = {concurrency}\n");
    let (one, two) = (text(1), text(2));
    let changing = ReloadableBridge::start(one).await;
    let first = changing.front.open("/dcim/devices/create/stream", &[]).await;
    let stream = backend.next_stream().await;
    assert_eq!(changing.reload(two).await.0, 200);
    let second = changing.front.open("/virtualization/virtual-machines/create/stream", &[]).await;
    let second_stream = backend.next_stream().await;
    stream.complete().await;
    second_stream.complete().await;
    for stream in [first, second] {
        assert!(stream.answer().await.text().contains("\"ok\": true"));
    }
}

/// A stream that is queued, and has been notified of it.
async fn waiting(front: &TestBridge, path: &str) -> Client {
    let mut stream = front.open(path, &[]).await;
    assert_eq!(stream.head().await.0, 200);
    stream.read_until("Waiting for ").await;
    stream
}

#[tokio::test(start_paused = true)]
async fn jobs_that_wait_are_given_places_as_soon_as_the_configuration_has_more_of_them() {
    let mut backend = ManualBackend::start().await;
    let text = |concurrency: u8| file(backend.address, "") + &format!("concurrency = {concurrency}\n");
    let (one, three) = (text(1), text(3));
    let changing = ReloadableBridge::start(one).await;
    let _first = changing.front.open(DEVICES, &[]).await;
    let _stream = backend.next_stream().await;
    let _others = [waiting(&changing.front, MACHINES).await, waiting(&changing.front, STORAGE).await];
    assert!(backend.is_idle());
    let began = Instant::now();
    assert_eq!(changing.reload(three).await.0, 200);
    let _both = [backend.next_stream().await, backend.next_stream().await];
    assert_eq!(began.elapsed().as_secs(), 0, "nobody else has come or gone");
}

#[tokio::test(start_paused = true)]
async fn jobs_that_wait_are_given_no_place_while_more_run_than_the_configuration_has_by_now() {
    let mut backend = ManualBackend::start().await;
    let text = |concurrency: u8| file(backend.address, "") + &format!("concurrency = {concurrency}\n");
    let (two, one) = (text(2), text(1));
    let changing = ReloadableBridge::start(two).await;
    let first = changing.front.open(DEVICES, &[]).await;
    let stream = backend.next_stream().await;
    let _second = changing.front.open(MACHINES, &[]).await;
    let second_stream = backend.next_stream().await;
    let mut third = waiting(&changing.front, STORAGE).await;
    assert_eq!(changing.reload(one).await.0, 200);
    stream.complete().await;
    assert!(first.answer().await.text().contains("\"ok\": true"));
    // It would have begun by the next notice that it is queued.
    third.read_until("Waiting for virtual machines synchronization to finish").await;
    assert!(backend.is_idle(), "two run at once");
    second_stream.complete().await;
    assert!(backend.next_stream().await.target.starts_with(STORAGE));
}

#[tokio::test(start_paused = true)]
async fn the_same_sync_under_a_new_url_is_the_one_that_runs_and_at_another_address_it_waits() {
    let mut backend = ManualBackend::start().await;
    let mut other = ManualBackend::start().await;
    let before = file(backend.address, "");
    let changing = ReloadableBridge::start(before.clone()).await;
    let first = changing.front.open(DEVICES, &[]).await;
    let stream = backend.next_stream().await;
    // The same backend under another name, and then another backend in its place.
    let (status, detail) = changing.reload(before.replace("http://127.0.0.1", "http://localhost")).await;
    assert_eq!(status, 200, "{detail}");
    let second = changing.front.open(DEVICES, &[]).await;
    let _machines = waiting(&changing.front, MACHINES).await;
    let (status, detail) = changing.reload(file(other.address, "")).await;
    assert_eq!(status, 200, "{detail}");
    let _third = waiting(&changing.front, DEVICES).await;
    assert!(backend.is_idle() && other.is_idle(), "two run at once");
    stream.complete().await;
    let job = async |stream: Client| {
        let answer = stream.answer().await;
        assert!(answer.text().contains("\"ok\": true"), "{}", answer.text());
        answer.header("x-proxbox-bridge-job").unwrap().to_owned()
    };
    assert_eq!(job(first).await, job(second).await);
    let machines = backend.next_stream().await;
    assert!(machines.target.starts_with(MACHINES), "{}", machines.target);
    machines.complete().await;
    other.next_stream().await.complete().await;
}

#[tokio::test(start_paused = true)]
async fn two_backends_of_the_configuration_with_one_address_run_one_sync_at_once() {
    let mut backend = ManualBackend::start().await;
    let own = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
    let block = |name: &str, hosts: &str, url: &str| {
        format!(
            "[[backend]]\nname = \"{name}\"\nurl = \"http://{url}:{}\"\n{hosts}\n",
            backend.address.port()
        )
    };
    let one = block("one", "hosts = [\"one.example\"]", "127.0.0.1");
    let front = TestBridge::start(configured(&format!("{own}{one}{}", block("two", "", "localhost")))).await;
    let request = format!("GET {DEVICES} HTTP/1.1\r\nHost: one.example\r\n\r\n");
    let _first = Client::raw(front.address, request.as_bytes()).await;
    let stream = backend.next_stream().await;
    let _second = waiting(&front, DEVICES).await;
    assert!(backend.is_idle(), "two run at once");
    stream.complete().await;
    backend.next_stream().await.complete().await;
}
