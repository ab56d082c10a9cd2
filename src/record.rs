//! Records every exchange with a backend: HTTP requests with their responses, and WebSockets.
//!
//! A [`TrafficRecorder`] observes the connections to the backend. It writes one file for each exchange. An exchange that
//! has not ended is in a hidden file with the suffix `.part`; the complete recording replaces it. Heads, messages and
//! event streams are written at once, so that a recorder that is killed loses none that it received: a file in the page
//! cache takes microseconds. Other bodies are held until they end, or reach 16 MiB. A thread completes the recordings,
//! which takes longer.
//!
//! Known credentials, and what is named or looks like one, are hidden before anything is written. Compressed bodies are
//! left out, because their credentials cannot be found.

mod anonymise;
mod body;
mod connection;
mod exchange;
mod message;
mod names;
mod pseudonyms;

use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use crate::backend::{BackendObserver, ConnectionObserver, LastRelease};
use crate::core::domain::release::Release;
use crate::core::text::credentials::{CredentialFilter, MAX_FOUND, is_distinctive};
use crate::core::text::redact::{MIN_SECRET, Redactor, is_among};
use crate::private;
use crate::recording::Protocol;

pub use anonymise::anonymise;

use connection::{Connection, ObservedConnection};
use exchange::Completion;

/// Records the exchanges with one backend.
#[derive(Clone, Debug)]
pub struct TrafficRecorder(Arc<Run>);

/// What a recorder has written.
#[derive(Debug, Default)]
pub struct Summary {
    /// The number of HTTP exchanges.
    pub http: usize,
    /// The number of WebSockets.
    pub websockets: usize,
    /// The last detected release of the backend.
    pub release: Option<Release>,
}

/// The minimum length of a secret that is hidden wherever it is a whole word, in bytes. A shorter one is hidden by its name.
const MIN_WORD: usize = 4;

/// The maximum number of exchanges that have ended and wait for the thread. A connection on which another one ends waits.
const MAX_WAITING: usize = 8;

/// A run of the recorder.
#[derive(Debug)]
struct Run {
    folder: PathBuf,
    state: Mutex<RunState>,
    thread: Mutex<Option<CompletionThread>>,
    /// The exchanges that wait for the thread with a body that was not searched for credentials.
    unsearched: AtomicUsize,
}

/// The thread that completes recordings. It ends with its sender.
#[derive(Debug)]
struct CompletionThread {
    sender: SyncSender<Completion>,
    handle: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct RunState {
    /// The exchanges that have begun.
    begun: usize,
    redactor: Redactor,
    /// The short secrets that clients sent: [`MIN_WORD`] to [`MIN_SECRET`] bytes.
    words: Vec<SecretString>,
    connections: Vec<Weak<Mutex<Connection>>>,
    summary: Summary,
    /// The first error in writing a file.
    error: Option<io::Error>,
}

impl TrafficRecorder {
    /// Creates a recorder that writes to `folder`, which it creates if it is missing. `secrets` are hidden from the
    /// beginning.
    ///
    /// # Errors
    /// The folder cannot be created or read, or is not empty: recordings of two runs do not belong together.
    pub fn new(
        folder: &Path,
        secrets: impl IntoIterator<Item = impl Into<SecretString>>,
    ) -> io::Result<Self> {
        private::create_dir_all(folder)?;
        if folder.read_dir()?.next().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::DirectoryNotEmpty,
                "it is not empty; name a new folder",
            ));
        }
        let state = RunState { redactor: Redactor::new(secrets), ..RunState::default() };
        let (sender, ended) = sync_channel(MAX_WAITING);
        let complete = move || Receiver::into_iter(ended).for_each(Completion::run);
        let handle = thread::Builder::new().name("record".to_owned()).spawn(complete)?;
        let thread = Mutex::new(Some(CompletionThread { sender, handle }));
        let (folder, state) = (folder.to_owned(), Mutex::new(state));
        Ok(Self(Arc::new(Run { folder, state, thread, unsearched: AtomicUsize::new(0) })))
    }

    /// Completes the recordings of exchanges that have not ended.
    ///
    /// # Errors
    /// A file could not be written. The other recordings are complete.
    pub fn finish(&self) -> io::Result<Summary> {
        let connections = mem::take(&mut self.0.state.lock().connections);
        for connection in connections.iter().filter_map(Weak::upgrade) {
            connection.lock().close();
        }
        let thread = self.0.thread.lock().take();
        if let Some(CompletionThread { sender, handle }) = thread {
            drop(sender);
            if handle.join().is_err() {
                self.0.failed(io::Error::other("the thread that completes recordings has panicked"));
            }
        }
        let mut state = self.0.state.lock();
        match state.error.take() {
            Some(error) => Err(error),
            None => Ok(mem::take(&mut state.summary)),
        }
    }
}

impl BackendObserver for TrafficRecorder {
    fn connected(&self, release: &LastRelease) -> Box<dyn ConnectionObserver> {
        let connection = Connection::new(Arc::clone(&self.0), Arc::clone(release));
        let connection = Arc::new(Mutex::new(connection));
        let mut state = self.0.state.lock();
        state.connections.retain(|connection| connection.strong_count() > 0);
        state.connections.push(Arc::downgrade(&connection));
        Box::new(ObservedConnection(connection))
    }
}

impl Run {
    /// The number of the next exchange.
    fn begin(&self) -> usize {
        let mut state = self.state.lock();
        state.begun += 1;
        state.begun
    }

    /// Completes the recording of an exchange on the thread, or here after [`TrafficRecorder::finish`].
    fn complete(&self, completion: Completion) {
        let sender = self.thread.lock().as_ref().map(|thread| thread.sender.clone());
        let rest = match sender {
            Some(sender) => sender.send(completion).err().map(|SendError(completion)| completion),
            None => Some(completion),
        };
        if let Some(completion) = rest {
            completion.run();
        }
    }

    /// The secrets known so far.
    fn redactor(&self) -> Redactor {
        self.state.lock().redactor.clone()
    }

    /// Hides `secrets` from now on.
    fn learn(&self, secrets: impl IntoIterator<Item = SecretString>) {
        let mut state = self.state.lock();
        state.redactor = state.redactor.with(secrets);
    }

    /// Hides `found` from now on. At most [`MAX_FOUND`] in a run: the search takes memory for each.
    fn learn_found(&self, found: Vec<SecretString>) {
        let count = self.state.lock().redactor.secrets().len();
        self.learn(found.into_iter().take(MAX_FOUND.saturating_sub(count)));
    }

    /// Hides `secrets`, which a client sent, from now on, short ones included.
    fn learn_sent(&self, secrets: impl IntoIterator<Item = SecretString>) {
        let secrets = secrets.into_iter().filter(is_distinctive);
        let is_word = |secret: &SecretString| (MIN_WORD..MIN_SECRET).contains(&secret.expose_secret().len());
        let (words, secrets): (Vec<_>, Vec<_>) = secrets.partition(is_word);
        self.learn_found(secrets);
        let mut state = self.state.lock();
        for word in words {
            if state.words.len() < MAX_FOUND && !is_among(&state.words, &word) {
                state.words.push(word);
            }
        }
    }

    /// `bytes` without credentials, which are hidden from now on.
    fn without_credentials(&self, bytes: &[u8]) -> Vec<u8> {
        let (redactor, words) = self.secrets();
        let mut filter = CredentialFilter::new(&redactor).with_words(&words);
        let hidden = filter.hide(bytes);
        let found = filter.into_found();
        if found.is_empty() {
            return hidden;
        }
        self.learn_found(found);
        // What was found may also stand before the place where it was found.
        CredentialFilter::new(&self.redactor()).hide(&hidden)
    }

    /// Learns the credentials in what a client sent.
    fn learn_from(&self, sent: &[u8]) {
        let known = Redactor::default();
        let mut filter = CredentialFilter::new(&known);
        filter.hide(sent);
        self.learn_sent(filter.into_found());
    }

    /// The secrets known so far, and the short ones.
    fn secrets(&self) -> (Redactor, Vec<SecretString>) {
        let state = self.state.lock();
        (state.redactor.clone(), state.words.clone())
    }

    /// The release of the backend, which `last` may have.
    fn release(&self, last: &LastRelease) -> Option<Release> {
        let mut state = self.state.lock();
        // It is forgotten when the backend refuses connections.
        let last = *last.lock();
        state.summary.release = last.or(state.summary.release);
        state.summary.release
    }

    /// Counts an exchange that was written.
    fn count(&self, protocol: Protocol) {
        let summary = &mut self.state.lock().summary;
        match protocol {
            Protocol::Http => summary.http += 1,
            Protocol::Websocket => summary.websockets += 1,
        }
    }

    /// Notes that a file could not be written.
    fn failed(&self, error: io::Error) {
        self.state.lock().error.get_or_insert(error);
    }
}
