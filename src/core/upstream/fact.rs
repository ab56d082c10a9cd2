//! Facts: what a backend reports, independent of channel and release.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::core::domain::event::Failure;
use crate::core::domain::figures::Figures;
use crate::core::domain::figures::ResultSummary;
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::run::tally::{EventForm, Scope};

/// A stage of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage<'a> {
    /// A stage in the table of kinds.
    Known(Kind),
    /// Any other stage.
    Other(Cow<'a, str>),
}

impl<'a> Stage<'a> {
    /// The stage with the backend's name `name`.
    pub fn from_name(name: Cow<'a, str>) -> Self {
        match Kind::from_stage(&name) {
            Some(kind) => Self::Known(kind),
            None => Self::Other(name),
        }
    }

    /// The name of the stage as the `step` of an event.
    pub fn step(&self) -> &str {
        match self {
            Self::Known(kind) => kind.row().step,
            Self::Other(word) => word,
        }
    }

    /// The object type of the stage, if it is known and counted.
    pub fn object(&self) -> Option<Object> {
        match self {
            Self::Known(kind) => kind.row().is_counted().then_some(kind.row().object),
            Self::Other(_) => None,
        }
    }
}

/// The state of an object, as a backend reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectState<'a> {
    /// It is being processed.
    Processing,
    /// It is synced.
    Completed {
        /// The backend's warning about it.
        warning: Option<Cow<'a, str>>,
        /// Its id in NetBox.
        id: Option<u64>,
    },
    /// Its child objects were searched for. It is not counted itself.
    Checked {
        /// The number of objects found, if reported.
        found: Option<u64>,
        /// The number of those that were written.
        written: u64,
        /// The backend's warning about it.
        warning: Option<Cow<'a, str>>,
    },
    /// It failed.
    Failed {
        /// The error.
        error: Cow<'a, str>,
        /// Only a part of the object failed. The object itself may complete.
        is_part: bool,
    },
}

impl<'a> ObjectState<'a> {
    /// The state of a failed object, derived from its error.
    pub fn failed(error: Cow<'a, str>) -> Self {
        // The virtual machine is in NetBox anyway. A backend that continues reports it as synced.
        let partly = error.starts_with("Could not set primary IP");
        Self::Failed { error, is_part: partly }
    }
}

/// One report of a backend.
#[derive(Clone, Debug)]
pub enum Fact<'a> {
    /// A stage began.
    StageStarted(Stage<'a>),
    /// A stage is done.
    StageFinished {
        /// The stage.
        stage: Stage<'a>,
        /// The backend's counts of the stage.
        figures: Figures,
    },
    /// The state of an object.
    Object {
        /// The object type. The backend's name for it matters for [`Object::Other`].
        object: (Object, Cow<'a, str>),
        /// The scope it belongs to.
        scope: Scope<'a>,
        /// Its full name. It may be empty for a failed object.
        name: Cow<'a, str>,
        /// The form of the report.
        form: EventForm,
        /// Its state.
        state: ObjectState<'a>,
        /// The backend's own payload.
        payload: Option<&'a RawValue>,
    },
    /// A virtual machine has different names in NetBox and in Proxmox.
    Renamed {
        /// Its name in Proxmox.
        from: Cow<'a, str>,
        /// Its name in NetBox.
        to: Cow<'a, str>,
    },
    /// Unnamed objects failed.
    Unnamed {
        /// The object type.
        object: Object,
        /// The number of objects.
        count: u64,
        /// The error.
        error: Cow<'a, str>,
    },
    /// A stage announced the objects it found.
    Discovered {
        /// The stage.
        stage: Stage<'a>,
        /// The number of objects.
        count: Option<u64>,
        /// The names, if all of them were listed.
        names: Vec<String>,
        /// The announcement as a sentence.
        message: Cow<'a, str>,
    },
    /// A stage reported a summary.
    Summary {
        /// The stage.
        stage: Stage<'a>,
        /// The numbers.
        figures: Figures,
        /// The summary as a sentence.
        message: Cow<'a, str>,
    },
    /// Information for people.
    Note {
        /// What it is about.
        step: Cow<'a, str>,
        /// The text.
        message: Cow<'a, str>,
    },
    /// A failure that concerns no single object and has not ended the run.
    StageError(Failure),
    /// The run failed (`event: error`).
    Aborted(Failure),
    /// The backend's `event: complete`.
    Complete {
        /// The backend's `ok`, if it is a boolean.
        ok: Option<bool>,
        /// Its message.
        message: String,
        /// The detail of the failure, if any.
        detail: Option<String>,
        /// The summary of its result.
        summary: ResultSummary,
    },
    /// Nothing of use to a client.
    Nothing,
}
