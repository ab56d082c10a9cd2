//! Policies: which failed objects fail a run, unsupported syncs, and the meaning of endpoint ids.

use std::fmt;
use std::str::FromStr;

use crate::core::domain::kind::Kind;
use crate::core::text::string_enum::string_enum;

string_enum! {
    /// Which failed objects fail their run.
    ///
    /// Under every policy, a run fails if the backend reports a failure or disconnects.
    #[derive(Default)]
    pub enum ObjectFailures {
        /// A run fails if objects failed and none completed. This applies to all its objects together and to the objects
        /// of each documented kind. A run of another kind keeps the backend's result.
        #[default]
        All = "all",
        /// A run fails if any object failed.
        Any = "any",
        /// A run keeps the backend's result, whichever objects failed.
        Never = "never",
    }
}

/// The policies of all kinds of sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailurePolicies {
    /// The policy of kinds without an override.
    pub default: ObjectFailures,
    /// The policies of single kinds.
    pub overrides: Vec<(Kind, ObjectFailures)>,
}

impl FailurePolicies {
    /// The policy of `kind`.
    pub fn for_kind(&self, kind: Kind) -> ObjectFailures {
        self.override_for(kind).unwrap_or(self.default)
    }

    /// The own policy of `kind`, if it has one.
    pub fn override_for(&self, kind: Kind) -> Option<ObjectFailures> {
        self.overrides.iter().find(|(known, _)| *known == kind).map(|(_, policy)| *policy)
    }
}

impl From<ObjectFailures> for FailurePolicies {
    fn from(others: ObjectFailures) -> Self {
        Self { default: others, overrides: Vec::new() }
    }
}

impl FromStr for FailurePolicies {
    type Err = UnknownPolicy;

    /// Parses `all` and `all, backup-routines=any`.
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let mut parts = text.split(',').map(str::trim);
        let parse = |policy: &str| ObjectFailures::from_name(policy).ok_or(UnknownPolicy);
        let default = parse(parts.next().unwrap_or_default())?;
        let mut policies = Self { default, overrides: Vec::new() };
        for part in parts {
            let (kind, policy) = part.split_once('=').ok_or(UnknownPolicy)?;
            // A kind whose objects are not counted has nothing to judge by.
            let is_judged = |kind: &Kind| kind.row().is_counted() || *kind == Kind::FullUpdate;
            let kind = Kind::from_name(kind.trim()).filter(is_judged).ok_or(UnknownPolicy)?;
            if policies.override_for(kind).is_some() {
                return Err(UnknownPolicy);
            }
            policies.overrides.push((kind, parse(policy.trim())?));
        }
        Ok(policies)
    }
}

impl fmt::Display for FailurePolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.default.fmt(f)?;
        self.overrides.iter().try_for_each(|(kind, policy)| write!(f, ", {kind}={policy}"))
    }
}

/// The text is not the name of a policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of all, any and never, with KIND=POLICY for single kinds behind it")]
pub struct UnknownPolicy;

string_enum! {
    /// How a sync that the backend does not support is answered.
    #[derive(Default)]
    pub enum UnsupportedPolicy {
        /// A stage that the NetBox plugin requires is skipped visibly if it follows others in one job. Everything else is
        /// refused with status 404. The plugin treats 404 as a warning for stages it does not require.
        #[default]
        Auto = "auto",
        /// The request is refused with status 404.
        Refuse = "refuse",
        /// The request is answered with a stream that completes and reports that nothing was done.
        Skip = "skip",
    }
}

string_enum! {
    /// Which ids clients send as `proxmox_endpoint_ids`.
    #[derive(Default)]
    pub enum EndpointIds {
        /// Ids of the backend's database, as sent by plugins since 0.0.20.
        #[default]
        Backend = "backend",
        /// Primary keys of NetBox, as sent by plugins 0.0.11 to 0.0.19.
        Plugin = "plugin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_its_policy() {
        for (policy, word) in ObjectFailures::ALL.into_iter().zip(ObjectFailures::NAMES) {
            assert_eq!(word.parse(), Ok(policy));
            assert_eq!(policy.to_string(), word);
        }
        assert_eq!(ObjectFailures::from_name("ALL"), None);
        for (choice, word) in UnsupportedPolicy::ALL.into_iter().zip(UnsupportedPolicy::NAMES) {
            assert_eq!(word.parse(), Ok(choice));
            assert_eq!(choice.to_string(), word);
        }
        let unknown = "sse".parse::<UnsupportedPolicy>().unwrap_err();
        assert_eq!(unknown.to_string(), "not one of: auto, refuse, skip");
        assert_eq!("plugin".parse(), Ok(EndpointIds::Plugin));
    }

    #[test]
    fn a_kind_may_have_a_policy_of_its_own() {
        let policies: FailurePolicies = "never, backup-routines=any,snapshots = all".parse().unwrap();
        assert_eq!(policies.for_kind(Kind::BackupRoutines), ObjectFailures::Any);
        assert_eq!(policies.for_kind(Kind::Snapshots), ObjectFailures::All);
        assert_eq!(policies.for_kind(Kind::Devices), ObjectFailures::Never);
        let has_override = [Kind::Snapshots, Kind::Devices].map(|kind| policies.override_for(kind).is_some());
        assert_eq!(has_override, [true, false]);
        assert_eq!("any".parse(), Ok(FailurePolicies::from(ObjectFailures::Any)));
        for text in [
            "all, task-history=any", "all, sdn=any, sdn=never", "", "all,", "snapshots=any",
            "all, snapshot=any", "all, snapshots=some", "all, any",
        ] {
            assert_eq!(text.parse::<FailurePolicies>(), Err(UnknownPolicy), "{text}");
        }
    }
}
