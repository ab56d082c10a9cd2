//! Forecasts a job of the newest NetBox plugin for a given backend: its requests in order, how each is handled, and
//! how the NetBox job ends.

#[cfg(test)]
mod tests;

use serde::{Serialize, Serializer};

use super::netbox::{ListenerAddress, NARROW_FIELD, WITH_SYNC_PROCESSES, cannot_reach};
use super::scope::{EndpointSelector, harms_others, is_first, prunes_others};
use super::{Shim, ShimAction, is_within, needs_vm_ids, release_name, resources, rows};
use crate::core::domain::channel::{Channel, ChannelChoice};
use crate::core::domain::kind::{Kind, PluginStage, SyncEndpoint};
use crate::core::domain::release::Release;
use crate::core::run::capabilities::{Capabilities, FIRST_WITH_KEY, FIRST_WITH_VERSION};
use crate::core::run::plan::plan;
use crate::core::run::policy::UnsupportedPolicy;
use crate::core::text::string_enum::string_enum;

/// The plugin version that sends these requests.
const PLUGIN: &str = "0.0.29.post6";

/// The stages of its full update, in order.
const STAGES: [Kind; 13] = [
    Kind::Devices,
    Kind::Storage,
    Kind::VirtualMachines,
    Kind::TaskHistory,
    Kind::VirtualDisks,
    Kind::Backups,
    Kind::Snapshots,
    Kind::DeviceInterfaces,
    Kind::VmInterfaces,
    Kind::IpAddresses,
    Kind::Sdn,
    Kind::Replications,
    Kind::BackupRoutines,
];

/// The first release that leaves clusters alone which the plugin has not claimed for it.
const FIRST_WITH_CLAIMS: Release = Release::new(0, 0, 30);

/// How a request is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestHandling {
    /// The backend answers it unaided.
    Answered,
    /// A shim takes part in the answer.
    Shimmed(ShimAction),
    /// The backend's own failure is passed on to the plugin.
    Failed,
}

impl RequestHandling {
    /// The names of all variants.
    pub const NAMES: [&'static str; 6] =
        ["answered", "emulated", "completed", "translated", "refused", "failed"];

    /// The name of the variant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Shimmed(action) => action.as_str(),
            Self::Failed => "failed",
        }
    }
}

impl Serialize for RequestHandling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A request of the job, or several that are handled alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobRequest {
    /// Method and path.
    pub request: String,
    /// How it is handled.
    pub treatment: RequestHandling,
    /// The explanation, unless the backend answers it unaided.
    pub why: String,
}

string_enum! {
    /// The end of a NetBox job.
    #[derive(PartialOrd, Ord)]
    pub enum JobEnding {
        /// `completed`.
        Completed = "completed",
        /// `completed`, with warnings in the job's log.
        CompletedWithWarnings = "completed with warnings",
        /// `errored`.
        Errored = "errored",
    }
}

/// The end of the job that one of the plugin's buttons starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobForecast {
    /// The kind of sync.
    pub kind: Kind,
    /// The end of the job.
    pub ending: JobEnding,
    /// Why the ending is not plain `completed`.
    pub because: Vec<String>,
}

/// The forecast for one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// The plugin version.
    pub plugin: &'static str,
    /// All requests of a full update, in the order of the job.
    pub requests: Vec<JobRequest>,
    /// The endings of the jobs of three buttons: devices, virtual machines, full update.
    pub verdicts: Vec<JobForecast>,
    /// The state of NetBox that the forecast assumes.
    pub conditions: Vec<&'static str>,
}

/// The operator's settings that affect a job.
#[derive(Clone, Copy, Debug)]
pub struct ForecastSettings {
    /// Whether each shim is enabled, in the order of the shims.
    pub on: [bool; Shim::ALL.len()],
    /// How a stage that the backend lacks is handled.
    pub unsupported: UnsupportedPolicy,
    /// The channel choice for the backend.
    pub channel: ChannelChoice,
    /// The listener in front of NetBox that the backend uses (`backend.netbox_listen`).
    pub netbox_listener: Option<ListenerAddress>,
}

impl ForecastSettings {
    const fn is_on(&self, shim: Shim) -> bool {
        self.on[shim as usize]
    }

    const fn has_netbox_listener(&self) -> bool {
        self.netbox_listener.is_some()
    }
}

/// Forecasts the jobs of the newest plugin for a backend. `None` if too little is known about the backend.
pub fn forecast(capabilities: &Capabilities, settings: &ForecastSettings) -> Option<Forecast> {
    let release = capabilities.release?;
    let mut capabilities = capabilities.clone();
    for endpoint in STAGES.map(SyncEndpoint::for_kind) {
        if capabilities.stream(endpoint).is_none() {
            // A release with API keys has every stream except the newest one, which requires a key to be probed.
            let is_there = release >= FIRST_WITH_KEY && endpoint.kind != Kind::Sdn;
            if !is_there && endpoint.kind != Kind::Sdn {
                return None;
            }
            capabilities.streams.insert(endpoint, is_there);
        }
    }
    let mut job =
        ForecastBuilder { release, settings, requests: Vec::new(), fatal: Vec::new(), harm: Vec::new() };
    job.preflight();
    job.local_phases();
    let ForecastBuilder { mut requests, fatal, harm, .. } = job;
    let stages: Vec<StageForecast> =
        STAGES.into_iter().map(|kind| forecast_stage(kind, &capabilities, settings)).collect();
    requests.extend(stages.iter().map(|stage| stage.request.clone()));
    let verdict = |kind: Kind| {
        let mut verdict = JobForecast {
            kind,
            ending: JobEnding::Completed,
            because: [fatal.clone(), harm.clone()].concat(),
        };
        if !fatal.is_empty() {
            verdict.ending = JobEnding::Errored;
        }
        // If a job fails outside its stages, that is the only reason given.
        let is_part = |stage: &&StageForecast| {
            fatal.is_empty()
                && match kind {
                    Kind::FullUpdate => true,
                    // This button also syncs disks.
                    Kind::VirtualMachines => [kind, Kind::VirtualDisks].contains(&stage.kind),
                    _ => stage.kind == kind,
                }
        };
        for stage in stages.iter().filter(is_part) {
            verdict.ending = verdict.ending.max(stage.ending);
            verdict.because.extend(stage.because.clone());
        }
        verdict
    };
    Some(Forecast {
        plugin: PLUGIN,
        requests,
        verdicts: [Kind::Devices, Kind::VirtualMachines, Kind::FullUpdate].map(verdict).to_vec(),
        conditions: conditions(release, settings),
    })
}

/// Builds the part of the forecast outside the stages.
struct ForecastBuilder<'a> {
    release: Release,
    settings: &'a ForecastSettings,
    requests: Vec<JobRequest>,
    /// Why the job ends as errored, whatever the result of its stages.
    fatal: Vec<String>,
    /// Unwanted changes that the job makes in NetBox.
    harm: Vec<String>,
}

impl ForecastBuilder<'_> {
    fn push(&mut self, request: &str, treatment: RequestHandling, why: String) {
        self.requests.push(JobRequest { request: request.to_owned(), treatment, why });
    }

    fn answered(&mut self, request: &str) {
        self.push(request, RequestHandling::Answered, String::new());
    }

    /// A request whose answer needs `shim`.
    fn shimmed(&mut self, request: &str, shim: Shim, action: ShimAction, why: &str) {
        let is_on = self.settings.is_on(shim);
        let treatment = if is_on { RequestHandling::Shimmed(action) } else { RequestHandling::Failed };
        let why = if is_on { why.to_owned() } else { format!("{why}, and shims.{shim} is off") };
        self.push(request, treatment, why);
    }

    /// A request without which the job fails. Without the shim it fails for the reason `otherwise`.
    fn required(&mut self, request: &str, (shim, action): (Shim, ShimAction), why: &str, otherwise: &str) {
        if !self.settings.is_on(shim) {
            self.fatal.push(format!("{otherwise} (shims.{shim} is off)."));
        }
        self.shimmed(request, shim, action, why);
    }

    fn preflight(&mut self) {
        let release = self.release;
        let keys = "GET /auth/bootstrap-status, /auth/keys";
        if release < FIRST_WITH_KEY {
            let shim = (Shim::Auth, ShimAction::Emulated);
            self.required(keys, shim, "this release knows no keys", "The backend has no /auth/keys");
        } else {
            self.answered(keys);
        }
        let health = "GET /health";
        if release < FIRST_WITH_VERSION {
            let shim = (Shim::Health, ShimAction::Emulated);
            self.required(health, shim, "this release has no /health", "The backend has no /health");
        } else {
            self.answered(health);
        }
        let netbox = "GET, PUT /netbox/endpoint";
        if rows::can_update_netbox(release) {
            self.answered(netbox);
        } else {
            let shim = (Shim::NetboxEndpoint, ShimAction::Translated);
            let why = "the row is replaced by one with the version of its token";
            self.required(netbox, shim, why, "The backend has no way to change its NetBox endpoint");
        }
        self.fatal.extend(self.settings.netbox_listener.and_then(|listener| cannot_reach(release, listener)));
        let proxmox = "GET, PUT /proxmox/endpoints";
        if rows::stores_proxmox(release) {
            self.answered(proxmox);
        } else if self.settings.has_netbox_listener() && self.settings.is_on(Shim::ProxmoxCredentials) {
            let shim = (Shim::ProxmoxEndpoints, ShimAction::Emulated);
            let why = "kept in memory, and filled in where this release reads them in NetBox";
            self.required(proxmox, shim, why, "The backend stores no Proxmox endpoints");
        } else {
            self.fatal.push(NO_ENDPOINTS.to_owned());
            let why = "this release stores no Proxmox endpoints";
            self.shimmed(proxmox, Shim::ProxmoxEndpoints, ShimAction::Refused, why);
        }
    }

    fn local_phases(&mut self) {
        let release = self.release;
        let scoped = "GET /proxmox/cluster/status, /proxmox/nodes/";
        let (action, why) = match EndpointSelector::for_release(Some(release)) {
            EndpointSelector::Unchanged => (None, ""),
            EndpointSelector::EndpointIds => (Some(ShimAction::Translated), "requested with endpoint_ids"),
            EndpointSelector::Name => {
                (Some(ShimAction::Translated), "requested with the endpoint's name, one endpoint at a time")
            }
            EndpointSelector::Address if self.settings.has_netbox_listener() => {
                let why = "requested with the endpoint's domain or IP address, one endpoint at a time";
                (Some(ShimAction::Translated), why)
            }
            EndpointSelector::Address => {
                (Some(ShimAction::Refused), "this release does not support selecting a Proxmox endpoint")
            }
        };
        match action {
            Some(action) => self.shimmed(scoped, Shim::Scope, action, why),
            None => self.answered(scoped),
        }
        for inventory in Inventory::ALL {
            let (path, first, what) = inventory.row();
            let request = format!("GET {path}");
            if release >= first {
                self.answered(&request);
                continue;
            }
            let why = format!("an empty list: this release cannot read {what}");
            let otherwise = format!("The backend cannot read {what}");
            self.required(&request, (Shim::Inventory, ShimAction::Emulated), &why, &otherwise);
        }
        let templates = "GET /proxmox/cluster/resources?type=vm";
        if resources::drops_template(release) {
            let why = "templates are looked up node by node; refused if one guest stays unknown";
            if !self.settings.is_on(Shim::Templates) {
                self.harm.push(format!("{DELETES} (shims.{} is off).", Shim::Templates));
            }
            self.shimmed(templates, Shim::Templates, ShimAction::Completed, why);
        } else if resources::mistakes_type(release) {
            let shim = (Shim::Templates, ShimAction::Translated);
            let why = "requested without the type, which this release gets wrong";
            self.required(templates, shim, why, "The backend cannot list guests");
        } else {
            self.answered(templates);
        }
        let config = "GET /proxmox/NODE/qemu/900/config, of each template";
        if resources::refuses_config(release) {
            let why = "read from Proxmox's own path where this release refuses it";
            self.shimmed(config, Shim::Templates, ShimAction::Translated, why);
        } else if release < FIRST_WITH_KEY {
            let why = "500: NetBox leaves a template that it has as it is, and makes no new one";
            self.push(config, RequestHandling::Failed, why.to_owned());
        } else {
            self.answered(config);
        }
    }
}

const NO_ENDPOINTS: &str = "The backend reads its Proxmox credentials from NetBox, and today's plugin does not \
                            return them there. Use proxbox-api 0.0.4 or newer, or set backend.netbox_listen.";
const DELETES: &str = "The backend lists no VM template, and the job deletes those that NetBox has";

/// A stage, and its effect on the job.
struct StageForecast {
    kind: Kind,
    request: JobRequest,
    ending: JobEnding,
    because: Option<String>,
}

fn forecast_stage(kind: Kind, capabilities: &Capabilities, settings: &ForecastSettings) -> StageForecast {
    use JobEnding::{Completed, CompletedWithWarnings, Errored};
    use RequestHandling::{Answered, Failed, Shimmed};
    let release = capabilities.release;
    let lacks = format!("This backend cannot synchronise {}", kind.row().title);
    let are_processes_kept = settings.has_netbox_listener() && settings.is_on(Shim::SyncProcesses);
    let plan = plan(SyncEndpoint::for_kind(kind), capabilities, settings.channel).ok();
    let channel = plan.map(|plan| plan.legs.first().map_or(Channel::Native, |leg| leg.channel));
    let (treatment, why, ending, because) = match channel {
        Some(_) if release == Some(WITH_SYNC_PROCESSES) && !are_processes_kept => {
            let because = format!(
                "proxbox-api {WITH_SYNC_PROCESSES} records every sync in NetBox under sync-processes, which \
                 today's plugin does not have. Set backend.netbox_listen."
            );
            (Failed, "it fails in NetBox".to_owned(), Errored, Some(because))
        }
        Some(Channel::Native) if kind == Kind::VirtualMachines && needs_vm_ids(release) => {
            if settings.is_on(Shim::VmIds) {
                let why = "with an empty netbox_vm_ids, without which it fails".to_owned();
                (Shimmed(ShimAction::Translated), why, Completed, None)
            } else {
                let because =
                    format!("The backend fails without netbox_vm_ids (shims.{} is off).", Shim::VmIds);
                (Failed, because.clone(), Errored, Some(because))
            }
        }
        Some(Channel::Native) => (Answered, String::new(), Completed, None),
        Some(channel) => {
            let why = format!("driven over its {channel} channel");
            (Shimmed(ShimAction::Translated), why, Completed, None)
        }
        None if kind == Kind::Sdn => {
            let why = "this backend cannot synchronise SDN, which the plugin requests only if it is enabled";
            (Shimmed(ShimAction::Refused), why.to_owned(), Completed, None)
        }
        None => match (settings.unsupported, kind.row().plugin) {
            (UnsupportedPolicy::Skip, _) | (UnsupportedPolicy::Auto, PluginStage::Required) => {
                let why = "skipped, with a note in the log of the job".to_owned();
                (Shimmed(ShimAction::Emulated), why, CompletedWithWarnings, Some(format!("{lacks}.")))
            }
            (_, PluginStage::Optional) => {
                let why = format!("{lacks}: 404, which the plugin takes for a warning");
                (Shimmed(ShimAction::Refused), why, CompletedWithWarnings, Some(format!("{lacks}.")))
            }
            _ => {
                let because = format!("{lacks}, and the full update stops there.");
                (Shimmed(ShimAction::Refused), format!("{lacks}: 404"), Errored, Some(because))
            }
        },
    };
    let request = JobRequest { request: format!("GET {}", kind.row().stream_path), treatment, why };
    StageForecast { kind, request, ending, because }
}

/// The state of NetBox that jobs on `release` require to succeed.
fn conditions(release: Release, settings: &ForecastSettings) -> Vec<&'static str> {
    let (known, stays_wide) =
        (Some(release), settings.has_netbox_listener() && settings.is_on(Shim::LastUpdated));
    let selects_by_address = EndpointSelector::for_release(known) == EndpointSelector::Address;
    let conditions = [
        (
            is_first(known),
            "Only one Proxmox endpoint is enabled in NetBox: with several, the end of a sync cannot be detected.",
        ),
        (
            is_within(known, NARROW_FIELD) && !stays_wide,
            "NetBox's custom field proxmox_last_updated must stay assigned to all object types of the newest \
             plugin: this release narrows it at its start. backend.netbox_listen keeps it wide.",
        ),
        (
            prunes_others(known) && !selects_by_address,
            "With more than one Proxmox endpoint, backups and snapshots that Proxmox no longer has stay in NetBox: this \
             release would delete those of the other endpoints, too, so the bridge does not request it.",
        ),
        (
            harms_others(Kind::Storage, known).is_some(),
            "With more than one Proxmox endpoint, the stage of storages is skipped: this release would move those of the \
             other endpoints.",
        ),
        (
            release >= FIRST_WITH_CLAIMS,
            "The cluster in NetBox must be linked to its Proxmox cluster in the plugin, and the backend's token be a \
             superuser's: this release touches no other cluster.",
        ),
    ];
    conditions.into_iter().filter_map(|(applies, text)| applies.then_some(text)).collect()
}

/// Whether `kind` is the next stage of a job whose client has just run the stages `before`, in order. Jobs of several
/// stages begin with devices or virtual machines and omit disabled stages.
pub fn continues_job(before: &[Kind], kind: Kind) -> bool {
    let position = |kind: &Kind| STAGES.iter().position(|stage| stage == kind);
    matches!(before.first(), Some(Kind::Devices | Kind::VirtualMachines))
        && before.is_sorted_by_key(position)
        && before.last().is_some_and(|last| position(last) <= position(&kind))
}

/// Proxmox data that the plugin reads at the start of a job. An empty list leaves NetBox unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inventory {
    /// The firewall rules of clusters, nodes and guests.
    Firewalls,
    /// The CPU models of the datacenter.
    CpuModels,
}

impl Inventory {
    /// All variants.
    pub const ALL: [Self; 2] = [Self::Firewalls, Self::CpuModels];

    /// The path of the data.
    pub const fn path(self) -> &'static str {
        self.row().0
    }

    /// The path, the first release that has it, and the title.
    const fn row(self) -> (&'static str, Release, &'static str) {
        match self {
            Self::Firewalls => ("/proxmox/firewall/summary", Release::new(0, 0, 13), "firewalls"),
            Self::CpuModels => ("/proxmox/datacenter/cpu-models", Release::new(0, 0, 14), "CPU models"),
        }
    }
}

/// The notice about data that a backend of `release` cannot read. The plugin received an empty list for it.
pub fn cannot_read(missing: &[Inventory], release: Option<Release>) -> Option<String> {
    let titles: Vec<&str> = missing.iter().map(|inventory| inventory.row().2).collect();
    let (release, titles) = (release_name(release), titles.join(" and "));
    (!missing.is_empty())
        .then(|| format!("Notice: {release} cannot read {titles}. NetBox keeps what it has of them."))
}
