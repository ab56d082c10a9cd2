use crate::core::compat::plugin::*;

fn endings(capabilities: &Capabilities, settings: &ForecastSettings) -> [JobEnding; 3] {
    let verdicts = forecast(capabilities, settings).unwrap().verdicts;
    [verdicts[0].ending, verdicts[1].ending, verdicts[2].ending]
}

const SHIPPED: ForecastSettings = ForecastSettings {
    on: [true; Shim::ALL.len()],
    unsupported: UnsupportedPolicy::Auto,
    channel: ChannelChoice::Auto,
    netbox_listener: None,
};

const OF_0_0_6: [Kind; 10] = [
    Kind::Devices,
    Kind::Storage,
    Kind::VirtualMachines,
    Kind::VirtualDisks,
    Kind::Backups,
    Kind::Snapshots,
    Kind::FullUpdate,
    Kind::DeviceInterfaces,
    Kind::VmInterfaces,
    Kind::IpAddresses,
];

#[test]
fn jobs_end_as_they_did_in_netbox() {
    use JobEnding::{Completed, CompletedWithWarnings, Errored};
    let all: Vec<Kind> = Kind::all().collect();
    for (known, expected) in [
        (Capabilities::with_streams("0.0.2.post1", &[]), [Errored, Errored, Errored]),
        (
            Capabilities::with_streams("0.0.3", &[Kind::Devices, Kind::VirtualMachines]),
            [Errored, Errored, Errored],
        ),
        (Capabilities::with_streams("0.0.6.post4", &OF_0_0_6), [Completed, Completed, CompletedWithWarnings]),
        (Capabilities::with_streams("0.0.11.post2", &all), [Completed; 3]),
        (Capabilities::with_streams("0.0.19.post5", &all), [Completed; 3]),
    ] {
        assert_eq!(endings(&known, &SHIPPED), expected, "{:?}", known.release);
    }
    assert_eq!(forecast(&Capabilities::default(), &SHIPPED), None);
    let reported = |release: &str| Capabilities { release: release.parse().ok(), ..Capabilities::default() };
    assert_eq!(forecast(&reported("0.0.6"), &SHIPPED), None, "it may lack any stream");
    assert_eq!(endings(&reported("0.0.19"), &SHIPPED), [Completed; 3]);
}

#[test]
fn a_netbox_listener_lets_jobs_of_0_0_1_run_on_the_port_that_it_reaches() {
    let [completed, errored] = [JobEnding::CompletedWithWarnings, JobEnding::Errored];
    let known = Capabilities::with_streams("0.0.1", &[]);
    for (port, ending) in [(None, errored), (Some(8803), errored), (Some(8000), completed)] {
        let listener = |port| ListenerAddress { port, speaks_tls: false };
        let settings = ForecastSettings { netbox_listener: port.map(listener), ..SHIPPED };
        assert_eq!(endings(&known, &settings)[2], ending, "{port:?}");
    }
    let settings = ForecastSettings {
        netbox_listener: Some(ListenerAddress { port: 8803, speaks_tls: false }),
        ..SHIPPED
    };
    let because = forecast(&known, &settings).unwrap().verdicts[0].because.join(" ");
    assert!(because.contains("only on port 8000"), "{because}");
}

#[test]
fn what_is_switched_off_fails_and_is_named() {
    use JobEnding::{Completed, CompletedWithWarnings, Errored};
    let capabilities = Capabilities::with_streams("0.0.6.post4", &OF_0_0_6);
    for (shim, expected) in [
        (Shim::Inventory, [Errored; 3]),
        (Shim::Health, [Completed, Completed, CompletedWithWarnings]),
        (Shim::VmIds, [Completed, Errored, Errored]),
    ] {
        let mut settings = SHIPPED;
        settings.on[shim as usize] = false;
        assert_eq!(endings(&capabilities, &settings), expected, "{shim}");
        let because = forecast(&capabilities, &settings).unwrap().verdicts[2].because.join(" ");
        let is_named = because.contains(&format!("shims.{shim} is off"));
        assert_eq!(is_named, expected[2] == Errored, "{because}");
    }
    let refusing = ForecastSettings { unsupported: UnsupportedPolicy::Refuse, ..SHIPPED };
    assert_eq!(endings(&capabilities, &refusing), [Completed, Completed, Errored]);
}

#[test]
fn a_stage_of_a_longer_job_is_recognised_by_the_stages_before() {
    use Kind::{Devices, Sdn, Storage, VirtualMachines};
    assert!(continues_job(&[Devices], Storage));
    assert!(continues_job(&[Devices, VirtualMachines], Sdn));
    assert!(continues_job(&[Devices, Storage], Storage), "it is tried again");
    assert!(!continues_job(&[], Storage));
    assert!(continues_job(&[VirtualMachines], Kind::VirtualDisks));
    assert!(!continues_job(&[Storage], VirtualMachines));
    assert!(!continues_job(&[Devices, VirtualMachines], Storage));
    assert!(!continues_job(&[Devices, VirtualMachines, Storage], Sdn));
}

const LISTENER: ListenerAddress = ListenerAddress { port: 8803, speaks_tls: false };

fn local<'a>(release: &str, settings: &'a ForecastSettings) -> ForecastBuilder<'a> {
    let release = release.parse().unwrap();
    let mut job =
        ForecastBuilder { release, settings, requests: Vec::new(), fatal: Vec::new(), harm: Vec::new() };
    job.preflight();
    job.local_phases();
    job
}

#[test]
fn the_requests_around_the_stages_meet_what_their_release_can_do() {
    const LISTENING: ForecastSettings = ForecastSettings { netbox_listener: Some(LISTENER), ..SHIPPED };
    use RequestHandling::{Answered, Failed, Shimmed};
    for (release, settings, request, expected) in [
        ("0.0.6.post4", &SHIPPED, "/auth/keys", Shimmed(ShimAction::Emulated)),
        ("0.0.7", &SHIPPED, "/auth/keys", Answered),
        ("0.0.5", &SHIPPED, "GET /health", Shimmed(ShimAction::Emulated)),
        ("0.0.6", &SHIPPED, "GET /health", Answered),
        ("0.0.2", &SHIPPED, "/proxmox/cluster/status", Shimmed(ShimAction::Refused)),
        ("0.0.2", &LISTENING, "/proxmox/cluster/status", Shimmed(ShimAction::Translated)),
        ("0.0.2", &SHIPPED, "/qemu/900/config", Failed),
        ("0.0.7", &SHIPPED, "/qemu/900/config", Shimmed(ShimAction::Translated)),
        ("0.0.20", &SHIPPED, "/qemu/900/config", Answered),
    ] {
        let job = local(release, settings);
        let of_request = job.requests.iter().find(|known| known.request.contains(request));
        assert_eq!(of_request.map(|known| known.treatment), Some(expected), "{request} on {release}");
    }
}

#[test]
fn templates_that_a_job_would_delete_are_a_harm_where_they_are_not_looked_up() {
    let mut off = SHIPPED;
    off.on[Shim::Templates as usize] = false;
    for (release, settings, harms) in
        [("0.0.5", &SHIPPED, false), ("0.0.5", &off, true), ("0.0.6", &off, false)]
    {
        assert_eq!(!local(release, settings).harm.is_empty(), harms, "{release}");
    }
}

#[test]
fn the_requirements_on_netbox_are_listed_for_the_releases_that_have_them() {
    let listening = ForecastSettings { netbox_listener: Some(LISTENER), ..SHIPPED };
    let mut narrowed = listening;
    narrowed.on[Shim::LastUpdated as usize] = false;
    for (release, settings, expected) in [
        ("0.0.2", &SHIPPED, [false; 4]),
        ("0.0.4", &SHIPPED, [false, true, false, false]),
        ("0.0.5", &SHIPPED, [true, true, true, false]),
        ("0.0.6", &SHIPPED, [true, true, true, false]),
        ("0.0.6", &listening, [false, true, true, false]),
        ("0.0.7", &narrowed, [true, true, false, false]),
        ("0.0.8", &narrowed, [false, true, false, false]),
        ("0.0.29", &SHIPPED, [false; 4]),
        ("0.0.30", &SHIPPED, [false, false, false, true]),
    ] {
        let conditions_of_release = conditions(release.parse().unwrap(), settings);
        let about = ["proxmox_last_updated", "backups and snapshots", "stage of storages", "superuser"];
        let is_listed =
            about.map(|about| conditions_of_release.iter().any(|condition| condition.contains(about)));
        assert_eq!(is_listed, expected, "{release}: {conditions_of_release:?}");
    }
}

#[test]
fn the_button_for_virtual_machines_synchronises_their_disks_too() {
    let refusing = ForecastSettings {
        unsupported: UnsupportedPolicy::Refuse,
        channel: ChannelChoice::Only(Channel::Native),
        ..SHIPPED
    };
    let without_disks = OF_0_0_6.into_iter().filter(|kind| *kind != Kind::VirtualDisks).collect::<Vec<_>>();
    let known = Capabilities::with_streams("0.0.6.post4", &without_disks);
    assert_eq!(endings(&known, &refusing)[..2], [JobEnding::Completed, JobEnding::Errored]);
}
