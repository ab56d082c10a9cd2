//! What happened, as any channel of any age tells it.

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
    /// One that the table of kinds knows.
    Known(Kind),
    /// One that it does not.
    Other(Cow<'a, str>),
}

impl<'a> Stage<'a> {
    /// The stage that a backend means by `word`.
    pub fn from_name(name: Cow<'a, str>) -> Self {
        match Kind::from_stage(&name) {
            Some(kind) => Self::Known(kind),
            None => Self::Other(name),
        }
    }

    /// The word for it as the `step` of an event.
    pub fn step(&self) -> &str {
        match self {
            Self::Known(kind) => kind.row().step,
            Self::Other(word) => word,
        }
    }

    /// The sort of object that it makes, if that is known and counted.
    pub fn object(&self) -> Option<Object> {
        match self {
            Self::Known(kind) => kind.row().counted.then_some(kind.row().object),
            Self::Other(_) => None,
        }
    }
}

/// What a backend says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectState<'a> {
    /// It is being worked on.
    Processing,
    /// It is done, with a warning if there is one.
    Completed {
        /// What the backend was not happy with.
        warning: Option<Cow<'a, str>>,
        /// Its id in NetBox.
        id: Option<u64>,
    },
    /// The objects that belong to it were looked for. It is none itself.
    Checked {
        /// How many there are, if the backend says so.
        found: Option<u64>,
        /// How many of them were written.
        written: u64,
        /// What the backend was not happy with.
        warning: Option<Cow<'a, str>>,
    },
    /// It failed.
    Failed {
        /// Why.
        error: Cow<'a, str>,
        /// Only a part of it did: the object itself may be done.
        is_part: bool,
    },
}

impl<'a> ObjectState<'a> {
    /// The state of an object that failed, by its error.
    pub fn failed(error: Cow<'a, str>) -> Self {
        // The virtual machine is in NetBox all the same: where the backend goes on to say so, it says that it is
        // synced.
        let partly = error.starts_with("Could not set primary IP");
        Self::Failed { error, is_part: partly }
    }
}

/// One thing that a backend said.
#[derive(Clone, Debug)]
pub enum Fact<'a> {
    /// A stage began.
    StageStarted(Stage<'a>),
    /// A stage is done.
    StageFinished {
        /// The stage.
        stage: Stage<'a>,
        /// What the backend counted in it.
        figures: Figures,
    },
    /// Something about one object.
    Object {
        /// Its sort, and the backend's word for the sort where it is [`Object::Other`].
        object: (Object, Cow<'a, str>),
        /// Where it belongs.
        scope: Scope<'a>,
        /// Its whole name. One that failed may have none.
        name: Cow<'a, str>,
        /// In which form it is told of.
        form: EventForm,
        /// What became of it.
        state: ObjectState<'a>,
        /// The backend's own account of it.
        payload: Option<&'a RawValue>,
    },
    /// A virtual machine has another name in NetBox than in Proxmox.
    Renamed {
        /// Its name in Proxmox.
        from: Cow<'a, str>,
        /// Its name in NetBox.
        to: Cow<'a, str>,
    },
    /// Objects failed that are not named.
    Unnamed {
        /// Their sort.
        object: Object,
        /// How many.
        count: u64,
        /// Why.
        error: Cow<'a, str>,
    },
    /// A stage announced its objects.
    Discovered {
        /// The stage.
        stage: Stage<'a>,
        /// How many.
        count: Option<u64>,
        /// Their names, if all of them were listed.
        names: Vec<String>,
        /// The same in a sentence.
        message: Cow<'a, str>,
    },
    /// A stage summed itself up.
    Summary {
        /// The stage.
        stage: Stage<'a>,
        /// In numbers.
        figures: Figures,
        /// In a sentence.
        message: Cow<'a, str>,
    },
    /// Something that a person wants to know.
    Note {
        /// What it is about.
        step: Cow<'a, str>,
        /// What it says.
        message: Cow<'a, str>,
    },
    /// Something failed that is no single object, and the run has not ended for it yet.
    StageError(Failure),
    /// The run failed (`event: error`).
    Aborted(Failure),
    /// The backend's last word (`event: complete`).
    Complete {
        /// Whether it called the run a success, if it said so in a boolean.
        ok: Option<bool>,
        /// Its message.
        message: String,
        /// The detail of its failure, if it gave one.
        detail: Option<String>,
        /// What is worth keeping of its result.
        summary: ResultSummary,
    },
    /// Nothing that a person needs.
    Nothing,
}
