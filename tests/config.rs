//! The configuration: its sources, their priority, and the messages for errors.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxbox_bridge::config::{
    Config, ConfigError, ConfigKey, ConfigProblem, Flags, JobRecording, Jobs, Limits, OnDisconnect,
    environment, keys,
};
use proxbox_bridge::core::compat::Shim;
use proxbox_bridge::core::domain::channel::{Channel, ChannelChoice};
use proxbox_bridge::core::run::policy::{EndpointIds, ObjectFailures, UnsupportedPolicy};
use proxbox_bridge::tls::Trust;

const SECRET: &str = "s3cret";
const TOKEN: &str = "operators-0123456789";
const PIN: &str =
    "AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB";

/// A bridge's surroundings: one configuration file, one key file, variables and flags.
#[derive(Default)]
struct Setup {
    file: Option<String>,
    env: Vec<(String, String)>,
    flags: Flags,
}

impl Setup {
    fn file(text: &str) -> Self {
        Self { file: Some(text.to_owned()), ..Self::default() }
            .flags(|flags| flags.config = Some("bridge.toml".into()))
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((format!("PROXBOX_BRIDGE_{name}"), value.to_owned()));
        self
    }

    fn flags(mut self, set: impl FnOnce(&mut Flags)) -> Self {
        set(&mut self.flags);
        self
    }

    fn load(self) -> Result<Config, ConfigError> {
        let Self { file, env, flags } = self;
        Config::parse(&flags, env, |path| match path.to_str() {
            Some("bridge.toml") => Ok(file.clone().unwrap_or_default().into_bytes()),
            Some("token") => Ok(format!("{TOKEN}\n").into_bytes()),
            Some("key" | "/etc/bridge/key") => Ok(format!("{SECRET}\n").into_bytes()),
            Some("webhook-secret") => Ok(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".to_vec()),
            Some("webhook-url") => Ok(b"https://hooks.example/T1/s3cret\n".to_vec()),
            Some("empty-key") => Ok(b"\n".to_vec()),
            Some("latin-1") => Ok(b"schl\xfcssel = 1".to_vec()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        })
    }

    fn error(self) -> String {
        self.load().err().map(|error| error.to_string()).unwrap_or_default()
    }
}

fn minimal() -> Setup {
    Setup::file("backend.url = \"http://backend\"")
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = minimal().load().unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8800");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:8801");
    assert_eq!(
        (config.admin_tokens, config.admin_open_reads, config.admin_open_metrics),
        (Vec::new(), false, false)
    );
    assert_eq!(config.data_dir, None);
    assert_eq!(config.backends[0].url.to_string(), "http://backend");
    assert_eq!(config.backends[0].channel, ChannelChoice::Auto);
    assert_eq!(config.backends[0].unsupported, UnsupportedPolicy::Auto);
    assert_eq!(config.backends[0].endpoint_ids, EndpointIds::Backend);
    assert!(Shim::ALL.into_iter().all(|shim| config.shims.is_on(shim)));
    assert_eq!(config.backends[0].object_failures, ObjectFailures::All.into());
    assert_eq!(config.backends[0].api_key, None);
    assert_eq!((config.backends[0].concurrency, config.backends[0].queue), (1, 16));
    let jobs = Jobs {
        on_disconnect: OnDisconnect::Grace,
        without_ledger: None,
        recording: JobRecording::Off,
        log_frames: 1000,
        failed_objects: 50_000,
    };
    assert_eq!(config.jobs, jobs);
    assert_eq!(Jobs::default(), jobs);
    // `deploy/configuration.md` has them.
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.limits.idle, seconds(1800));
}

#[test]
fn keys_that_make_a_value_together_reach_it() {
    let text = format!(
        r#"
            admin_token_file = "token"
            tls = {{ certificate = "cert.pem", key = "key.pem", client_ca = "ca.pem" }}
            shims = {{ api_key_file = "key", scope = "off", secrets = false }}
            [backend]
            name = "lab"
            url = "https://[2001:db8::7]:8802/"
            hosts = ["lab.example", "[::1]"]
            pin = "{PIN}"
            client_certificate = "b-cert.pem"
            client_key = "b-key.pem"
            channel = "websocket"
            object_failures = "never, snapshots=any"
            api_key_file = "/etc/bridge/key"
            netbox_listen = "192.0.2.1:9802"
            netbox_certificate = "l-cert.pem"
            netbox_key = "l-key.pem"
            netbox_allow = ["192.0.2.7"]
            netbox_url = "https://netbox.example"
            netbox_pin = "{PIN}"
            netbox_client_certificate = "n-cert.pem"
            netbox_client_key = "n-key.pem"
        "#
    );
    let config = Setup::file(&text).load().unwrap();
    assert_eq!(config.admin_tokens[0].secret.expose(), TOKEN);
    let tls = config.tls.unwrap();
    assert_eq!(
        [tls.certificate, tls.key, tls.client_ca.unwrap()],
        ["cert.pem", "key.pem", "ca.pem"].map(PathBuf::from)
    );
    let off = Shim::ALL.into_iter().filter(|shim| !config.shims.is_on(*shim));
    assert_eq!(off.collect::<Vec<_>>(), [Shim::Scope, Shim::Secrets]);
    assert_eq!(config.shims.api_key.as_ref().unwrap().expose(), SECRET);
    let backend = &config.backends[0];
    assert_eq!((backend.name.as_str(), backend.url.authority().as_str()), ("lab", "[2001:db8::7]:8802"));
    assert!(backend.url.is_tls());
    assert_eq!(backend.hosts, ["lab.example", "::1"]);
    assert_eq!(backend.trust, Trust::Pinned(PIN.parse().unwrap()));
    assert_eq!(backend.client_certificate, Some(("b-cert.pem".into(), "b-key.pem".into())));
    assert_eq!(backend.channel, ChannelChoice::Only(Channel::Websocket));
    assert_eq!(backend.object_failures.to_string(), "never, snapshots=any");
    assert_eq!(backend.api_key.as_ref().unwrap().expose(), SECRET);
    let netbox = backend.netbox.as_ref().unwrap();
    assert_eq!((netbox.listen, netbox.allow.len()), ("192.0.2.1:9802".parse().unwrap(), 1));
    assert_eq!(netbox.tls.as_ref().unwrap().certificate, Path::new("l-cert.pem"));
    assert_eq!(netbox.url.as_ref().unwrap().to_string(), "https://netbox.example");
    assert_eq!(netbox.trust, Some(Trust::Pinned(PIN.parse().unwrap())));
    assert_eq!(netbox.client_certificate, Some(("n-cert.pem".into(), "n-key.pem".into())));
    let of = |address: &str| netbox.allows(address.parse().unwrap());
    assert_eq!([of("127.0.0.1"), of("192.0.2.7"), of("192.0.2.8")], [true, true, false]);
}

/// Values with which every other key can be set.
const COMPANIONS: [(&str, &str); 14] = [
    ("data_dir", "/srv/bridge"),
    ("backend.url", "https://backend"),
    ("tls.certificate", "cert.pem"),
    ("tls.key", "key.pem"),
    ("backend.client_certificate", "b-cert.pem"),
    ("backend.client_key", "b-key.pem"),
    ("backend.netbox_listen", "127.0.0.1:9802"),
    ("backend.netbox_certificate", "l-cert.pem"),
    ("backend.netbox_key", "l-key.pem"),
    ("backend.netbox_client_certificate", "n-cert.pem"),
    ("backend.netbox_client_key", "n-key.pem"),
    ("notify.url", "https://hooks.example"),
    ("notify.on", "failed, stale"),
    ("notify.stale_after", "26h"),
];

/// Values other than the default, from what `key` allows.
fn examples(key: &ConfigKey) -> Vec<String> {
    match key.name {
        "notify.url_file" => return vec!["webhook-url".to_owned()],
        "notify.secret_file" => return vec!["webhook-secret".to_owned()],
        _ => {}
    }
    let allowed = key.allowed();
    let of_type = |start: &str, example: &str| allowed.starts_with(start).then(|| vec![example.to_owned()]);
    let examples = of_type("an IP address", "127.0.0.9:9999")
        .or_else(|| of_type("a list of addresses", "192.0.2.7, 10.0.0.0/8"))
        .or_else(|| of_type("a list of names", "backend"))
        .or_else(|| of_type("a list of host", "lab.example, other.example"))
        .or_else(|| of_type("a URL", "https://other.example"))
        .or_else(|| of_type("a path such as /", "/tools/bridge/"))
        .or_else(|| of_type("a path", "token"))
        .or_else(|| of_type("a SHA-256", PIN))
        .or_else(|| of_type("1 to 64 letters", "lab"));
    if let Some(examples) = examples {
        return examples;
    }
    // The first and the last of a range, or words.
    let allowed = allowed.split(", with ").next().unwrap();
    let range = allowed.split_once(" from ").map_or(allowed, |(_, range)| range);
    let values = range.trim_end_matches(" in whole seconds").split([',']).flat_map(|part| part.split(" or "));
    let values = values.flat_map(|part| part.split(" to ")).map(|value| value.trim().to_owned());
    values.filter(|value| Some(value) != key.default().as_ref()).collect()
}

/// A file that sets these keys.
fn file_of(values: &BTreeMap<&str, String>) -> Setup {
    let mut text = String::new();
    for (name, value) in values {
        let is_list = keys().any(|key| key.name == *name && key.allowed().starts_with("a list"));
        let items: Vec<&str> = if is_list { value.split(", ").collect() } else { vec![value] };
        let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
        let _ = match (is_list, is_number) {
            (true, _) => writeln!(text, "{name} = {items:?}"),
            (_, true) => writeln!(text, "{name} = {value}"),
            _ => writeln!(text, "{name} = {value:?}"),
        };
    }
    Setup::file(&text)
}

#[test]
fn every_key_can_be_set_in_the_file_and_by_a_variable_and_changes_its_field() {
    let companions = || BTreeMap::from(COMPANIONS.map(|(name, value)| (name, value.to_owned())));
    let base = file_of(&companions()).load().unwrap();
    for key in keys() {
        let with = |example: String| {
            let mut values = companions();
            values.insert(key.name, example);
            if key.name == "notify.url_file" {
                // It replaces the URL.
                values.remove("notify.url");
            }
            values
        };
        // Some values are not allowed together with the defaults of other keys.
        let found = examples(key).into_iter().find_map(|example| {
            let values = with(example);
            file_of(&values).load().ok().map(|config| (values, config))
        });
        let (values, config) = found.unwrap_or_else(|| panic!("{}: no example", key.name));
        assert_ne!(config, base, "{}", key.name);

        let mut by_variable = Setup::default();
        for (name, value) in &values {
            let variable = keys().find(|key| key.name == *name).unwrap().variable();
            by_variable.env.push((variable, value.clone()));
        }
        assert_eq!(by_variable.load().unwrap(), config, "{}", key.name);

        if let Some(field) = key.name.strip_prefix("limits.") {
            let [before, after] = [&base, &config].map(|config| format!("{config:#?}"));
            let changed = before.lines().zip(after.lines()).filter(|(before, after)| before != after);
            let names: Vec<&str> = changed.filter_map(|(_, after)| after.trim().split(": ").next()).collect();
            assert!(!names.is_empty() && names.iter().all(|name| *name == field), "{field}: {names:?}");
        }
    }
}

#[test]
fn a_flag_counts_more_than_a_variable_and_a_variable_more_than_the_file() {
    let file =
        || Setup::file("listen = \"127.0.0.1:1\"\n[backend]\nurl = \"http://file\"\nchannel = \"json\"");
    assert_eq!(file().load().unwrap().backends[0].url.host(), "file");

    let env = || file().env("LISTEN", "127.0.0.1:2").env("BACKEND_URL", "http://variable");
    let config = env().load().unwrap();
    assert_eq!((config.listen.port(), config.backends[0].url.host()), (2, "variable"));
    assert_eq!(config.backends[0].channel, ChannelChoice::Only(Channel::Json));

    let flags = env().flags(|flags| {
        flags.listen = Some("127.0.0.1:3".into());
        flags.admin_listen = Some("127.0.0.1:4".into());
        flags.backend = Some("http://flag".into());
        flags.channel = Some("native".into());
        flags.data_dir = Some("here".into());
    });
    let config = flags.load().unwrap();
    assert_eq!((config.listen.port(), config.backends[0].url.host()), (3, "flag"));
    assert_eq!(config.admin_listen.port(), 4);
    assert_eq!(config.backends[0].channel, ChannelChoice::Only(Channel::Native));
    assert_eq!(config.data_dir, Some("here".into()));
}

#[test]
fn the_file_is_named_by_a_flag_or_else_by_a_variable() {
    let by_variable = Setup { file: minimal().file, ..Setup::default() }.env("CONFIG", "bridge.toml");
    assert_eq!(by_variable.load().unwrap().backends[0].url.host(), "backend");
    assert!(minimal().env("CONFIG", "missing.toml").load().is_ok(), "the flag counts more");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_what_named_it() {
    assert_eq!(
        Setup::default().env("CONFIG", "missing.toml").error(),
        "PROXBOX_BRIDGE_CONFIG: cannot read \"missing.toml\": no such file"
    );
    let error = Setup::default().flags(|flags| flags.config = Some("latin-1".into())).error();
    assert!(error.starts_with("--config: cannot read \"latin-1\": "), "{error}");
    assert_eq!(error.lines().count(), 1, "what the file may have set is not called missing");
}

#[test]
fn every_bad_sample_gets_its_expected_error() {
    let mut seen = 0;
    for entry in fs::read_dir(repository("fixtures/config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let (name, text) = (path.file_name().unwrap().to_str().unwrap(), fs::read_to_string(&path).unwrap());
        let result = Setup::file(&text).load();
        if !name.starts_with("bad-") {
            assert!(result.is_ok(), "{name}: {result:?}");
            continue;
        }
        seen += 1;
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        let error = result.unwrap_err();
        assert_eq!(error.to_string().replace("bridge.toml:", &format!("{name}:")) + "\n", expected);
        assert_eq!(error.problems().len(), expected.lines().count(), "{name}: one line each");
        assert!(!format!("{error}{error:?}").contains(SECRET), "{name}");
    }
    assert!(seen >= 7, "{seen} bad samples");
}

#[test]
fn errors_in_variables_and_flags_name_the_key_of_the_file() {
    assert_eq!(
        minimal().env("BACKEND_CHANNEL", "sse").error(),
        "PROXBOX_BRIDGE_BACKEND_CHANNEL: backend.channel must be auto, native, websocket or json, not \"sse\""
    );
    assert_eq!(
        minimal().flags(|flags| flags.channel = Some("sse".into())).error(),
        "--channel: backend.channel must be auto, native, websocket or json, not \"sse\""
    );
    assert_eq!(
        minimal().env("LIMITS_HEARTBEAT", "16s").error(),
        "PROXBOX_BRIDGE_LIMITS_HEARTBEAT: limits.heartbeat must be a duration from 1s to 15s, with its unit as \
         in \"15s\", not \"16s\""
    );
    assert_eq!(
        Setup::default().flags(|flags| flags.backend = Some("backend:8800".into())).error(),
        "--backend: backend.url must be a URL of the form http://HOST[:PORT] or https://HOST[:PORT]: it has no scheme"
    );
    assert_eq!(
        minimal().env("DATA_DIR", "").error(),
        "PROXBOX_BRIDGE_DATA_DIR: data_dir must be a path, not \"\""
    );
}

#[test]
fn an_unknown_variable_is_refused_and_its_value_is_not_shown() {
    for (name, expected) in [
        ("LIMITS_IDEL", "; did you mean `PROXBOX_BRIDGE_LIMITS_IDLE`?"),
        ("BACKEND", "; did you mean `PROXBOX_BRIDGE_BACKEND_URL`?"),
        ("BACKEND_API_KEY", "; did you mean `PROXBOX_BRIDGE_BACKEND_API_KEY_FILE`?"),
        ("CONFIGURATION", ""),
        ("COLOUR", ""),
        ("PORT", ""),
        ("", ""),
    ] {
        let error = minimal().env(name, SECRET).error();
        assert_eq!(error, format!("PROXBOX_BRIDGE_{name}: unknown variable{expected}"));
    }
}

#[test]
fn variables_of_others_are_let_be() {
    let mut setup =
        minimal().env("LOG", "debug").env("PORT", "tcp://10.0.0.1:8800").env("SERVICE_HOST", "10.0.0.1");
    setup.env.push(("PROXBOX_LISTEN".into(), "x".into()));
    setup.env.push(("PATH".into(), "/bin".into()));
    assert!(setup.load().is_ok());
    assert!(environment().any(|(name, _)| name == "PATH"));
}

#[test]
fn everything_wrong_is_reported_at_once_in_the_order_of_the_sources() {
    let error = Setup::file("[limits]\ntotal = 1\nidel = 2")
        .env("LISTEN", "here")
        .env("COLOUR", "green")
        .flags(|flags| flags.admin_listen = Some("there".into()))
        .error();
    let starts: Vec<&str> = error.lines().map(|line| line.split_once([' ', ':']).unwrap().0).collect();
    let expected = [
        "bridge.toml", "bridge.toml", "PROXBOX_BRIDGE_COLOUR", "PROXBOX_BRIDGE_LISTEN", "--admin-listen",
        "backend.url",
    ];
    assert_eq!(starts, expected, "{error}");
}

#[test]
fn a_bad_value_is_reported_even_where_a_better_source_sets_the_key() {
    let error = Setup::file("[backend]\nurl = \"ftp://x\"").env("BACKEND_URL", "http://backend").error();
    assert_eq!(
        error,
        "bridge.toml:2: backend.url must be a URL of the form http://HOST[:PORT] or https://HOST[:PORT]: its scheme is \
         neither http nor https"
    );
}

#[test]
fn the_two_listeners_cannot_share_a_port() {
    let setup = |listen: &str, admin: &str| {
        let setup = minimal().env("LISTEN", listen).env("ADMIN_LISTEN", admin);
        setup.env("ADMIN_TOKEN_FILE", "token").load()
    };
    for (listen, admin) in [
        ("127.0.0.1:9", "127.0.0.1:9"),
        ("0.0.0.0:9", "127.0.0.1:9"),
        ("[::1]:9", "[::]:9"),
        ("[::]:9", "[::]:9"),
    ] {
        let error = setup(listen, admin).unwrap_err();
        let shared =
            format!("listen ({listen}) and admin_listen ({admin}) must not share an address and port");
        assert_eq!(error.to_string(), shared);
    }
    for (listen, admin) in
        [("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.1:9", "127.0.0.2:9"), ("127.0.0.1:9", "127.0.0.1:8")]
    {
        assert!(setup(listen, admin).is_ok(), "{listen} {admin}");
    }
}

#[test]
fn recordings_need_a_directory() {
    let setup = || minimal().env("JOBS_RECORDING", "on");
    let error = setup().load().unwrap_err();
    assert!(error.to_string().starts_with("jobs.recording is on and data_dir is not set: "), "{error}");
    assert_eq!(error.problems().len(), 1, "{error}");
    assert_eq!(setup().env("DATA_DIR", "here").load().unwrap().jobs.recording, JobRecording::On);
    for (text, recording) in
        [("true", JobRecording::On), ("false", JobRecording::Off), ("failed", JobRecording::Failed)]
    {
        let setup = minimal().env("JOBS_RECORDING", text).env("DATA_DIR", "here");
        assert_eq!(setup.load().unwrap().jobs.recording, recording, "{text}");
    }
    assert!(minimal().env("JOBS_RECORDING", "off").load().is_ok());

    let error = setup().env("DATA_DIR", "").load().unwrap_err();
    assert!(matches!(error.problems(), [ConfigProblem::BadValue { key: "data_dir", .. }]), "{error}");
    let error = setup().flags(|flags| flags.config = Some("missing.toml".into())).load().unwrap_err();
    assert!(matches!(error.problems(), [ConfigProblem::Unreadable { .. }]), "it may name one: {error}");
}

#[test]
fn the_record_of_a_job_outlives_its_frames() {
    let setup = |retention: &str, log_retention: &str| {
        let setup = minimal().env("LIMITS_RETENTION", retention);
        setup.env("LIMITS_LOG_RETENTION", log_retention).load()
    };
    assert!(setup("1h", "1h").is_ok());
    let error = setup("59m", "1h").unwrap_err();
    assert_eq!(
        error.to_string(),
        "limits.retention (59m) must not be shorter than limits.log_retention (1h)"
    );
    let error = setup("2days", "4000days").unwrap_err();
    assert!(matches!(error.problems(), [ConfigProblem::BadValue { .. }]), "{error}");
}

#[test]
fn the_api_key_is_read_from_its_file_and_never_shown() {
    let config = minimal().env("BACKEND_API_KEY_FILE", "key").load().unwrap();
    assert_eq!(config.backends[0].api_key.as_ref().unwrap().expose(), SECRET);
    let shown = format!("{config:?} {config:#?} {}", config.backends[0].api_key.as_ref().unwrap());
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(shown.contains("<api-key>"), "{shown}");
}

#[test]
fn an_api_key_that_cannot_be_had_is_a_problem_that_names_its_file() {
    assert_eq!(
        minimal().env("BACKEND_API_KEY_FILE", "missing").error(),
        "PROXBOX_BRIDGE_BACKEND_API_KEY_FILE: backend.api_key_file: cannot read \"missing\": no such file"
    );
    assert_eq!(
        Setup::file("[backend]\nurl = \"http://backend\"\napi_key_file = \"empty-key\"").error(),
        "bridge.toml:3: backend.api_key_file: no key in \"empty-key\": it is empty"
    );
    let error = minimal().env("BACKEND_API_KEY_FILE", "latin-1").error();
    assert!(error.contains("no key in \"latin-1\": a key is one line of visible ASCII"), "{error}");
}

#[test]
fn a_key_file_that_a_better_source_replaces_is_not_read() {
    let file = Setup::file("[backend]\nurl = \"http://backend\"\napi_key_file = \"missing\"");
    assert!(file.env("BACKEND_API_KEY_FILE", "key").load().is_ok());
}

#[test]
fn the_deployed_sample_is_the_defaults() {
    let path = repository("deploy/proxbox-bridge.toml").to_str().unwrap().to_owned();
    let sample = Config::load(&Flags { config: Some(path), ..Flags::default() }, []).unwrap();
    let url = sample.backends[0].url.to_string();
    assert_eq!(sample, Setup::default().env("BACKEND_URL", &url).load().unwrap());
}

#[test]
fn the_deployed_sample_names_keys_and_their_defaults() {
    let text = fs::read_to_string(repository("deploy/proxbox-bridge.toml")).unwrap();
    let shown = assignments(&text);
    assert!(shown.len() > 5, "{shown:?}");
    for (name, value) in shown {
        let key = keys().find(|key| key.name == name).unwrap_or_else(|| panic!("no key: {name}"));
        if let Some(default) = key.default() {
            assert_eq!(value.trim_matches('"'), default, "{name}");
        }
    }
}

/// The list of keys for people, made from the code.
fn reference() -> String {
    let mut text = "# Configuration keys\n\n<!-- Made from src/config by \
                    `CONFIGURATION_UPDATE=1 cargo test --test integration config::`. Do not edit it by hand. -->\n\n\
                    How they are set, and what the bridge does with them, is in the \
                    [README](../README.md#configuration).\n"
        .to_owned();
    let mut table = None;
    for key in keys() {
        let of_key = key.name.split_once('.').map(|(table, _)| table);
        if table.replace(of_key) != Some(of_key) {
            let title = of_key.map_or("Top level".to_owned(), |table| format!("`[{table}]`"));
            let head = "| key | default | allowed | per backend | description |\n|---|---|---|---|---|\n";
            write!(text, "\n## {title}\n\n{head}").unwrap();
        }
        let default = key.default().map_or("none".to_owned(), |default| format!("`{default}`"));
        let allowed = key.allowed().replace(", with its unit as in \"15s\"", "");
        let per_backend = if key.is_per_backend() { "yes" } else { "no" };
        let flag = key.flag.map(|flag| format!(" Flag: `{flag}`.")).unwrap_or_default();
        let restart = if key.needs_restart { " A change needs a restart." } else { "" };
        let (name, doc) = (key.name, key.doc);
        writeln!(text, "| `{name}` | {default} | {allowed} | {per_backend} | {doc}{flag}{restart} |")
            .unwrap();
    }
    text
}

#[test]
fn the_list_of_keys_is_what_the_code_says() {
    let (path, made) = (repository("deploy/configuration.md"), reference());
    if std::env::var_os("CONFIGURATION_UPDATE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let shown = fs::read_to_string(path).unwrap_or_default();
    assert!(
        shown == made,
        "deploy/configuration.md is not what src/config says: CONFIGURATION_UPDATE=1 cargo test --test \
         integration config:: writes it again"
    );
}

#[test]
fn every_key_says_what_it_takes_and_what_it_does() {
    for key in keys() {
        assert!(key.doc.ends_with('.') && !key.doc.contains("  ") && !key.doc.contains('|'), "{}", key.name);
        assert!(!key.allowed().is_empty(), "{}", key.name);
    }
    let idle = keys().find(|key| key.name == "limits.idle").unwrap();
    assert_eq!(idle.variable(), "PROXBOX_BRIDGE_LIMITS_IDLE");
    assert_eq!(idle.flag, None);
    assert_eq!(keys().find(|key| key.name == "backend.url").unwrap().flag, Some("--backend"));
}

const TWO: &str = r#"
    limits.idle = "1h"
    [[backend]]
    name = "lab"
    url = "http://10.0.0.1"
    hosts = ["lab.example"]
    channel = "json"
    [backend.limits]
    idle = "2h"
    [[backend]]
    url = "https://10.0.0.2:8800"
    api_key_file = "key"
    insecure = true
"#;

#[test]
fn every_backend_has_its_own_settings_and_those_that_are_common() {
    let config = Setup::file(TWO).env("LIMITS_IDLE", "3h").env("LIMITS_TOTAL", "9h").load().unwrap();
    let [lab, other] = config.backends.as_slice() else { panic!("{config:?}") };
    assert_eq!((lab.name.as_str(), other.name.as_str()), ("lab", "10.0.0.2:8800"));
    assert_eq!((lab.channel, other.channel), (ChannelChoice::Only(Channel::Json), ChannelChoice::Auto));
    assert_eq!((lab.limits.idle, other.limits.idle), (seconds(2 * 3600), seconds(3 * 3600)));
    assert_eq!((lab.limits.total, config.limits.idle), (seconds(9 * 3600), seconds(3 * 3600)));
    assert_eq!((&lab.trust, &other.trust), (&Trust::System, &Trust::Insecure));
    assert_eq!((lab.api_key.is_some(), other.api_key.is_some()), (false, true));
}

#[test]
fn one_backend_may_have_limits_of_its_own_too() {
    let config =
        Setup::file("[backend]\nurl = \"http://b\"\n[backend.limits]\nidle = \"2h\"").load().unwrap();
    assert_eq!((config.backends[0].limits.idle, config.limits.idle), (seconds(7200), seconds(1800)));
}

#[test]
fn several_backends_must_be_distinguishable() {
    let blocks = |first: &str, second: &str| {
        let block = |url: u8, more: &str| format!("[[backend]]\nurl = \"http://10.0.0.{url}\"\n{more}\n");
        Setup::file(&(block(1, first) + &block(2, second)))
    };
    for (first, second, error) in [
        ("", "", "the backends 10.0.0.1 and 10.0.0.2 have neither hosts nor listen"),
        ("hosts = [\"a\"]", "hosts = [\"A\"]", "two backends have the same host (a)"),
        ("hosts = [\"a\"]\nname = \"x\"", "name = \"x\"", "two backends have the same name (x)"),
        ("listen = \"127.0.0.1:1\"\nhosts = [\"a\"]", "", "the backend 10.0.0.1 has both listen and hosts"),
        (
            "listen = \"127.0.0.1:8801\"",
            "",
            "admin_listen (127.0.0.1:8801) and backend.listen (127.0.0.1:8801)",
        ),
        ("hosts = [\"a:8800\"]", "", "bridge.toml:3: backend.hosts must be a list of host names"),
        ("pin = \"12\"", "hosts = [\"a\"]", "bridge.toml:3: backend.pin must be a SHA-256"),
        (
            "insecure = true",
            "hosts = [\"a\"]",
            "the backend 10.0.0.1 has insecure, and its url is http: use https",
        ),
        (
            "[backend.limits]\ndrain = \"1s\"",
            "hosts = [\"a\"]",
            "bridge.toml:4: limits.drain applies to the whole bridge",
        ),
        (
            "[backend.limits]\nidel = \"1s\"",
            "hosts = [\"a\"]",
            "bridge.toml:4: unknown key `idel` in [limits]; did you mean `idle`?",
        ),
        (
            "[backend.jobs]\nrecording = true",
            "hosts = [\"a\"]",
            "bridge.toml:3: unknown key `jobs` in [backend]",
        ),
    ] {
        let found = blocks(first, second).error();
        assert!(found.contains(error), "{first} | {second}: {found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
    assert!(blocks("hosts = [\"a\"]", "").load().is_ok());
    assert!(blocks("listen = \"127.0.0.1:1\"", "").load().is_ok());
}

#[test]
fn a_variable_or_flag_that_could_be_for_any_of_several_backends_is_refused() {
    let error = Setup::file(TWO).env("BACKEND_CHANNEL", "json").error();
    assert_eq!(
        error,
        "PROXBOX_BRIDGE_BACKEND_CHANNEL: there are several [[backend]] blocks: set backend.channel in one of them"
    );
    let error = Setup::file("[[backend]]\nurl = \"http://a\"\n[[backend]]\nhosts = [\"b\"]").error();
    assert!(error.starts_with("bridge.toml:3: this backend has no url"), "{error}");
    let one = Setup::file("[[backend]]\nhosts = [\"a\"]").env("BACKEND_URL", "http://a").load().unwrap();
    assert_eq!((one.backends[0].url.host(), one.backends[0].hosts.len()), ("a", 1));
}

#[test]
fn keys_of_certificates_must_go_together() {
    let of = |more: &str| Setup::file(&format!("[backend]\nurl = \"https://a\"\n{more}")).error();
    assert!(
        of("ca_file = \"ca.pem\"\ninsecure = true").contains("more than one of ca_file, pin and insecure")
    );
    assert_eq!(of("ca_file = \"ca.pem\""), "");
    assert!(minimal().env("TLS_KEY", "key.pem").error().starts_with("tls.certificate is not set"));
    assert!(minimal().env("TLS_CERTIFICATE", "c.pem").error().starts_with("tls.key is not set"));
    assert!(minimal().env("TLS_CLIENT_CA", "c.pem").error().starts_with("tls.certificate is not set"));
    assert!(minimal().env("TLS_CERTIFICATE", "c.pem").env("TLS_KEY", "k.pem").load().is_ok());
    assert!(of("client_key = \"k.pem\"").starts_with("backend.client_certificate is not set"));
    assert!(of("client_certificate = \"c.pem\"").starts_with("backend.client_key is not set"));
}

#[test]
fn a_netbox_listener_is_open_to_others_only_where_they_are_named() {
    let of = |more: &str| Setup::file(&format!("[[backend]]\nurl = \"http://a\"\n{more}")).error();
    let open = of("netbox_listen = \"192.0.2.1:8803\"");
    assert!(open.contains("netbox_listen 192.0.2.1:8803, which is not a loopback address"), "{open}");
    assert_eq!(of("netbox_listen = \"192.0.2.1:8803\"\nnetbox_allow = [\"192.0.2.7\"]"), "");
    let any = of("netbox_listen = \"0.0.0.0:8803\"\nnetbox_allow = [\"192.0.2.7\"]");
    assert!(any.contains("0.0.0.0:8803, to which the backend cannot connect"), "{any}");
    let link = of("netbox_listen = \"[fe80::1]:8803\"\nnetbox_allow = [\"fe80::/10\"]");
    assert!(link.contains("[fe80::1]:8803, to which the backend cannot connect"), "{link}");
    for loopback in ["127.0.0.1:8803", "[::1]:8803", "[::ffff:127.0.0.1]:8803"] {
        assert_eq!(of(&format!("netbox_listen = \"{loopback}\"")), "");
    }
    let plain = of("netbox_listen = \"127.0.0.1:443\"");
    assert!(plain.contains("127.0.0.1:443 and no netbox_certificate"), "{plain}");
    let no_url = of("netbox_listen = \"127.0.0.1:1\"\nnetbox_url = \"ftp://netbox\"");
    assert!(no_url.starts_with("bridge.toml:4: backend.netbox_url must be a URL"), "{no_url}");
    let alone = of("netbox_url = \"http://netbox\"");
    assert!(alone.contains("has netbox_url and no netbox_listen"), "{alone}");
    let many =
        format!("netbox_listen = \"127.0.0.1:1\"\nnetbox_ca_file = \"ca.pem\"\nnetbox_pin = \"{PIN}\"");
    assert!(of(&many).contains("more than one of netbox_ca_file and netbox_pin"), "{}", of(&many));
    for key in ["ca_file = \"ca.pem\"".to_owned(), format!("pin = \"{PIN}\"")] {
        let plain = format!("netbox_listen = \"127.0.0.1:1\"\nnetbox_url = \"http://nb\"\nnetbox_{key}");
        assert!(of(&plain).contains("and its netbox_url is http: use https"), "{}", of(&plain));
    }
    let half = "netbox_listen = \"127.0.0.1:1\"\nnetbox_client_key = \"k.pem\"";
    assert!(of(half).starts_with("backend.netbox_client_certificate is not set"), "{}", of(half));
    let half = "netbox_listen = \"127.0.0.1:1\"\nnetbox_certificate = \"c.pem\"";
    assert!(of(half).starts_with("backend.netbox_key is not set"), "{}", of(half));
    let same = of("listen = \"127.0.0.1:8803\"\nnetbox_listen = \"127.0.0.1:8803\"");
    assert!(same.contains("must not share an address and port"), "{same}");
    let both = |one: &str, other: &str| {
        of(&format!(
            "name = \"a\"\nhosts = [\"a\"]\nnetbox_listen = \"{one}\"\n[[backend]]\nname = \"b\"\nhosts = [\"b\"]\n\
             url = \"http://b\"\nnetbox_listen = \"{other}\""
        ))
    };
    assert!(both("127.0.0.1:0", "127.0.0.1:0").contains("must not share an address and port"));
    assert_eq!(both("127.0.0.1:0", "127.0.0.2:0"), "");
}

#[test]
fn proxies_are_trusted_by_address_or_network() {
    let trusted =
        |text: &str| minimal().env("TRUSTED_PROXIES", text).load().map(|config| config.trusted_proxies);
    assert_eq!(
        trusted("10.0.0.0/8, ::1").unwrap(),
        ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]
    );
    assert_eq!(
        trusted("::ffff:192.0.2.7, ::ffff:10.0.0.0/104, ::/0").unwrap(),
        ["192.0.2.7/32", "10.0.0.0/8", "::/0"].map(|network| network.parse().unwrap()),
        "clients have no IPv4-mapped addresses"
    );
    assert_eq!(trusted("").unwrap(), []);
    assert!(trusted("proxy.example").is_err() && trusted("10.0.0.0/33").is_err());
}

/// The lines `key = value` of a sample with the names that they set, commented out or not.
fn assignments(text: &str) -> Vec<(String, String)> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = format!("{}.", name.trim_matches(['[', ']']));
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((name, value)) = line.split_once(" = ").filter(|(name, _)| !name.contains(' ')) {
            found.push((format!("{table}{name}"), value.to_owned()));
        }
    }
    found
}

#[test]
fn an_admin_listener_that_others_reach_wants_a_token_that_cannot_be_guessed() {
    for address in ["0.0.0.0:8801", "[::]:8801", "192.0.2.1:8801"] {
        let error = minimal().env("ADMIN_LISTEN", address).error();
        assert!(error.contains("not a loopback address: set admin_token_file"), "{error}");
        assert!(minimal().env("ADMIN_LISTEN", address).env("ADMIN_TOKEN_FILE", "token").load().is_ok());
    }
    for address in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(minimal().env("ADMIN_LISTEN", address).load().is_ok(), "{address}");
    }
    let error = minimal().env("ADMIN_TOKEN_FILE", "key").error();
    assert_eq!(
        error,
        "admin_token_file: the token has fewer than 16 characters; `openssl rand -hex 32` makes one"
    );
    let error = minimal().env("ADMIN_TOKEN_FILE", "missing").error();
    assert!(error.starts_with("PROXBOX_BRIDGE_ADMIN_TOKEN_FILE: admin_token_file: cannot read"), "{error}");
}
