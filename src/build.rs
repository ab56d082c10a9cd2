//! Build script: sets the commit, the date, the target and the compiler that `--version` and `version` print.
//!
//! A build from a tarball has no commit. It can be set in `PROXBOX_BRIDGE_COMMIT`, and the date, as for every
//! reproducible build, in `SOURCE_DATE_EPOCH`. Both take precedence over git.
//!
//! It also has the functions of a release build placed in the order of `order.ld`, by linkers that can.

#![allow(clippy::print_stdout, reason = "Cargo reads it")]

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

const UNKNOWN: &str = "unknown";
/// The length of the date in an RFC 3339 time.
const DATE: usize = "2026-01-01".len();

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // Without it, git would find a repository that the sources were unpacked in.
    let git = |arguments: &[&str]| {
        if !Path::new(&root).join(".git").exists() {
            return None;
        }
        output("git", &[&["-C", root.as_str()], arguments].concat())
    };
    let commit = set_variable("PROXBOX_BRIDGE_COMMIT").or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    let seconds = set_variable("SOURCE_DATE_EPOCH").or_else(|| git(&["log", "-1", "--format=%ct"]));
    let date = seconds.and_then(|seconds| seconds.parse().ok()).map(date);
    let rustc = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    for (name, value) in [
        ("COMMIT", commit),
        ("DATE", date),
        ("TARGET", env::var("TARGET").ok()),
        ("RUSTC", rustc.and_then(|text| text.strip_prefix("rustc ").map(str::to_owned))),
    ] {
        println!("cargo:rustc-env=BUILD_{name}={}", value.as_deref().unwrap_or(UNKNOWN));
    }

    let order = Path::new(&root).join("src/order.ld");
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") && can_order() {
        println!("cargo:rustc-link-arg-bins=-T");
        println!("cargo:rustc-link-arg-bins={}", order.display());
    }

    println!("cargo:rerun-if-changed=src/build.rs");
    println!("cargo:rerun-if-changed={}", order.display());
    // What a commit or a checkout changes. In a worktree these are in two directories.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for file in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        // Cargo runs the script in every build if one of the files does not exist.
        let path = git(&["rev-parse", "--git-path", file]).map(|path| Path::new(&root).join(path));
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}

/// Whether the linker reads scripts with `INSERT`: lld and GNU ld do, but gold, mold and those of other systems do not.
/// `PROXBOX_BRIDGE_ORDER=off` is for a linker that cannot be seen from here.
fn can_order() -> bool {
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    let is_off = set_variable("PROXBOX_BRIDGE_ORDER").is_some_and(|value| value == "off");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let Some(mut arguments) = linker_arguments(&flags).filter(|_| is_linux && !is_off) else { return false };
    // `mold -run` sets it.
    println!("cargo:rerun-if-env-changed=MOLD_PATH");
    let driver = set_variable("RUSTC_LINKER").unwrap_or_else(|| "cc".to_owned());
    arguments.push("-Wl,--version");
    output(&driver, &arguments).is_some_and(|version| {
        ["GNU ld ", "LLD ", "Debian LLD ", "Ubuntu LLD ", "zig ld "]
            .iter()
            .any(|linker| version.starts_with(linker))
    })
}

/// What `flags` of rustc pass to the compiler that links, one of which may choose the linker. `None` if they choose another
/// way to link.
fn linker_arguments(flags: &str) -> Option<Vec<&str>> {
    let mut arguments = Vec::new();
    for flag in flags.split('\u{1f}') {
        let flag =
            ["-C", "-Z", "--codegen="].iter().find_map(|option| flag.strip_prefix(option)).unwrap_or(flag);
        let Some((name, value)) = flag.trim_start().split_once('=') else { continue };
        match name.replace('_', "-").as_str() {
            "link-arg" => arguments.push(value),
            "link-args" => arguments.extend(value.split_whitespace()),
            name if name.starts_with("linker") => return None,
            _ => {}
        }
    }
    Some(arguments)
}

/// The value of the variable `name`, if it has one.
fn set_variable(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a program prints, if it succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn date(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let mut text = humantime::format_rfc3339_seconds(time).to_string();
    text.truncate(DATE);
    text
}
