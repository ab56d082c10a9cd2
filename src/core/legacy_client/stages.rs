//! The progress of the stages for which a page has buttons.

use crate::core::domain::kind::{Kind, WsCommand};

/// The state of a stage in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StageState {
    /// It has not begun.
    Waiting,
    /// It has begun.
    Begun,
    /// It has ended.
    Ended,
}

/// The stages of one command.
#[derive(Debug)]
pub(super) struct StageTracker {
    command: WsCommand,
    /// The stages with buttons, in the order of a full update.
    stages: [(Kind, StageState); 2],
}

impl StageTracker {
    pub(super) fn new(command: WsCommand) -> Self {
        let stages = [Kind::Devices, Kind::VirtualMachines].map(|kind| (kind, StageState::Waiting));
        Self { command, stages }
    }

    /// Marks the stage `kind` as begun, if it belongs to the command.
    pub(super) fn begin(&mut self, kind: Kind) {
        if let Some(state) = self.state(kind).filter(|state| **state == StageState::Waiting) {
            *state = StageState::Begun;
        }
    }

    /// Marks the stage `kind` as ended. Returns whether this is new and the stage belongs to the command.
    pub(super) fn end(&mut self, kind: Kind) -> bool {
        let state = self.state(kind);
        state.is_some_and(|state| std::mem::replace(state, StageState::Ended) != StageState::Ended)
    }

    /// The stages of the command that have not ended.
    pub(super) fn unfinished(&self) -> Vec<Kind> {
        let own =
            |kind: Kind| self.command == WsCommand::FullUpdate || kind.row().command == Some(self.command);
        let is_left = |(kind, state): &(Kind, StageState)| own(*kind) && *state != StageState::Ended;
        self.stages.into_iter().filter(is_left).map(|(kind, _)| kind).collect()
    }

    /// The stages with their results as the fields of a frame. `result` is that of the run.
    pub(super) fn verdicts(&self, result: &str) -> String {
        let verdict = |(kind, state): (Kind, StageState)| {
            let status = match state {
                StageState::Waiting => "skipped",
                StageState::Begun => result,
                StageState::Ended => "completed",
            };
            format!("\"{}\":\"{status}\"", kind.row().step)
        };
        self.stages.map(verdict).join(",")
    }

    fn state(&mut self, kind: Kind) -> Option<&mut StageState> {
        self.stages.iter_mut().find(|(known, _)| *known == kind).map(|(_, state)| state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_began_ends_as_its_run_and_one_that_did_not_was_skipped() {
        let mut stages = StageTracker::new(WsCommand::FullUpdate);
        stages.begin(Kind::Devices);
        assert_eq!(stages.verdicts("completed"), r#""devices":"completed","virtual-machines":"skipped""#);
        assert_eq!(stages.verdicts("failed"), r#""devices":"failed","virtual-machines":"skipped""#);
        assert!(stages.end(Kind::Devices) && !stages.end(Kind::Devices));
        assert_eq!(stages.verdicts("failed"), r#""devices":"completed","virtual-machines":"skipped""#);
    }
}
