//! Chooses how to drive a backend, by its capabilities.

use std::fmt;

use super::capabilities::{Capabilities, SocketSupport};
use crate::core::domain::channel::{Channel, ChannelChoice};
use crate::core::domain::kind::{FULL_UPDATE, Kind, SyncEndpoint, WsCommand};
use crate::core::domain::release::Release;

/// One connection to the backend and its purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The endpoint whose stream or plain answer is read.
    pub endpoint: SyncEndpoint,
    /// The stages it runs.
    pub kinds: Vec<Kind>,
    /// The channel that drives it.
    pub channel: Channel,
    /// The command, for a leg over `/ws`.
    pub command: Option<WsCommand>,
}

impl Leg {
    /// The path to request from the backend.
    pub fn path(&self) -> String {
        match self.channel {
            Channel::Native => self.endpoint.stream_path(),
            Channel::Websocket => "/ws".to_owned(),
            Channel::Json => self.endpoint.json_path(),
        }
    }

    fn new(endpoint: SyncEndpoint, channel: Channel) -> Self {
        let command = endpoint.kind.row().command.filter(|_| channel == Channel::Websocket);
        Self { endpoint, kinds: vec![endpoint.kind], channel, command }
    }
}

/// How a run is driven: its legs, and the stages it skips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// The connections, in order.
    pub legs: Vec<Leg>,
    /// The stages that the backend does not support.
    pub skipped: Vec<Kind>,
}

/// The backend does not support the requested sync on any allowed channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoChannel {
    /// The requested endpoint.
    pub endpoint: SyncEndpoint,
    /// The syncs that the backend supports, with their channels.
    pub has: Vec<(Kind, Channel)>,
    /// Whether its `/ws` would serve the request if it were enabled.
    pub socket_denied: bool,
}

impl fmt::Display for NoChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = if self.endpoint.vm.is_some() { " of a single virtual machine" } else { "" };
        write!(f, "This backend cannot synchronise {}{one}.", self.endpoint.kind.row().title)?;
        if self.socket_denied {
            f.write_str(" Its /ws is switched off (start it with PROXBOX_EXECUTION_MODE=legacy to use it).")?;
        }
        if self.has.is_empty() {
            return f.write_str(" It has no sync that the allowed channels can drive.");
        }
        let has: Vec<String> = self.has.iter().map(|(kind, channel)| format!("{kind} ({channel})")).collect();
        write!(f, " It has: {}.", has.join(", "))
    }
}

/// The streams that must be probed before `endpoint` can be planned.
pub fn needed_streams(
    endpoint: SyncEndpoint,
    capabilities: &Capabilities,
    choice: ChannelChoice,
) -> Vec<SyncEndpoint> {
    if !choice.allows(Channel::Native) {
        return Vec::new();
    }
    let composed = endpoint.kind == Kind::FullUpdate && capabilities.stream(endpoint) == Some(false);
    let stages = FULL_UPDATE.into_iter().map(SyncEndpoint::for_kind).filter(|_| composed);
    std::iter::once(endpoint)
        .chain(stages)
        .filter(|endpoint| capabilities.stream(*endpoint).is_none())
        .collect()
}

/// Plans how to drive `endpoint` on a backend with these capabilities.
///
/// # Errors
///
/// [`NoChannel`] if no allowed channel serves any part of it.
pub fn plan(
    endpoint: SyncEndpoint,
    capabilities: &Capabilities,
    choice: ChannelChoice,
) -> Result<RunPlan, NoChannel> {
    if endpoint.kind != Kind::FullUpdate
        || capabilities.stream(endpoint) == Some(true) && choice.allows(Channel::Native)
    {
        let channel = choose_channel(endpoint, capabilities, choice);
        let channel = channel.ok_or_else(|| no_channel(endpoint, capabilities, choice))?;
        let skipped = omitted_stages(endpoint, capabilities);
        return Ok(RunPlan { legs: vec![Leg::new(endpoint, channel)], skipped });
    }
    let mut legs: Vec<Leg> = Vec::new();
    let mut skipped = Vec::new();
    for stage in FULL_UPDATE.map(SyncEndpoint::for_kind) {
        let Some(channel) = choose_channel(stage, capabilities, choice) else {
            skipped.push(stage.kind);
            continue;
        };
        match legs.last_mut() {
            // One command runs both stages on one snapshot of the cluster.
            Some(last)
                if [last.channel, channel] == [Channel::Websocket; 2]
                    && last.kinds == [Kind::Devices]
                    && stage.kind == Kind::VirtualMachines =>
            {
                last.kinds.push(stage.kind);
                last.command = Some(WsCommand::FullUpdate);
            }
            _ => legs.push(Leg::new(stage, channel)),
        }
    }
    if legs.is_empty() {
        return Err(no_channel(endpoint, capabilities, choice));
    }
    Ok(RunPlan { legs, skipped })
}

/// The first release whose full update has all documented stages but the last two, and the first release that has
/// those too.
const FULLER_UPDATE: Release = Release::new(0, 0, 5);
const FULLEST_UPDATE: Release = Release::new(0, 0, 6);

/// The stages that the full update of an old release silently omits.
fn omitted_stages(endpoint: SyncEndpoint, capabilities: &Capabilities) -> Vec<Kind> {
    let Some(release) = capabilities.release.filter(|_| endpoint.kind == Kind::FullUpdate) else {
        return Vec::new();
    };
    let done: &[Kind] = match release {
        release if release >= FULLEST_UPDATE => &FULL_UPDATE,
        release if release >= FULLER_UPDATE => &FULL_UPDATE[..6],
        _ => &[Kind::Devices, Kind::VirtualMachines],
    };
    FULL_UPDATE.into_iter().filter(|kind| !done.contains(kind)).collect()
}

fn choose_channel(
    endpoint: SyncEndpoint,
    capabilities: &Capabilities,
    choice: ChannelChoice,
) -> Option<Channel> {
    let row = endpoint.kind.row();
    let whole = endpoint.vm.is_none();
    let is_idle = row.idle_before.zip(capabilities.release).is_some_and(|(first, release)| release < first);
    let native = capabilities.stream(endpoint) == Some(true) && !is_idle;
    let websocket = whole
        && row.command.is_some()
        && capabilities.socket == SocketSupport::Presumed
        && (capabilities.dialect().is_some() || capabilities.release.is_none());
    let json = whole && capabilities.release.is_some_and(|release| row.has_json(release));
    [(Channel::Native, native), (Channel::Websocket, websocket), (Channel::Json, json)]
        .into_iter()
        .find(|(channel, there)| *there && choice.allows(*channel))
        .map(|(channel, _)| channel)
}

fn no_channel(endpoint: SyncEndpoint, capabilities: &Capabilities, choice: ChannelChoice) -> NoChannel {
    let channel = |kind| Some((kind, choose_channel(SyncEndpoint::for_kind(kind), capabilities, choice)?));
    let has = Kind::all().filter(|kind| *kind != Kind::FullUpdate).filter_map(channel).collect();
    let socket_denied = capabilities.socket == SocketSupport::Denied
        && endpoint.kind.row().command.is_some()
        && choice.allows(Channel::Websocket);
    NoChannel { endpoint, has, socket_denied }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(kind: Kind, release: &str, streams: &[Kind]) -> Result<RunPlan, NoChannel> {
        let capabilities = Capabilities::with_streams(release, streams);
        plan(SyncEndpoint::for_kind(kind), &capabilities, ChannelChoice::Auto)
    }

    fn channels(plan: &RunPlan) -> Vec<(Channel, &[Kind])> {
        plan.legs.iter().map(|leg| (leg.channel, leg.kinds.as_slice())).collect()
    }

    #[test]
    fn a_full_update_of_0_0_2_is_one_command_and_names_what_is_missing() {
        let plan = planned(Kind::FullUpdate, "0.0.2", &[]).unwrap();
        assert_eq!(channels(&plan), [(Channel::Websocket, &[Kind::Devices, Kind::VirtualMachines][..])]);
        assert_eq!(plan.legs[0].command, Some(WsCommand::FullUpdate));
        let done = [Kind::Devices, Kind::VirtualMachines];
        let missing = FULL_UPDATE.into_iter().filter(|kind| !done.contains(kind));
        assert_eq!(plan.skipped, missing.collect::<Vec<_>>());
    }

    #[test]
    fn a_stage_between_devices_and_virtual_machines_keeps_its_place() {
        assert_eq!(
            channels(&planned(Kind::FullUpdate, "0.0.6", &[Kind::Storage]).unwrap()),
            [
                (Channel::Websocket, &[Kind::Devices][..]),
                (Channel::Native, &[Kind::Storage][..]),
                (Channel::Websocket, &[Kind::VirtualMachines][..]),
                (Channel::Json, &[Kind::VirtualDisks][..]),
                (Channel::Json, &[Kind::Backups][..]),
                (Channel::Json, &[Kind::Snapshots][..])
            ]
        );
    }

    #[test]
    fn a_native_stream_is_preferred_and_a_choice_is_kept() {
        let capabilities = Capabilities::with_streams("0.0.11", &[Kind::VirtualDisks, Kind::Devices]);
        let of = |kind, choice| {
            plan(SyncEndpoint::for_kind(kind), &capabilities, choice).map(|plan| plan.legs[0].channel)
        };
        assert_eq!(of(Kind::VirtualDisks, ChannelChoice::Auto), Ok(Channel::Native));
        assert_eq!(of(Kind::VirtualDisks, ChannelChoice::Only(Channel::Json)), Ok(Channel::Json));
        assert!(of(Kind::VirtualDisks, ChannelChoice::Only(Channel::Websocket)).is_err());
        assert_eq!(of(Kind::Devices, ChannelChoice::Only(Channel::Websocket)), Ok(Channel::Websocket));
    }

    #[test]
    fn a_plain_endpoint_that_does_nothing_is_not_used() {
        assert_eq!(
            planned(Kind::VirtualDisks, "0.0.3", &[Kind::Devices]).unwrap_err().to_string(),
            "This backend cannot synchronise virtual disks. It has: devices (native), \
             virtual-machines (websocket)."
        );
    }

    #[test]
    fn what_the_full_update_of_an_old_release_leaves_out_is_named() {
        let skipped = |release| planned(Kind::FullUpdate, release, &[Kind::FullUpdate]).unwrap().skipped;
        assert_eq!(skipped("0.0.4").len(), 6);
        assert_eq!(skipped("0.0.5"), [Kind::Replications, Kind::BackupRoutines]);
        assert_eq!(skipped("0.0.6.post4"), []);
    }

    #[test]
    fn a_stream_that_does_nothing_or_whose_path_is_that_of_one_virtual_machine_is_not_used() {
        // `/virtualization/virtual-machines/{id}/create/stream` also answers HEAD for `task-history`.
        for (kind, before, since) in [
            (Kind::Snapshots, "0.0.4", "0.0.5"),
            (Kind::VirtualDisks, "0.0.5", "0.0.6"),
            (Kind::Storage, "0.0.5", "0.0.6"),
            (Kind::VmInterfaces, "0.0.5", "0.0.6"),
            (Kind::TaskHistory, "0.0.6.post4", "0.0.7"),
        ] {
            let works = [before, since].map(|release| planned(kind, release, &[kind]).is_ok());
            assert_eq!(works, [false, true], "{kind}");
        }
        assert!(planned(Kind::Backups, "0.0.4", &[Kind::Backups]).is_ok());
    }

    #[test]
    fn a_full_update_without_its_stream_needs_every_stage_to_be_known() {
        let endpoint = SyncEndpoint::for_kind(Kind::FullUpdate);
        let mut capabilities = Capabilities::default();
        assert_eq!(needed_streams(endpoint, &capabilities, ChannelChoice::Auto), [endpoint]);
        capabilities.streams.insert(endpoint, false);
        assert_eq!(needed_streams(endpoint, &capabilities, ChannelChoice::Auto).len(), FULL_UPDATE.len());
        capabilities.streams.insert(endpoint, true);
        assert_eq!(needed_streams(endpoint, &capabilities, ChannelChoice::Auto), []);
    }

    #[test]
    fn only_devices_over_the_socket_are_one_command_with_virtual_machines() {
        let plan = planned(Kind::FullUpdate, "0.0.4", &[Kind::Devices]).unwrap();
        let machines = (Channel::Websocket, &[Kind::VirtualMachines][..]);
        assert!(channels(&plan).contains(&(Channel::Native, &[Kind::Devices])), "{plan:?}");
        assert!(channels(&plan).contains(&machines), "{plan:?}");
    }

    #[test]
    fn a_socket_that_is_switched_off_is_named_but_not_for_a_kind_that_it_never_had() {
        let known =
            Capabilities { socket: SocketSupport::Denied, ..Capabilities::with_streams("0.0.30", &[]) };
        let socket = ChannelChoice::Only(Channel::Websocket);
        for (kind, choice, socket_denied) in [
            (Kind::Devices, ChannelChoice::Auto, true),
            (Kind::Sdn, ChannelChoice::Auto, false),
            (Kind::Devices, socket, true),
        ] {
            let refused = plan(SyncEndpoint::for_kind(kind), &known, choice).unwrap_err();
            assert_eq!(refused.socket_denied, socket_denied, "{kind}");
            let is_named = refused.to_string().contains("PROXBOX_EXECUTION_MODE=legacy");
            assert_eq!(is_named, socket_denied, "{refused}");
        }
    }
}
