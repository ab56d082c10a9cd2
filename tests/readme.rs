//! The documents: their links, commands, configuration files and metric names are valid.

use std::fs;
use std::path::{Component, Path, PathBuf};

use clap::{Command, CommandFactory as _, Parser as _};
use proxbox_bridge::admin;
use proxbox_bridge::cli::Cli;
use proxbox_bridge::cli::counts::tables;
use proxbox_bridge::config::{Config, Flags};
use proxbox_bridge::core::compat::netbox::RULES;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::object::Object;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Checks that `made` stands in a file between `start` and `end`. The variable `UPDATE_GENERATED` writes it there.
fn check_generated(path: &str, start: &str, end: &str, made: &str) {
    let text = read(path);
    let (before, rest) = text.split_once(start).unwrap();
    let (shown, after) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        return fs::write(root().join(path), [before, start, made, end, after].concat()).unwrap();
    }
    assert!(
        shown == made,
        "{path} is not what src says: UPDATE_GENERATED=1 cargo test --test integration readme:: writes it again"
    );
}

#[test]
fn what_counts_come_from_stands_in_its_tables() {
    check_generated("deploy/counts.md", "<!-- proxbox-bridge counts -->\n", "<!-- end -->", &tables(None));
}

#[test]
fn every_kind_and_every_object_stands_in_the_schemas_and_every_kind_has_its_operation() {
    let list = |words: Vec<&str>, indent: usize| {
        let words = words.iter().map(|word| format!("\n{:indent$}  \"{word}\"", "")).collect::<Vec<_>>();
        format!("{}\n{:indent$}", words.join(","), "")
    };
    let kinds = || Kind::all().map(Kind::as_str).collect();
    let objects = Object::ALL.map(Object::as_str).to_vec();
    let document = "src/admin/openapi.json";
    check_generated("fixtures/check.schema.json", "\"kind\": {\n      \"enum\": [", "]", &list(kinds(), 6));
    let start = "\"Kind\": {\n        \"type\": \"string\",\n        \"enum\": [";
    check_generated(document, start, "]", &list(kinds(), 8));
    check_generated(document, "\"propertyNames\": {\n                  \"enum\": [", "]", &list(objects, 18));

    // All operations are like that of the first kind.
    let operation = |kind: Kind| {
        let title = if kind == Kind::FullUpdate { "everything, stage by stage" } else { kind.row().title };
        [
            format!("    \"{}\": {{\n      \"post\": {{\n", kind.queue_path()),
            format!("        \"operationId\": \"sync{kind:?}\",\n"),
            format!("        \"summary\": \"Synchronises {title}.\",\n"),
        ]
        .concat()
    };
    let first = operation(Kind::Devices);
    let text = read(document);
    let (_, rest) = text.split_once(&first).unwrap();
    let (same, _) = rest.split_once("    \"/sync/").unwrap();
    let operations: Vec<String> = Kind::all().skip(1).map(|kind| operation(kind) + same).collect();
    let made = same.to_owned() + &operations.concat();
    check_generated(document, &first, "    \"/sync/virtual-machines/{vm}/\": {", &made);
}

#[test]
fn every_documented_endpoint_stands_in_its_table() {
    let document = read("deploy/api.md");
    for row in Kind::all().map(Kind::row) {
        if let Some(path) = row.plugin_path {
            let line = format!("| `{path}` | `{}` |", row.stream_path);
            assert!(document.contains(&line), "{line}");
        }
    }
}

#[test]
fn every_metric_stands_in_its_table() {
    let readme = read("deploy/prometheus/README.md");
    let reading = proxbox_bridge::telemetry::GaugeReadings::default();
    let text = String::from_utf8(proxbox_bridge::telemetry::metrics_text(&reading)).unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    assert!(!names.is_empty());
    for name in names {
        assert!(readme.contains(&format!("| `{name}")), "{name}");
    }
}

#[test]
fn the_output_of_the_main_job_is_real() {
    let readme = read("README.md");
    let (_, shown) = readme.split_once("/full-update/stream\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let mut real = read("tests/snapshots/0.0.2.post1_auto_full-update.snap");
    for line in shown.lines().filter(|line| line.starts_with("data: ")) {
        // In their order: what was found is not looked at again.
        let at = real.find(line).unwrap_or_else(|| panic!("not in the real output, or not here: {line}"));
        real.drain(..at + line.len());
    }
}

#[test]
fn the_sample_of_several_backends_is_a_configuration() {
    let document = read("deploy/proxying.md");
    let (_, sample) = document.split_once("```toml\n").unwrap();
    let (sample, _) = sample.split_once("```").unwrap();
    let flags = Flags { config: Some("bridge.toml".to_owned()), ..Flags::default() };
    let config = Config::parse(&flags, [], |_| Ok(sample.as_bytes().to_vec())).unwrap();
    let names: Vec<&str> = config.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["lab", "old"]);
}

#[test]
fn the_sample_of_notifications_is_a_configuration_with_every_form() {
    let document = read("deploy/notifications.md");
    let (_, sample) = document.split_once("```toml\n").unwrap();
    let (sample, _) = sample.split_once("```").unwrap();
    let sample = format!("{sample}\n[backend]\nurl = \"http://lab:8800\"\nname = \"lab\"\n");
    let flags = Flags { config: Some("bridge.toml".to_owned()), ..Flags::default() };
    let config = Config::parse(&flags, [], |path| match path.file_name().unwrap().to_str().unwrap() {
        "bridge.toml" => Ok(sample.clone().into_bytes()),
        "slack-url" => Ok(b"https://hooks.slack.com/services/T0/B0/x".to_vec()),
        _ => Ok(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_vec()),
    });
    let names: Vec<String> = config.unwrap().notify.into_iter().map(|target| target.name).collect();
    assert_eq!(
        names,
        ["slack:hooks.slack.com", "ntfy:ntfy.example", "alertmanager:127.0.0.1:9093", "json:hooks.example"]
    );
}

#[test]
fn the_output_of_check_is_real() {
    let document = read("deploy/troubleshooting.md");
    let (_, shown) = document.split_once("proxbox-bridge check --backend http://127.0.0.1:8000\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let snapshot = read("tests/snapshots/check_0.0.2.post1.snap");
    let mut real = snapshot.lines();
    for line in shown.lines().filter(|line| line.trim() != "…") {
        assert!(real.any(|known| known == line), "not in the real output, or not here: {line}");
    }
}

#[test]
fn every_exit_code_of_check_stands_in_its_table() {
    let document = read("deploy/troubleshooting.md");
    let schema: serde_json::Value = serde_json::from_str(&read("fixtures/check.schema.json")).unwrap();
    let verdicts = schema["properties"]["verdict"]["enum"].as_array().unwrap();
    let (_, table) = document.split_once("| exit code | `verdict` | when |\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    for verdict in verdicts {
        assert!(table.contains(&format!("`{}`", verdict.as_str().unwrap())), "{verdict}");
    }
    assert!(["| 0 |", "| 1 |", "| 78 |"].iter().all(|code| table.contains(code)), "{table}");
}

#[test]
fn what_a_reader_looks_for_is_named() {
    for (document, path) in [
        ("README.md", "deploy/quickstart.sh"),
        ("README.md", "deploy/proxbox-bridge.toml"),
        ("README.md", "deploy/configuration.md"),
        ("README.md", "fixtures/README.md"),
        ("README.md", "tests/README.md"),
        ("deploy/proxying.md", "fixtures/hostile/README.md"),
        ("deploy/troubleshooting.md", "fixtures/check.schema.json"),
        ("fixtures/README.md", "fixtures/recordings"),
        ("tests/README.md", ".ci/run"),
        ("tests/README.md", "tests/fuzz"),
        ("tests/README.md", "tests/install.sh"),
    ] {
        assert!(read(document).contains(path) && root().join(path).exists(), "{document}: {path}");
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let documents = documents();
    let mut links = 0;
    for document in &documents {
        let folder = document.path.parent().unwrap();
        for link in document.links().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.path.clone() } else { normal(&folder.join(file)) };
            let place = format!("{}: {link}", document.path.display());
            assert!(root().join(&target).exists(), "{place}");
            if !anchor.is_empty() {
                let target = documents.iter().find(|known| known.path == target).expect(&place);
                assert!(target.anchors().any(|known| known == anchor), "{place}");
            }
            links += 1;
        }
    }
    assert!(links > 100, "{links}");
}

#[test]
fn every_file_and_test_that_a_command_names_is_there() {
    let mut paths = 0;
    for document in documents() {
        for word in document.code().iter().flat_map(|code| code.split_whitespace()) {
            let word = word.trim_matches(['"', '\'', ',', ';']);
            let is_ours =
                ["deploy/", "tests/", "fixtures/", "src/", ".ci/"].iter().any(|at| word.starts_with(at));
            if is_ours && !["*", "<", "…", "#", "VERSION", "NAME"].iter().any(|part| word.contains(part)) {
                assert!(root().join(word).exists(), "{}: {word}", document.path.display());
                paths += 1;
            }
        }
        for code in document.code() {
            let words: Vec<&str> = code.split_whitespace().collect();
            for pair in words.windows(2) {
                let file = match *pair {
                    ["--test", name] if words.contains(&"cargo") => format!("tests/{name}.rs"),
                    ["--bench", name] => format!("tests/bench/{name}.rs"),
                    _ => continue,
                };
                assert!(root().join(&file).exists(), "{}: {code}", document.path.display());
            }
        }
    }
    assert!(paths > 50, "{paths}");
}

#[test]
fn every_command_line_of_the_program_is_understood() {
    let command = Cli::command();
    let subcommands: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
    let mut seen = Vec::new();
    for document in documents() {
        for code in document.code() {
            for &subcommand in &subcommands {
                let Some((_, rest)) = code.split_once(&format!("proxbox-bridge {subcommand}")) else {
                    continue;
                };
                let words =
                    rest.split_whitespace().take_while(|word| !["&", "|", ">", "#", "&&"].contains(word));
                let line = ["proxbox-bridge", subcommand].into_iter().chain(words);
                if let Err(error) = Cli::try_parse_from(line) {
                    panic!("{}: {code}\n{error}", document.path.display());
                }
                seen.push(subcommand);
            }
        }
    }
    assert!(!subcommands.is_empty());
    for subcommand in &subcommands {
        assert!(seen.contains(subcommand), "{subcommand}");
    }
}

#[test]
fn every_url_of_the_bridge_is_served() {
    let admin: Vec<String> = admin::paths().map(|(path, _)| path).collect();
    let streams: Vec<&str> = Kind::all().map(|kind| kind.row().stream_path).collect();
    let mut urls = 0;
    for document in documents() {
        for (listener, is_admin) in [("http://127.0.0.1:8801/", true), ("http://127.0.0.1:8800/", false)] {
            for url in document.text.split(listener).skip(1) {
                let path = url.split([' ', '\n', '\'', '`', '?', ')', ',']).next().unwrap();
                let path = format!("/{path}");
                let place = format!("{}: {path}", document.path.display());
                if is_admin {
                    let path = with_id(&path);
                    assert!(admin.contains(&path), "{place}");
                } else {
                    assert!(path == "/health" || streams.contains(&path.as_str()), "{place}");
                }
                urls += 1;
            }
        }
    }
    assert!(urls > 5, "{urls}");
}

/// A path of the jobs API as its document has it: `{id}` in place of an id.
fn with_id(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.len() == 36 { "{id}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// A document in Markdown.
struct Document {
    /// Relative to the repository.
    path: PathBuf,
    text: String,
}

/// Every document of the repository.
fn documents() -> Vec<Document> {
    let mut folders = ["deploy", "fixtures", "tests"].map(|name| root().join(name)).to_vec();
    let mut paths = vec![root().join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    let document = |path: PathBuf| Document {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().to_owned(),
    };
    paths.into_iter().map(document).collect()
}

impl Document {
    /// The parts outside and inside of fenced blocks, in turn.
    fn parts(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.split("```").enumerate()
    }

    fn prose(&self) -> impl Iterator<Item = &str> {
        self.parts().filter(|(at, _)| at % 2 == 0).map(|(_, part)| part)
    }

    /// The targets of its links and pictures.
    fn links(&self) -> impl Iterator<Item = &str> {
        self.prose()
            .flat_map(|part| part.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)))
    }

    /// The anchors that GitHub gives its headings.
    fn anchors(&self) -> impl Iterator<Item = String> {
        let headings = self.prose().flat_map(str::lines).filter(|line| line.starts_with('#'));
        headings.map(|line| {
            let kept = |letter: &char| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter);
            let text = line.trim_start_matches('#').trim().to_lowercase();
            text.chars().filter(kept).collect::<String>().replace(' ', "-")
        })
    }

    /// Its code: the lines of fenced blocks, those that a backslash continues as one, and spans in the prose.
    fn code(&self) -> Vec<String> {
        let mut code = Vec::new();
        for (at, part) in self.parts() {
            if at % 2 == 1 {
                code.extend(part.replace("\\\n", " ").lines().map(str::to_owned));
            } else {
                code.extend(part.split('`').skip(1).step_by(2).map(str::to_owned));
            }
        }
        code
    }
}

/// `path` without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            normal.pop();
        } else {
            normal.push(component);
        }
    }
    normal
}

#[test]
fn what_is_changed_between_a_backend_and_netbox_stands_in_its_table() {
    let rows: String = RULES
        .iter()
        .map(|rule| {
            let releases =
                rule.releases.map_or("all".to_owned(), |(first, last)| format!("{first} to {last}"));
            format!(
                "| `{}` | {releases} | {} | {} | {} |\n",
                rule.shim, rule.request, rule.change, rule.reason
            )
        })
        .collect();
    let head = "| key of `[shims]` | releases | request | what is changed | why |\n|---|---|---|---|---|\n";
    check_generated(
        "deploy/netbox-listener.md",
        "<!-- rules -->\n",
        "<!-- end -->",
        &format!("{head}{rows}"),
    );
}
