//! Jobs without clients, jobs that cannot be recorded, and what is kept of a job.

use super::key::keys;
use super::value::{count, one_of, value};
use crate::core::text::string_enum::string_enum;

keys! {
    /// The table `[jobs]`.
    pub struct Jobs in "jobs." {
        /// What happens to a job when its last client disconnects: `grace` lets it continue for `limits.detach_grace`
        /// and then cancels it, `continue` lets it finish, `cancel` cancels it at once.
        on_disconnect: OnDisconnect = OnDisconnect::Grace;
        /// What happens to new jobs while the ledger cannot be written: `continue` runs them without a record until it
        /// can be, `refuse` answers 503. If this is not set, they run too, but the bridge does not start with a
        /// `data_dir` that has never worked.
        without_ledger: Option<WithoutLedger> = None;
        /// Which jobs keep the raw frames of the backend in `data_dir/recordings`, for `/jobs/{id}/recording` and for
        /// `replay`: `on` all, `failed` those that do not complete, `off` none. `true` and `false` are `on` and `off`.
        /// Requires a `data_dir`.
        recording: JobRecording = JobRecording::Off;
        /// Number of frames, the last ones, that the record of a job keeps.
        log_frames: usize = 1000, within count(1, 100_000), needs restart;
        /// Number of failed objects, the first ones, that the ledger keeps of a job. Without a `data_dir` it keeps at
        /// most 100. The job states how many others there are.
        failed_objects: usize = 50_000, within count(1, 500_000);
    }
}

string_enum! {
    /// What happens to a job when its last client disconnects.
    #[derive(Default)]
    pub enum OnDisconnect {
        /// It continues for `limits.detach_grace` and is then cancelled.
        #[default]
        Grace = "grace",
        /// It continues to its end.
        Continue = "continue",
        /// It is cancelled at once.
        Cancel = "cancel",
    }
}

value!(OnDisconnect);

string_enum! {
    /// Which jobs keep their recordings.
    #[derive(Default)]
    pub enum JobRecording {
        /// None.
        #[default]
        Off = "off",
        /// All.
        On = "on",
        /// Those that do not complete.
        Failed = "failed",
    }
}

value!(
    JobRecording,
    |text| match text {
        "true" => Some(JobRecording::On),
        "false" => Some(JobRecording::Off),
        name => JobRecording::from_name(name),
    },
    |value| value.to_string(),
    one_of(&JobRecording::NAMES)
);

string_enum! {
    /// What happens to new jobs while the ledger cannot be written.
    pub enum WithoutLedger {
        /// They run without a record until it can be written, even if it never could be.
        Continue = "continue",
        /// They are refused with status 503.
        Refuse = "refuse",
    }
}

value!(WithoutLedger);
