//! The machine-readable codes of errors.

use crate::core::text::string_enum::string_enum;

string_enum! {
    /// The code of an error of the admin API. A refusal of a sync has its [`Cause`](super::outcome::Cause) instead.
    pub enum ErrorCode {
        /// The path does not exist.
        NotFound = "not_found",
        /// The path does not support the method.
        MethodNotAllowed = "method_not_allowed",
        /// The request is malformed, or has a body that it must not have.
        InvalidRequest = "invalid_request",
        /// The response needs a newer version of HTTP.
        HttpVersion = "http_version",
        /// The request has come back to the bridge that sent it.
        LoopDetected = "loop_detected",
        /// A page of another site may have sent the request.
        CrossSite = "cross_site",
        /// The client has reached a limit.
        LimitExceeded = "limit_exceeded",
        /// A token is required.
        TokenRequired = "token_required",
        /// The token is read-only.
        TokenReadOnly = "token_read_only",
        /// No token is configured.
        TokenNotConfigured = "token_not_configured",
        /// The request does not have this parameter.
        UnknownParameter = "unknown_parameter",
        /// The value of a parameter is invalid or missing.
        BadParameter = "bad_parameter",
        /// The path has no valid id of a job.
        InvalidJobId = "invalid_job_id",
        /// There is no such job.
        UnknownJob = "unknown_job",
        /// The job has ended.
        JobEnded = "job_ended",
        /// The job has no cool-down.
        NotCoolingDown = "not_cooling_down",
        /// The log of the job was removed.
        LogRemoved = "log_removed",
        /// The job has no recording.
        NoRecording = "no_recording",
        /// The log filter is invalid.
        InvalidLogFilter = "invalid_log_filter",
        /// The log filter cannot be changed.
        LogFilterFixed = "log_filter_fixed",
        /// The ledger could not be cleaned.
        CleanFailed = "clean_failed",
        /// The configuration could not be reloaded.
        ReloadFailed = "reload_failed",
        /// The bridge failed.
        Internal = "internal",
    }
}
