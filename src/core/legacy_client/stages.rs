//! How far the stages that a page has buttons for have come.

use crate::core::domain::kind::{Command, Kind};

/// In the order of a full update.
const KINDS: [Kind; 2] = [Kind::Devices, Kind::VirtualMachines];

/// What the log has said of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StageState {
    /// Nothing.
    Waiting,
    /// That it began.
    Begun,
    /// That it is done.
    Ended,
}

/// The stages of one command.
#[derive(Debug)]
pub(super) struct StageTracker {
    command: Command,
    /// In the order of [`KINDS`].
    states: [StageState; 2],
}

impl StageTracker {
    pub(super) fn new(command: Command) -> Self {
        Self { command, states: [StageState::Waiting; 2] }
    }

    /// Notes that the stage `kind` has begun, if it is one of them.
    pub(super) fn begin(&mut self, kind: Kind) {
        if let Some(state) = self.state(kind).filter(|state| **state == StageState::Waiting) {
            *state = StageState::Begun;
        }
    }

    /// Notes that the stage `kind` is done. Says whether that is news, and of one of them.
    pub(super) fn end(&mut self, kind: Kind) -> bool {
        let news = self.state(kind).filter(|state| **state != StageState::Ended);
        news.map(|state| *state = StageState::Ended).is_some()
    }

    /// The stages of the command that are not done.
    pub(super) fn unfinished(&self) -> Vec<Kind> {
        let all = KINDS.into_iter().zip(self.states);
        let own =
            |kind: Kind| self.command == Command::FullUpdate || kind.row().command == Some(self.command);
        all.filter(|(kind, state)| own(*kind) && *state != StageState::Ended).map(|(kind, _)| kind).collect()
    }

    /// Each stage and what became of it in a run that went well, or did not, as the fields of a frame.
    pub(super) fn verdicts(&self, ok: bool) -> String {
        let verdict = |(kind, state): (Kind, StageState)| {
            let status = match state {
                StageState::Waiting => "skipped",
                StageState::Begun if !ok => "failed",
                StageState::Begun | StageState::Ended => "completed",
            };
            format!("\"{}\":\"{status}\"", kind.row().step)
        };
        KINDS.into_iter().zip(self.states).map(verdict).collect::<Vec<_>>().join(",")
    }

    fn state(&mut self, kind: Kind) -> Option<&mut StageState> {
        KINDS.iter().position(|other| *other == kind).map(|at| &mut self.states[at])
    }
}
