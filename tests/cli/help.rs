//! Help, completions, manual pages and the version.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use proxbox_bridge::core::upstream::dialect::Dialect;
use serde_json::{Value, json};

use super::command;

/// What a command that succeeds prints.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the subcommands below `parents` that the help lists.
fn subcommands(parents: &[String]) -> Vec<Vec<String>> {
    let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
    let help = printed(command(&parents).arg("--help"));
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let names = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        // Other lines continue a description.
        line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next()
    });
    let names = names.filter(|name| *name != "help").map(str::to_owned);
    names.map(|name| parents.iter().map(|name| (*name).to_owned()).chain([name]).collect()).collect()
}

/// Every subcommand that runs something, as arguments.
fn all_subcommands() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open = subcommands(&[]);
    while let Some(subcommand) = open.pop() {
        let inner = subcommands(&subcommand);
        if inner.is_empty() { found.push(subcommand) } else { open.extend(inner) }
    }
    assert!(found.len() > 8, "{found:?}");
    found
}

#[test]
fn the_help_of_each_subcommand_has_an_example_of_it() {
    for subcommand in all_subcommands() {
        let help =
            printed(Command::new(env!("CARGO_BIN_EXE_proxbox-bridge")).args(&subcommand).arg("--help"));
        let (_, examples) =
            help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{subcommand:?}: {help}"));
        let example = format!("proxbox-bridge {}", subcommand.join(" "));
        assert!(examples.contains(&example), "{example}: {help}");
    }
}

#[test]
fn help_fits_a_narrow_terminal() {
    for subcommand in all_subcommands().iter().chain([&Vec::new()]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
        let help = printed(command.args(subcommand).arg("--help").env("COLUMNS", "40"));
        for line in help.lines().filter(|line| line.chars().count() > 40) {
            // Neither a word nor the short usage is broken.
            let is_whole = line.split_whitespace().count() == 1 || line.starts_with("Usage: ");
            assert!(is_whole, "{subcommand:?}: {line:?}");
        }
    }
}

#[test]
fn help_of_a_command_for_a_running_bridge_has_only_flags_that_it_uses() {
    for (args, shown) in [
        (&["log"][..], &[][..]),
        (&["reload"], &[]),
        (&["jobs", "watch"], &[]),
        (&["jobs", "show"], &["--data-dir"]),
        (&["jobs", "list"], &["--backend", "--data-dir"]),
        (&["health"], &["--backend"]),
        (&["sync"], &["--backend", "--channel"]),
    ] {
        let help = printed(command(args).arg("--help"));
        for flag in ["--listen", "--admin-token-file", "--backend", "--data-dir", "--channel"] {
            assert_eq!(
                help.contains(&format!(" {flag} <")),
                shown.contains(&flag),
                "{args:?} {flag}: {help}"
            );
        }
    }
}

#[test]
fn output_that_nobody_reads_on_is_no_error() {
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["--version"],
        &["version"],
        &["man"],
        &["completions", "bash"],
        &["config", "show"],
    ] {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let output = command(args).stdout(write).output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{args:?}");
        assert!(output.status.success(), "{args:?}");
    }
}

#[test]
fn every_shell_gets_a_script_with_the_subcommands_and_their_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&mut command(&["completions", shell]));
        for part in ["health", "config", "show", "admin-listen"] {
            assert!(script.contains(part), "{shell}: {part}");
        }
    }
    // The shell reads it, and completes a subcommand.
    let script = printed(&mut command(&["completions", "bash"]));
    let complete = format!(
        "{script}\nCOMP_WORDS=(proxbox-bridge hea); COMP_CWORD=1; _proxbox__bridge proxbox-bridge hea; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let completed = printed(Command::new("bash").args(["--norc", "-c", &complete]).stdin(Stdio::null()));
    assert_eq!(completed, "health\n");
}

#[test]
fn each_subcommand_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("man1");
    assert_eq!(printed(command(&["man", "--out"]).arg(&directory)), "");
    let pages: BTreeSet<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    for subcommand in all_subcommands() {
        let name = format!("proxbox-bridge-{}.1", subcommand.join("-"));
        assert!(pages.contains(&name), "{name}: {pages:?}");
        let page = fs::read_to_string(directory.join(&name)).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("Examples:"), "{page}");
    }
    assert!(
        pages.contains("proxbox-bridge.1") && !pages.iter().any(|page| page.contains("help")),
        "{pages:?}"
    );
    assert_eq!(
        fs::read_to_string(directory.join("proxbox-bridge.1")).unwrap(),
        printed(&mut command(&["man"]))
    );
}

#[test]
fn the_version_names_the_commit_and_its_date() {
    let info: Value = serde_json::from_str(&printed(&mut command(&["version", "--json"]))).unwrap();
    let text = |field: &str| info[field].as_str().unwrap_or_else(|| panic!("{field}: {info}"));
    let line = format!("proxbox-bridge {} ({} {})\n", text("version"), text("commit"), text("date"));
    assert_eq!(printed(&mut command(&["--version"])), line);
    let long = printed(&mut command(&["version"]));
    assert!(long.starts_with(&line), "{long}");
    // The newest recordings are of the last release that is known.
    let [first, last] = [0, 1].map(|end| info["backends"][end].as_str().unwrap());
    assert!(
        fs::exists(format!("{}/fixtures/recordings/{last}", env!("CARGO_MANIFEST_DIR"))).unwrap(),
        "{info}"
    );
    for part in [&format!("\nbackends: {first} to {last}, "), "\ndialects of /ws: 0.0.1, 0.0.2, "] {
        assert!(long.contains(part), "{long}");
    }
    assert_eq!(text("version"), env!("CARGO_PKG_VERSION"));
    assert!(text("target").contains('-') && text("rustc").starts_with("1."), "{info}");
    assert!(info["ledger"].as_u64().unwrap() > 0, "{info}");
    assert_eq!(info["dialects"], json!(Dialect::NAMES));

    // The sources may have come without their repository.
    if !std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.git")).exists() {
        return;
    }
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(args).env("TZ", "UTC");
        printed(&mut git).trim().to_owned()
    };
    if text("commit") != "unknown" && std::env::var_os("PROXBOX_BRIDGE_COMMIT").is_none() {
        assert!(git(&["rev-parse", "HEAD"]).starts_with(text("commit")), "{info}");
        let format = ["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%d"];
        assert_eq!(git(&format), text("date"));
    }
}
