//! The bridge beside nginx, HAProxy and a bridge of 40 lines: processor time, delay and memory for the same work.
//!
//! `tests/bench/compare` installs what it needs and runs it. The load has one processor, the system under test the
//! other. Rounds are interleaved: each measures every system once. The table has the medians, and as noise the median
//! absolute deviation.

mod client;
mod rows;
mod source;
mod system;
mod table;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use clap::Parser;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use client::LONGEST;
use rows::{ROWS, Row};
use source::{Plan, Source};
use system::{ALL, LOAD, Programs, Running, System};
use table::Results;

/// Measures the bridge beside other proxies.
#[derive(Parser)]
struct Arguments {
    /// Rows to measure; by default, all.
    rows: Vec<String>,
    /// How often each row is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The bridge.
    #[arg(long)]
    bridge: PathBuf,
    /// Another build of it, in a column of its own.
    #[arg(long)]
    before: Option<PathBuf>,
    /// A Python with aiohttp.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Only the bridge, and nginx, to which it is compared.
    #[arg(long)]
    brief: bool,
}

/// What a row needs.
pub struct Bench {
    pub runtime: Runtime,
    pub programs: Programs,
    /// The backend with a native stream.
    pub native: Source,
    /// The backend with `/ws` alone.
    pub socket: Source,
    /// The systems that run for the rounds of one row, with the port of their backend.
    running: RefCell<HashMap<(System, u16), Rc<Running>>>,
    /// Whether a result is discarded, so that a part of the work is enough.
    is_warming: Cell<bool>,
}

impl Bench {
    fn new(programs: Programs) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (native, socket) = runtime
            .block_on(async { (Source::start(true).await.unwrap(), Source::start(false).await.unwrap()) });
        Self { runtime, programs, native, socket, running: RefCell::default(), is_warming: Cell::new(false) }
    }

    /// The system in front of `source`, which stays for all rounds of the row.
    pub fn running(&self, system: System, source: &Source) -> Rc<Running> {
        let mut running = self.running.borrow_mut();
        let start = || Rc::new(Running::start(&self.programs, system, source.port, 1));
        Rc::clone(running.entry((system, source.port)).or_insert_with(start))
    }

    /// The number of frames or requests for `system`: fewer for a slow one.
    pub fn count(&self, system: System, count: usize) -> usize {
        let count = if system == System::Aiohttp { count / 10 } else { count };
        if self.is_warming.get() { count / 10 } else { count }
    }

    /// Ends the systems, and waits until their connections are closed.
    fn clear(&self) {
        self.running.borrow_mut().clear();
        for source in [&self.native, &self.socket] {
            source.plan(Plan::default());
            let closed = self.runtime.block_on(async { timeout(LONGEST, source.closed()).await });
            if closed.is_err() {
                // The other rows are measured all the same.
                eprintln!("connections to the backend stay open");
            }
        }
    }

    /// Measures `row`.
    fn measure(&self, row: &'static Row, rounds: usize, brief: bool, results: &mut Results) {
        let is_measured = |system: &System| {
            let wanted = !brief || system.is_bridge() || *system == System::Nginx;
            wanted && row.systems.contains(system) && self.programs.path(*system).is_some()
        };
        let systems: Vec<System> = ALL.into_iter().filter(is_measured).collect();
        let began = Instant::now();
        for round in 0..=row.rounds.min(rounds) {
            self.is_warming.set(round == 0);
            for &system in &systems {
                if round == 0 && row.is_fresh {
                    continue;
                }
                let measured = (row.measure)(self, system);
                if round > 0 {
                    results.add(row, system, &measured);
                }
                if row.is_fresh {
                    self.clear();
                }
            }
        }
        self.clear();
        eprintln!("{}: {:.0} s", row.name, began.elapsed().as_secs_f64());
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let known = |name: &String| ROWS.iter().any(|row| row.name == name);
    if let Some(unknown) = arguments.rows.iter().find(|name| !known(name)) {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        eprintln!("no row {unknown}; the rows are {}", names.join(", "));
        return ExitCode::from(64);
    }
    let mut load = CpuSet::new();
    load.set(LOAD).unwrap();
    sched_setaffinity(Pid::from_raw(0), &load).unwrap();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let bench = Bench::new(Programs {
        bridge: arguments.bridge.canonicalize().unwrap(),
        before: arguments.before.map(|path| path.canonicalize().unwrap()),
        python: arguments.python,
    });
    let (mut results, mut status) = (Results::default(), ExitCode::SUCCESS);
    for row in ROWS
        .iter()
        .filter(|row| arguments.rows.is_empty() || arguments.rows.iter().any(|name| name == row.name))
    {
        let measure = || bench.measure(row, arguments.rounds, arguments.brief, &mut results);
        // The panic has reported itself. The other rows still have results.
        if catch_unwind(AssertUnwindSafe(measure)).is_err() {
            eprintln!("{}: failed", row.name);
            bench.clear();
            status = ExitCode::FAILURE;
        }
    }
    for version in bench.programs.versions() {
        println!("{version}");
    }
    println!("{}", results.table());
    status
}
