//! Settings from the environment and from flags.

use super::flags::Flags;
use super::key::{ConfigKey, PREFIX};
use super::problem::{ConfigProblem, ValueOrigin, did_you_mean, suggest};
use super::schema::keys;

/// A value for a key.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) key: &'static ConfigKey,
    pub(super) origin: ValueOrigin,
    pub(super) text: String,
    /// The value as a message shows it.
    pub(super) shown: String,
    /// The index of the `[[backend]]` or `[[notify]]` that it is for, if it is for one.
    pub(super) block: Option<usize>,
}

/// The settings of one source, in its order.
pub(super) type SourceSettings = Vec<Result<Setting, ConfigProblem>>;

/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "PROXBOX_BRIDGE_CONFIG";
/// The variable of the log filter, which is read before the configuration.
pub const LOG_VARIABLE: &str = "PROXBOX_BRIDGE_LOG";
/// The variable with the token that subcommands send to the admin listener of a running bridge.
pub const TOKEN_VARIABLE: &str = "PROXBOX_BRIDGE_ADMIN_TOKEN";
/// The variables of the bridge that set no key.
const OTHER_VARIABLES: [&str; 3] = [CONFIG_VARIABLE, LOG_VARIABLE, TOKEN_VARIABLE];

/// Reads the settings in the variables of the bridge, in the order of their names.
pub(super) fn environment(variables: &[(String, String)]) -> SourceSettings {
    let mut ours: Vec<_> = variables.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    ours.sort();
    let mut found = SourceSettings::new();
    for (name, value) in ours {
        if OTHER_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        match keys().find(|key| key.variable() == *name) {
            Some(key) => found.push(Ok(setting(key, ValueOrigin::Variable(name.clone()), value))),
            None if is_service_link(name, value) => {}
            None => found.push(Err(ConfigProblem::BadSetting {
                origin: ValueOrigin::Variable(name.escape_debug().to_string()),
                message: format!("unknown variable{}", did_you_mean(hint(name))),
            })),
        }
    }
    found
}

fn hint(name: &str) -> Option<String> {
    let others = OTHER_VARIABLES.map(str::to_owned);
    let variables: Vec<String> = keys().map(ConfigKey::variable).chain(others).collect();
    // The common prefix would make every name near.
    let ends = variables.iter().filter_map(|name| name.strip_prefix(PREFIX));
    let near = suggest(name.strip_prefix(PREFIX)?, ends)?;
    Some(format!("`{PREFIX}{near}`"))
}

/// Whether Kubernetes set the variable. It sets variables in every container for each service of its namespace
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>). Those of a service with
/// the name `proxbox-bridge` or `proxbox-bridge-admin` have the prefix of the bridge.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = value.contains("://");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_url)
        || name.rsplit_once("_PORT_").is_some_and(|(_, end)| is_port_of_service(end))
}

/// Whether `end` is what follows `_PORT_` in such a name: `8800_TCP`, `8800_TCP_ADDR`.
fn is_port_of_service(end: &str) -> bool {
    let mut parts = end.split('_');
    let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
    let protocol = parts.next().is_some_and(|part| matches!(part, "TCP" | "UDP" | "SCTP"));
    let field = parts.next().is_none_or(|part| matches!(part, "ADDR" | "PORT" | "PROTO"));
    number && protocol && field && parts.next().is_none()
}

/// Reads the settings of the flags.
pub(super) fn flags(flags: &Flags) -> SourceSettings {
    let present = keys().filter_map(|key| key.flag.and_then(|flag| Some((key, flag, flags.value(flag)?))));
    present.map(|(key, flag, value)| Ok(setting(key, ValueOrigin::Flag(flag), value))).collect()
}

fn setting(key: &'static ConfigKey, origin: ValueOrigin, value: &str) -> Setting {
    Setting { key, origin, text: value.to_owned(), shown: format!("{value:?}"), block: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_services_are_recognised() {
        for (name, value) in [
            ("PROXBOX_BRIDGE_SERVICE_HOST", "10.43.0.7"),
            ("PROXBOX_BRIDGE_SERVICE_PORT", "8800"),
            ("PROXBOX_BRIDGE_SERVICE_PORT_HTTP", "8800"),
            ("PROXBOX_BRIDGE_PORT", "tcp://10.43.0.7:8800"),
            ("PROXBOX_BRIDGE_PORT_8800_TCP", "tcp://10.43.0.7:8800"),
            ("PROXBOX_BRIDGE_PORT_8800_TCP_PROTO", "tcp"),
            ("PROXBOX_BRIDGE_PORT_8800_TCP_PORT", "8800"),
            ("PROXBOX_BRIDGE_ADMIN_PORT_8801_TCP_ADDR", "10.43.0.8"),
            ("PROXBOX_BRIDGE_ADMIN_SERVICE_HOST", "10.43.0.8"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in [
            ("PROXBOX_BRIDGE_PORT", "8800"),
            ("PROXBOX_BRIDGE_BACKEND_PORT", "8800"),
            ("PROXBOX_BRIDGE_PORT_HTTP", "8800"),
            ("PROXBOX_BRIDGE_PORT_8800_TCP_NAME", "8800"),
            ("PROXBOX_BRIDGE_LISTEM", "tcp://x"),
        ] {
            assert!(!is_service_link(name, value), "{name}");
        }
    }
}
