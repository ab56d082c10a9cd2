//! The systems under test, each a process on the processor [`TESTED`].

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use tempfile::TempDir;

/// The processor of the load.
pub const LOAD: usize = 0;
/// The processor of the system under test.
const TESTED: &str = "1";

/// The longest time until a system serves.
const START: Duration = Duration::from_secs(10);

/// A system under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum System {
    Nginx,
    Haproxy,
    Aiohttp,
    /// The bridge of `--before`.
    Before,
    Bridge,
}

/// All of them, in the order of the columns.
pub const ALL: [System; 5] =
    [System::Nginx, System::Haproxy, System::Aiohttp, System::Before, System::Bridge];

impl System {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Aiohttp => "aiohttp",
            Self::Before => "before",
            Self::Bridge => "bridge",
        }
    }

    pub fn is_bridge(self) -> bool {
        matches!(self, Self::Before | Self::Bridge)
    }
}

/// The programs of the systems.
pub struct Programs {
    pub bridge: PathBuf,
    pub before: Option<PathBuf>,
    /// A Python with aiohttp.
    pub python: Option<PathBuf>,
}

impl Programs {
    pub fn path(&self, system: System) -> Option<&Path> {
        match system {
            System::Nginx => Some(Path::new("/usr/sbin/nginx")),
            System::Haproxy => Some(Path::new("/usr/sbin/haproxy")),
            System::Aiohttp => self.python.as_deref(),
            System::Before => self.before.as_deref(),
            System::Bridge => Some(&self.bridge),
        }
    }

    /// The version of each, as it prints it.
    pub fn versions(&self) -> Vec<String> {
        ALL.into_iter().filter_map(|system| self.version(system)).collect()
    }

    fn version(&self, system: System) -> Option<String> {
        let arguments: &[&str] = match system {
            System::Nginx | System::Haproxy => &["-v"],
            System::Aiohttp => &[
                "-c",
                "import aiohttp, sys; print('aiohttp', aiohttp.__version__, 'Python', sys.version.split()[0])",
            ],
            System::Before | System::Bridge => &["--version"],
        };
        let output = Command::new(self.path(system)?).args(arguments).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
        Some(if system == System::Before { format!("before: {line}") } else { line })
    }
}

/// A running system. It is killed when it is dropped.
pub struct Running {
    pub system: System,
    pub address: SocketAddr,
    /// Its HTTP/2 address, without TLS.
    pub h2: SocketAddr,
    /// From its start until it answered.
    pub started_in: Duration,
    child: Child,
    _directory: TempDir,
}

impl Running {
    /// Starts `system` in front of the backend at `port`, and waits until it serves. A bridge has this number of
    /// `backends`, all of which are that one.
    pub fn start(programs: &Programs, system: System, port: u16, backends: u8) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        let [address, h2, admin] = addresses();
        let program = programs.path(system).expect("a program");
        // On the processor of the system under test. The process keeps its id.
        let mut command = Command::new("taskset");
        command.args(["-c", TESTED]).arg(program).current_dir(path);
        let ready = match system {
            System::Nginx => {
                fs::write(path.join("nginx.conf"), nginx(address, h2, port)).expect("a configuration");
                command.arg("-p").arg(path).args(["-c", "nginx.conf", "-e", "error.log"]);
                address
            }
            System::Haproxy => {
                fs::write(path.join("haproxy.cfg"), haproxy(address, h2, port)).expect("a configuration");
                command.args(["-db", "-f", "haproxy.cfg"]);
                address
            }
            System::Aiohttp => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bridge.py");
                command.arg(script).args([&address.port().to_string(), &format!("http://127.0.0.1:{port}")]);
                address
            }
            System::Before | System::Bridge => {
                fs::write(path.join("bridge.toml"), bridge(address, admin, port, backends))
                    .expect("a configuration");
                command.args(["serve", "--config", "bridge.toml"]);
                admin
            }
        };
        let log = File::create(path.join("log")).expect("a log");
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let began = Instant::now();
        let child = command.spawn().expect("taskset, of util-linux");
        let h2 = if system.is_bridge() { address } else { h2 };
        let mut started =
            Self { system, address, h2, started_in: Duration::ZERO, child, _directory: directory };
        while !if system.is_bridge() { is_ready(ready) } else { TcpStream::connect(ready).is_ok() } {
            let log = || fs::read_to_string(started._directory.path().join("log"));
            assert!(began.elapsed() < START, "{system:?} does not start: {:?}", log());
            std::thread::sleep(Duration::from_micros(200));
        }
        started.started_in = began.elapsed();
        started
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The processor time that it has used, its ended threads included.
    pub fn cpu(&self) -> Duration {
        let clock = clock_getcpuclockid(self.id()).expect("a running process");
        clock_gettime(clock).expect("a clock").into()
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        kill(self.id(), Signal::SIGTERM).expect("a running process");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the admin listener of a bridge reports that it is ready.
fn is_ready(admin: SocketAddr) -> bool {
    let request = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(START))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response.starts_with("HTTP/1.1 200 "))
    };
    request().unwrap_or(false)
}

/// Free addresses. Not every system can choose its own.
fn addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

/// As nginx documents it for event streams: no buffering, and connections to the backend that are kept. The log of
/// requests is that of Debian's package.
fn nginx(address: SocketAddr, h2: SocketAddr, port: u16) -> String {
    format!(
        "daemon off; master_process off; pid nginx.pid;
         worker_rlimit_nofile 65536;
         events {{ worker_connections 18000; }}
         http {{
             access_log access.log;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             keepalive_requests 1000000;
             tcp_nopush on; sendfile on;
             upstream backend {{ server 127.0.0.1:{port}; keepalive 64; keepalive_requests 1000000; }}
             server {{
                 listen {address} backlog=4096; listen {h2} http2;
                 location / {{
                     proxy_pass http://backend;
                     proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
                     proxy_buffering off; proxy_read_timeout 1h; proxy_send_timeout 1h;
                 }}
             }}
         }}\n"
    )
}

/// As HAProxy documents it for event streams: no delay. It logs nothing unless it is configured to.
fn haproxy(address: SocketAddr, h2: SocketAddr, port: u16) -> String {
    format!(
        "global\n    nbthread 1\n    maxconn 9000\n\
         defaults\n    mode http\n    option http-no-delay\n    timeout connect 10s\n    timeout client 1h\n    timeout server 1h\n\
         frontend front\n    bind {address} backlog 4096\n    bind {h2} proto h2\n    default_backend source\n\
         backend source\n    http-reuse always\n    server source 127.0.0.1:{port}\n"
    )
}

/// As shipped: jobs, a ledger on disk, metrics, the log at info to a file. Limits are raised so that all clients may
/// come from one address.
fn bridge(address: SocketAddr, admin: SocketAddr, port: u16, backends: u8) -> String {
    let limits = [
        "connections", "connections_per_address", "requests", "requests_per_address", "streams",
        "streams_per_address", "streams_per_key",
    ];
    let limits: String = limits.iter().map(|limit| format!("{limit} = 100000\n")).collect();
    let backends: String = (1..=backends)
        .map(|last| {
            let hosts = if last == 1 { String::new() } else { format!("hosts = [\"b{last}\"]\n") };
            format!("[[backend]]\nurl = \"http://127.0.0.{last}:{port}\"\nconcurrency = 64\n{hosts}")
        })
        .collect();
    format!(
        "listen = \"{address}\"\nadmin_listen = \"{admin}\"\ndata_dir = \"data\"\n\
         [limits]\n{limits}{backends}"
    )
}

/// A recorded backend, which is replayed at its own speed on the processor of the load.
pub struct Replay {
    pub port: u16,
    child: Child,
}

impl Replay {
    /// Starts it, and waits until it serves.
    pub fn start(programs: &Programs) -> Self {
        let [address] = addresses();
        let recording =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fixtures/recordings/0.0.30.post2");
        let mut command = Command::new(&programs.bridge);
        command.arg("replay").arg(recording).args(["--listen", &address.to_string(), "--speed", "1"]);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the bridge");
        let began = Instant::now();
        let mut replay = Self { port: address.port(), child };
        while TcpStream::connect(address).is_err() {
            let ended = replay.child.try_wait().expect("a child");
            assert!(ended.is_none() && began.elapsed() < START, "the replay does not start: {ended:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        replay
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
