//! Runs the command and checks its output.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use crate::support::bridge::KEY;
use jsonschema::Validator;
use serde_json::Value;
use tempfile::NamedTempFile;

/// The result of a run.
#[derive(Debug)]
pub struct CheckRun {
    pub code: i32,
    /// What went to standard output.
    pub text: String,
    /// What went to standard error.
    pub errors: String,
}

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/check.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
});

impl CheckRun {
    /// Checks the backend at `address`, with further settings as in a file.
    pub async fn against(address: &impl Display, args: &[&str], settings: &[(&str, &str)]) -> Self {
        let backend = format!("http://{address}");
        Self::with(&[&["--backend", &backend], args].concat(), settings).await
    }

    /// Runs a check with `args` and `settings`.
    pub async fn with(args: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
        command.arg("check").args(args).env_clear().stdin(Stdio::null());
        for (key, value) in settings {
            // An upper-case name is an environment variable already.
            let name = match key.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                true => (*key).to_owned(),
                false => format!("PROXBOX_BRIDGE_{}", key.replace('.', "_").to_uppercase()),
            };
            command.env(name, value);
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let run = Self {
            code: output.status.code().unwrap(),
            text: text(output.stdout),
            errors: text(output.stderr),
        };
        for shown in [&run.text, &run.errors] {
            assert!(!shown.contains(KEY), "the key is shown: {shown}");
        }
        if args.contains(&"--json") {
            run.json();
        }
        run
    }

    /// The printed object, which must match the schema and the exit code.
    pub fn json(&self) -> Value {
        let found: Value =
            serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let errors: Vec<String> =
            SCHEMA.iter_errors(&found).map(|error| format!("{error} at {}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:?}: {}", self.text);
        let verdict = match self.code {
            0 => ["ok", "warning"].contains(&found["verdict"].as_str().unwrap()),
            1 => found["verdict"] == "failed",
            code => code == 78 && found["verdict"] == "misconfigured",
        };
        assert!(verdict, "{self:?}");
        assert_eq!(found["problems"].as_array().unwrap().is_empty(), found["bridge"][0].is_object());
        found
    }

    /// The only line of this check, of the bridge or of a backend.
    pub fn line(&self, check: &str) -> Value {
        let found = self.json();
        let backends = found["backends"].as_array().unwrap().iter();
        let lines = backends.flat_map(|backend| backend["checks"].as_array().unwrap());
        let lines = lines.chain(found["bridge"].as_array().unwrap());
        let mut lines = lines.filter(|line| line["check"] == check);
        let line = lines.next().unwrap_or_else(|| panic!("no {check}: {}", self.text)).clone();
        assert!(lines.next().is_none(), "{check} is there twice: {}", self.text);
        line
    }

    /// Asserts the exit code, and that the output has all `parts` in this order.
    pub fn assert_output(&self, code: i32, parts: &[&str]) {
        let mut rest = self.text.as_str();
        for part in parts {
            let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("no {part:?} in {}", self.text));
            rest = after;
        }
        assert_eq!(self.code, code, "{}{}", self.text, self.errors);
        assert_eq!(self.text.contains("FAILED"), code != 0, "{}", self.text);
        assert_eq!(self.errors.is_empty(), code == 0, "{}", self.errors);
    }
}

/// A temporary file with `text`.
pub fn file(text: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_ref()).unwrap();
    file
}
