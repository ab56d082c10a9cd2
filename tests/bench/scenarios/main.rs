//! Instructions of the parts of the bridge, and of whole jobs, over recorded streams.
//!
//! `tests/bench/instructions` builds and runs it. Without arguments it runs every scenario under callgrind, twice: the
//! difference in instructions, divided by the difference in rounds, is that of one round, without the start. The
//! counts are compared with those in `instructions.toml`.

mod job;
mod parts;
#[path = "../session.rs"]
mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use proxbox_bridge::recording::{RecordedEvent, Recording};
use toml::{Table, Value};

/// The numbers of rounds.
const ROUNDS: [u64; 2] = [5, 25];
/// How far a count may rise, and how far it may fall before it should be renewed.
const TOLERANCE: f64 = 0.03;
/// How often a scenario is measured.
const MEASUREMENTS: usize = 3;

/// A scenario, which does its work so many times.
type Scenario = (&'static str, fn(u64));

const SCENARIOS: [Scenario; 8] = [
    ("parser", parts::parser),
    ("native", parts::native),
    ("dialect", parts::dialect),
    ("normalizer", parts::normalizer),
    ("encoder", parts::encoder),
    ("session-native", parts::native_session),
    ("session-websocket", parts::websocket_session),
    ("job", job::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, rounds] = arguments.as_slice() {
        let scenario = SCENARIOS.iter().find(|(known, _)| known == name).expect("a scenario");
        scenario.1(rounds.parse().expect("a number of rounds"));
        return ExitCode::SUCCESS;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../instructions.toml");
    let recorded: Table = std::fs::read_to_string(&file)
        .map(|text| text.parse().expect("a table of counts"))
        .unwrap_or_default();
    let tools = tools();
    let recorded_with = recorded.get("tools").and_then(Value::as_str).unwrap_or("no tools");
    let is_update = std::env::var_os("UPDATE").is_some();
    if !is_update && recorded_with != tools {
        println!("Not compared: the counts are recorded with {recorded_with}. Here is {tools}.");
        return ExitCode::SUCCESS;
    }
    let before = |name: &str| recorded.get("instructions").and_then(|counts| counts.get(name)?.as_integer());
    let counts: BTreeMap<&str, i64> = SCENARIOS
        .iter()
        .map(|(name, _)| (*name, least_instructions(name, before(name).filter(|_| !is_update))))
        .collect();
    if is_update {
        let counts: Table =
            counts.iter().map(|(name, count)| ((*name).to_owned(), Value::from(*count))).collect();
        let table = Table::from_iter([
            ("tools".to_owned(), tools.into()),
            ("instructions".to_owned(), counts.into()),
        ]);
        let head = "# Instructions of each scenario. Renewed by `UPDATE=1 tests/bench/instructions`.\n";
        std::fs::write(&file, format!("{head}{table}")).expect("a writable file");
        return ExitCode::SUCCESS;
    }
    let mut status = ExitCode::SUCCESS;
    for (name, count) in counts {
        let Some(before) = before(name) else {
            println!("{name:<18}{:>12}{count:>12}  not recorded: renew with UPDATE=1", "");
            status = ExitCode::FAILURE;
            continue;
        };
        let change = change(before, count);
        let verdict = match change {
            change if change > TOLERANCE => "too many",
            change if change < -TOLERANCE => "fewer: renew with UPDATE=1",
            _ => "",
        };
        println!("{name:<18}{before:>12}{count:>12}{:>+8.1} %  {verdict}", change * 100.0);
        if change > TOLERANCE {
            status = ExitCode::FAILURE;
        }
    }
    status
}

/// What counts depend on beside the code: the compiler, valgrind, the C library, and the processor. Valgrind hides newer
/// vector instructions than AVX2.
fn tools() -> String {
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().expect("an installed program");
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    };
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vectors = if processor.contains(" avx2 ") { "with AVX2" } else { "without AVX2" };
    [
        first_line("rustc", "--version"),
        first_line("valgrind", "--version"),
        first_line("ldd", "--version"),
        format!("{} {vectors}", std::env::consts::ARCH),
    ]
    .join("; ")
}

/// The change from `before` to `count`, as a fraction.
fn change(before: i64, count: i64) -> f64 {
    count as f64 / before as f64 - 1.0
}

/// The instructions of one round of a scenario: the least of several measurements, unless the first is not above what is
/// tolerated beside `before`. The bridge waits for sockets, and a wait that is interrupted more often takes more.
fn least_instructions(name: &str, before: Option<i64>) -> i64 {
    let mut least = instructions(name);
    for _ in 1..MEASUREMENTS {
        if before.is_some_and(|before| change(before, least) <= TOLERANCE) {
            break;
        }
        least = least.min(instructions(name));
    }
    least
}

/// The instructions of one round of a scenario, measured once.
fn instructions(name: &str) -> i64 {
    let [few, many] = ROUNDS.map(|rounds| {
        let program = std::env::current_exe().expect("this program");
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(program)
            .args([name, &rounds.to_string()])
            .output()
            .expect("valgrind");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {log}");
        let count = log.lines().find_map(|line| line.split_once("Collected : ")).expect("a count").1;
        count.trim().parse::<i64>().expect("a count")
    });
    (many - few) / (ROUNDS[1] - ROUNDS[0]) as i64
}

/// The recording of this name.
fn recording(name: &str) -> Recording {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fixtures/recordings");
    Recording::read(folder.join(name)).expect("a recording")
}

/// The body of a recorded native stream.
fn native_stream(name: &str) -> Vec<u8> {
    let parts = recording(name).frames.into_iter().filter_map(|frame| match frame.event {
        RecordedEvent::Body(bytes) => Some(bytes),
        _ => None,
    });
    parts.flatten().collect()
}
