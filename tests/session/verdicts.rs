//! What a run is worth: by its objects, by the operator's policy, by the backend's last word.

use proxbox_bridge::core::channel::Channel;
use proxbox_bridge::core::kind::Kind;
use proxbox_bridge::core::outcome::{Cause, Outcome};
use proxbox_bridge::core::policy::ObjectFailures;
use serde_json::json;

use crate::support::backend::{
    begun, complete_ok, discovery, item, native, object_step, phase_summary, sse, step, whole,
};
use crate::support::drive::setup;
use crate::support::run::Run;

fn under(policy: ObjectFailures, events: &[String]) -> Run {
    let mut setup = setup(Kind::VirtualMachines, Channel::Native);
    setup.options.object_failures = policy;
    begun(setup).stream(&events.concat()).hang_up().run()
}

fn machines(completed: usize, failed: usize) -> Vec<String> {
    let names: Vec<String> = (0..completed + failed).map(|number| format!("vm{number:02}")).collect();
    let mut events = vec![discovery("virtual-machines", names.len() as u64)];
    for (number, name) in names.iter().enumerate() {
        let status = if number < completed { "completed" } else { "failed" };
        events.push(item("virtual-machines", status, name));
    }
    events.push(phase_summary("virtual-machines", completed as u64, failed as u64));
    events.push(complete_ok());
    events
}

#[test]
fn a_run_whose_every_object_failed_is_failed_though_the_backend_calls_it_ok() {
    let run = under(ObjectFailures::All, &machines(0, 12));
    assert!(!run.is_ok());
    assert_eq!((run.report.cause, run.report.outcome), (Some(Cause::ObjectsFailed), Outcome::Errored));
    assert_eq!(run.error().text("error"), "12 of 12 virtual_machine objects failed, none completed.");
    assert!(run.detail().contains("virtual_machine vm00: no room for vm00"), "{}", run.detail());
    assert!(
        run.message().contains("12 objects: 0 completed, 12 failed, 0 unconfirmed."),
        "{}",
        run.message()
    );
    assert_eq!(run.failed_steps().len(), 12);

    assert!(!under(ObjectFailures::Any, &machines(0, 12)).is_ok());
    assert!(under(ObjectFailures::Never, &machines(0, 12)).is_ok());
}

#[test]
fn a_run_of_which_a_part_failed_is_worth_what_the_operator_says() {
    let run = under(ObjectFailures::All, &machines(4, 8));
    assert!(run.is_ok());
    assert_eq!(
        run.message(),
        "Virtual machines sync completed. 12 objects: 4 completed, 8 failed, 0 unconfirmed."
    );
    assert_eq!(run.objects("virtual_machine"), Some([12, 4, 8, 0]));

    let run = under(ObjectFailures::Any, &machines(4, 8));
    assert!(!run.is_ok());
    assert_eq!(run.error().text("error"), "8 of 12 objects failed, 4 completed.");

    assert!(under(ObjectFailures::Never, &machines(4, 8)).is_ok());
}

#[test]
fn a_run_of_another_kind_keeps_the_verdict_of_the_backend() {
    // A backup routine that fails does not stop the plugin's full update where no bridge stands.
    let events = [object_step("backup_routine", "failed", "daily"), complete_ok()];
    let run = whole(Kind::BackupRoutines, &events);
    assert!(run.is_ok());
    assert_eq!(
        run.message(),
        "Backup routines sync completed. 1 object: 0 completed, 1 failed, 0 unconfirmed."
    );
    let mut setup = setup(Kind::BackupRoutines, Channel::Native);
    setup.options.object_failures = ObjectFailures::Any;
    assert!(!begun(setup).stream(&events.concat()).hang_up().run().is_ok());
}

#[test]
fn failures_that_only_a_summary_tells_of_count_too() {
    // Proxmox killed in the middle: the machines that failed are in no event but the summary.
    let events = [discovery("virtual-machines", 12), phase_summary("virtual-machines", 0, 12), complete_ok()];
    assert!(!under(ObjectFailures::All, &events).is_ok());
}

#[test]
fn no_policy_makes_a_failed_run_a_good_one() {
    let events = [
        item("virtual-machines", "completed", "web01"),
        sse("complete", json!({"ok": false, "message": "not so", "errors": [{"detail": "why not"}]})),
    ];
    for policy in ObjectFailures::ALL {
        let run = under(policy, &events);
        assert_eq!(run.report.cause, Some(Cause::BackendFailed));
        assert_eq!((run.error().text("error"), run.detail()), ("not so", "why not"));
    }
}

#[test]
fn an_object_that_came_to_a_good_end_is_not_named_among_the_failed() {
    let events = [
        item("virtual-machines", "failed", "web01"),
        item("virtual-machines", "completed", "web01"),
        item("virtual-machines", "failed", "web02"),
        complete_ok(),
    ];
    let run = under(ObjectFailures::Any, &events);
    assert!(run.detail().contains("web02") && !run.detail().contains("web01"), "{}", run.detail());
}

#[test]
fn what_the_backend_never_speaks_of_again_is_unconfirmed() {
    let run = whole(
        Kind::VirtualMachines,
        &[discovery("virtual-machines", 12), phase_summary("virtual-machines", 4, 0), complete_ok()],
    );
    assert!(run.is_ok());
    assert_eq!(run.objects("virtual_machine"), Some([12, 4, 0, 8]));
    assert!(
        run.message().ends_with("12 objects: 4 completed, 0 failed, 8 unconfirmed."),
        "{}",
        run.message()
    );
}

#[test]
fn the_count_of_a_stage_confirms_the_objects_that_no_event_confirms() {
    // 0.0.3 to 0.0.6 tell of machines only that they are processed.
    let processing = |name: &str| crate::support::backend::object_step("virtual_machine", "progress", name);
    let run = whole(
        Kind::VirtualMachines,
        &[
            processing("web01"),
            processing("web02"),
            processing("web03"),
            step(json!({"step": "virtual-machines", "status": "completed",
                "message": "Virtual machines synchronization finished.", "result": {"count": 2}})),
            complete_ok(),
        ],
    );
    assert_eq!(run.objects("virtual_machine"), Some([3, 2, 0, 1]));
    assert!(!run.says("Synced virtual_machine web01"), "nobody confirmed it by name");
}

#[test]
fn a_last_word_that_is_no_boolean_is_no_success() {
    for ok in ["", "\"ok\": null,", "\"ok\": \"true\",", "\"ok\": 1,", "\"ok\": {},"] {
        let run = whole(
            Kind::Devices,
            &[
                item("devices", "completed", "pve01"),
                format!("event: complete\ndata: {{{ok} \"message\": \"devices sync completed.\"}}\n\n"),
            ],
        );
        assert_eq!(run.report.cause, Some(Cause::BackendNonsense), "{ok}");
        assert!(run.error().text("error").contains("boolean"), "{ok}");
    }
}

#[test]
fn a_last_word_that_is_not_json_is_no_success() {
    for data in ["done", "{\"ok\": true", "[]", "null", "true", ""] {
        let run = whole(Kind::Devices, &[format!("event: complete\ndata: {data}\n\n")]);
        assert_eq!(run.report.cause, Some(Cause::BackendNonsense), "{data}");
        assert!(run.detail().contains("not a JSON object"), "{data}: {}", run.detail());
    }
}

#[test]
fn of_two_last_words_the_worse_one_is_believed() {
    let bad =
        sse("complete", json!({"ok": false, "message": "no", "errors": [{"detail": "on second thought"}]}));
    for words in [[complete_ok(), bad.clone()], [bad, complete_ok()]] {
        let run = whole(Kind::Devices, &words);
        assert!(!run.is_ok());
        assert_eq!(run.detail(), "on second thought");
    }
    assert!(whole(Kind::Devices, &[complete_ok(), complete_ok()]).is_ok());
}

#[test]
fn the_second_last_word_may_come_in_its_own_time() {
    let mut drive = native(Kind::Devices);
    drive.stream(&complete_ok()).wait(std::time::Duration::from_secs(2));
    assert!(drive.end.is_none());
    drive.stream(&sse("complete", json!({"ok": false, "message": "no"}))).hang_up();
    assert!(!drive.run().is_ok());
}

#[test]
fn megabytes_of_result_become_a_few_numbers() {
    let records: Vec<_> = (0..20_000).map(|id| json!({"id": id, "name": "x".repeat(60)})).collect();
    let last = sse(
        "complete",
        json!({"ok": true, "message": "Full update sync completed.", "result": {
            "devices": records, "virtual_machines": [], "virtual_machines_count": 12, "degraded": true,
            "warnings": ["one\u{2028}warning"]}}),
    );
    assert!(last.len() > 1_000_000);
    let mut setup = setup(Kind::FullUpdate, Channel::Native);
    setup.limits.event_bytes = 16 << 20;
    let mut drive = begun(setup);
    let run = drive.stream(&last).hang_up().run();
    let result = &run.complete()["result"];
    assert_eq!((&result["devices_count"], &result["virtual_machines_count"]), (&json!(20_000), &json!(12)));
    assert_eq!((&result["degraded"], &result["warnings"]), (&json!(true), &json!(["one warning"])));
    assert!(drive.bytes.len() < 4096, "{} bytes", drive.bytes.len());
}

#[test]
fn a_sort_of_objects_that_failed_as_a_whole_fails_a_full_update_that_is_ok_otherwise() {
    let devices = ["pve1", "pve2", "pve3"].map(|name| object_step("device", "completed", name));
    let summary = phase_summary("virtual-machines", 0, 12);
    let told: Vec<String> = devices.into_iter().chain([summary, complete_ok()]).collect();
    let run = whole(Kind::FullUpdate, &told);
    assert!(!run.is_ok());
    assert!(run.detail().contains("12 of 12 virtual_machine objects failed"), "{}", run.detail());

    // Nobody's inventory hangs on a backup schedule.
    let routine = phase_summary("backup-routines", 0, 1);
    let run = whole(Kind::FullUpdate, &[object_step("device", "completed", "pve1"), routine, complete_ok()]);
    assert!(run.is_ok());
}

#[test]
fn the_count_of_a_stage_does_not_make_good_what_failed_in_it() {
    let failed = ["a", "b"].map(|name| {
        step(json!({"step": "virtual_disk", "status": "completed", "rowid": format!("{name}-disks"),
            "payload": {"object": "virtual_disk", "data": {"completed": true, "sync_status": "undefined",
                "rowid": format!("{name}-disks"), "disks": "Config not available"}}}))
    });
    let done = step(json!({"step": "virtual-disks", "status": "completed", "result": {"count": 2}}));
    let told: Vec<String> = failed.into_iter().chain([done, complete_ok()]).collect();
    let run = whole(Kind::VirtualDisks, &told);
    assert_eq!(run.objects("virtual_disk"), Some([2, 0, 2, 0]));
    assert!(!run.is_ok());
}

#[test]
fn trouble_that_is_no_object_is_named_in_the_end() {
    let trouble = sse("error_detail", json!({"phase": "storage", "message": "Storage API timed out"}));
    let told = [object_step("device", "completed", "pve1"), trouble, complete_ok()];
    let run = whole(Kind::FullUpdate, &told);
    assert!(run.is_ok());
    assert!(run.message().contains("With trouble: Storage API timed out."), "{}", run.message());
    let mut setup = setup(Kind::FullUpdate, Channel::Native);
    setup.options.object_failures = ObjectFailures::Any;
    assert!(!begun(setup).stream(&told.concat()).hang_up().run().is_ok());
}

#[test]
fn the_end_of_a_run_is_found_at_the_beginning_of_what_is_too_large_to_be_read() {
    for (head, ok) in
        [("{\"ok\": true, \"message\": \"m\", \"result\": \"", true), ("{\"result\": \"", false)]
    {
        let mut drive = native(Kind::Devices);
        drive.stream("event: complete\ndata: ").stream(head);
        for _ in 0..20 {
            drive.stream(&"x".repeat(100_000));
        }
        let run = drive.stream("\"}\n\n").hang_up().run();
        assert_eq!(run.is_ok(), ok, "{head}");
    }
}
