//! Drives a leg over `/ws`: API key, greeting, command, barrier, and late frames.

use std::time::Duration;

use super::{CloseReason, Phase, Session, SessionOutput, completed};
use crate::core::domain::event::Failure;
use crate::core::domain::figures::ResultSummary;
use crate::core::domain::kind::{Kind, WsCommand};
use crate::core::domain::object::Object;
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::run::plan::Leg;
use crate::core::upstream::dialect::{self, Dialect, InvalidCommand, RunEnd, WsMessage};
use crate::core::upstream::fact::{self, Fact, ObjectState};
use crate::core::upstream::python;

/// The state of an open socket.
#[derive(Debug)]
pub(super) struct SocketLeg {
    command: WsCommand,
    kinds: Vec<Kind>,
    opened: Duration,
    stage: CommandState,
    /// The stages that have ended.
    ended: Vec<Kind>,
    /// The devices of the running command, for dialects that do not mark the end of a stage.
    devices: Vec<String>,
    /// The last text received in place of a greeting.
    last_text: String,
    /// The lowest number of unconfirmed virtual machines since the command returned.
    unconfirmed: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandState {
    /// The backend has not sent its greeting.
    Waiting {
        /// The API key has been sent.
        keyed: bool,
    },
    /// The command is running.
    Running,
    /// The command has returned. Frames from now on are late.
    Returned,
}

impl SocketLeg {
    pub(super) fn opened(leg: &Leg, now: Duration) -> Self {
        Self {
            command: leg.command.unwrap_or(WsCommand::FullUpdate),
            kinds: leg.kinds.clone(),
            opened: now,
            stage: CommandState::Waiting { keyed: false },
            ended: Vec::new(),
            devices: Vec::new(),
            last_text: String::new(),
            unconfirmed: None,
        }
    }

    /// Whether the backend has accepted the command.
    pub(super) fn is_ready(&self) -> bool {
        !matches!(self.stage, CommandState::Waiting { .. })
    }

    /// The stages that have ended when a frame comes about the object `name`, where the backend marks no ends: a frame
    /// of the next command shows that the previous one has returned.
    fn ended_before(&mut self, object: Object, name: &str, state: &ObjectState<'_>) -> Vec<Kind> {
        let Some(running) = self.first_unended() else { return Vec::new() };
        match (running, object) {
            (Kind::Devices, Object::Device) if self.devices.iter().any(|device| device == name) => {
                match state {
                    // "Sync Nodes" again: between the two, a sync of virtual machines has found none. A second frame that
                    // begins no device is of the same command: 0.0.1b1 confirms each device.
                    ObjectState::Processing => self.kinds.clone(),
                    _ => Vec::new(),
                }
            }
            (Kind::Devices, Object::Device) => {
                self.devices.push(name.to_owned());
                Vec::new()
            }
            (Kind::Devices, Object::VirtualMachine) | (_, Object::Device) => vec![running],
            _ => Vec::new(),
        }
    }

    /// The first stage that has not ended.
    fn first_unended(&self) -> Option<Kind> {
        self.kinds.iter().copied().find(|kind| !self.ended.contains(kind))
    }
}

impl Session {
    fn socket(&mut self) -> Option<&mut SocketLeg> {
        match &mut self.phase {
            Phase::Socket(socket) => Some(socket),
            _ => None,
        }
    }

    pub(super) fn send_key(&mut self, out: &mut SessionOutput) {
        let Some(key) = &self.setup.credential else { return };
        out.send.push(Dialect::key_frame(key.expose()));
        if let Some(socket) = self.socket() {
            socket.stage = CommandState::Waiting { keyed: true };
        }
    }

    /// When a backend that needs no key must have sent its greeting. Releases that take no key are ready as soon as
    /// the socket is open.
    pub(super) fn greeting_deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Socket(SocketLeg { stage: CommandState::Waiting { keyed: false }, opened, .. }) => {
                Some(*opened + self.setup.limits.settle)
            }
            _ => None,
        }
    }

    pub(super) fn greeting_timed_out(&mut self, out: &mut SessionOutput) {
        let is_release_known = self.setup.dialect.is_some();
        // A different backend may have replaced the known one.
        out.invalidate_capabilities = is_release_known;
        if self.setup.credential.is_some() {
            self.setup.dialect.get_or_insert(Dialect::V0_0_7);
            self.send_key(out);
        } else if !is_release_known {
            self.refuse(Refusal::key_missing(), out);
        } else if let Some(socket) = self.socket() {
            // It may only be slow, and there is no key to send.
            socket.stage = CommandState::Waiting { keyed: true };
        }
    }

    pub(super) fn text(&mut self, now: Duration, text: &str, out: &mut SessionOutput) {
        self.last_event = now;
        let Some(socket) = self.socket() else { return };
        let stage = socket.stage;
        let command = socket.command;
        // A backend that greets before it got a key takes none. The oldest such dialect needs waits that do no harm to
        // the others.
        let dialect = self.setup.dialect.unwrap_or(Dialect::V0_0_2);
        let parse = match self.setup.options.payloads {
            true => dialect::parse_frame_with_payload,
            false => dialect::parse_frame,
        };
        let strict;
        let message = match parse(text) {
            WsMessage::Unknown(description) => {
                strict = python::to_strict(text);
                strict.as_deref().map_or(WsMessage::Unknown(description), parse)
            }
            message => message,
        };
        self.received.note(now, message.frame_type());
        if let CommandState::Waiting { .. } = stage {
            // Frames before the greeting do not belong to this command.
            if matches!(message, WsMessage::Greeting) {
                self.accept(now, out);
                out.send.extend(dialect.command_frames(command, &self.setup.run_id));
                if let Some(socket) = self.socket() {
                    socket.stage = CommandState::Running;
                }
            } else {
                self.normalizer.unreadable += 1;
                if let (WsMessage::Unknown(text), Some(socket)) = (message, self.socket()) {
                    socket.last_text = text.into_owned();
                }
            }
            return;
        }
        match message {
            WsMessage::Greeting | WsMessage::Ignored => {}
            WsMessage::Invalid { command: echoed } => match dialect
                .classify_invalid(command, echoed.as_deref())
            {
                InvalidCommand::Barrier if stage == CommandState::Running => self.returned(dialect, now, out),
                InvalidCommand::Command => {
                    let error = format!("The backend does not know the command {:?}.", command.as_str());
                    self.command_failed(now, error, None, out);
                }
                _ => {}
            },
            WsMessage::StageEnd(kind) => self.stage_ended(kind, out),
            WsMessage::RunEnd(end) => self.run_ended(now, end, out),
            // A frame after the end belongs to the command that shows this end.
            WsMessage::Fact(_) if stage == CommandState::Returned && !dialect.marks_ends() => {}
            WsMessage::Fact(fact) => {
                if !dialect.marks_ends() && self.apply_implied_ends(&fact, now, out) {
                    return;
                }
                if matches!(fact, Fact::Object { object: (Object::VirtualMachine, _), .. })
                    && self.socket().is_some_and(|socket| socket.ended.contains(&Kind::VirtualMachines))
                {
                    self.normalizer.note_straggler();
                }
                self.normalizer.apply(fact, &mut out.frames);
                if stage == CommandState::Returned {
                    self.settle(now, out);
                }
            }
            WsMessage::Unknown(text) => {
                self.normalizer.unreadable += 1;
                let step = self.leg_kind().row().step.into();
                self.normalizer.apply(Fact::Note { step, message: text }, &mut out.frames);
            }
        }
    }

    fn stage_ended(&mut self, kind: Kind, out: &mut SessionOutput) {
        let Some(socket) = self.socket() else { return };
        if !socket.kinds.contains(&kind) || socket.ended.contains(&kind) {
            return;
        }
        socket.ended.push(kind);
        let Some(next) = socket.first_unended() else {
            // The last stage ends when the command has returned and no late frame is expected.
            return;
        };
        self.normalizer.stage_finished(kind, &mut out.frames);
        self.normalizer.apply(Fact::StageStarted(fact::Stage::Known(next)), &mut out.frames);
    }

    /// Ends the stages that `fact` shows to have ended, for dialects that do not mark the end of a stage. Returns
    /// whether the fact belongs to the command after the last one.
    fn apply_implied_ends(&mut self, fact: &Fact<'_>, now: Duration, out: &mut SessionOutput) -> bool {
        let Fact::Object { object: (object, _), name, state, .. } = fact else { return false };
        let Some(socket) = self.socket() else { return false };
        for kind in socket.ended_before(*object, name, state) {
            self.stage_ended(kind, out);
        }
        let Some(socket) = self.socket().filter(|socket| socket.first_unended().is_none()) else {
            return false;
        };
        socket.stage = CommandState::Returned;
        // It closes the socket when it reads the barrier.
        self.settle_for_late_events(now);
        true
    }

    /// Handles the answer to the barrier: the command has returned.
    fn returned(&mut self, dialect: Dialect, now: Duration, out: &mut SessionOutput) {
        let Some(socket) = self.socket() else { return };
        socket.stage = CommandState::Returned;
        let has_devices = socket.ended.contains(&Kind::Devices);
        match socket.first_unended() {
            // The backend has reported the reason.
            Some(_) if self.normalizer.has_stage_error() => self.leg_done(now, None, out),
            Some(missing) => {
                let title = missing.row().title;
                let error = format!("The backend ended the command without an end of the {title} stage.");
                let why = if missing == Kind::VirtualMachines && has_devices {
                    "It skips virtual machines when the devices stage returned none."
                } else {
                    "It reports what went wrong only in its own log."
                };
                self.command_failed(now, error, Some(why), out);
            }
            None if dialect.sends_late_frames() => self.settle(now, out),
            None => self.leg_done(now, None, out),
        }
    }

    /// Counts virtual machines by the order of frames. A release that confirms each of them confirms the last one
    /// before it ends the stage, unless one has failed.
    pub(super) fn count_by_order(&mut self, out: &mut SessionOutput) {
        let confirms_each = self.setup.dialect.is_some_and(Dialect::confirms_each);
        let Some(socket) = self.socket().filter(|_| confirms_each) else { return };
        if socket.ended.contains(&Kind::VirtualMachines) {
            self.normalizer.confirms_each(Object::VirtualMachine, &mut out.frames);
        }
    }

    /// Waits for late frames, as long as any are expected.
    fn settle(&mut self, now: Duration, out: &mut SessionOutput) {
        let unconfirmed = self.normalizer.tally.count(Object::VirtualMachine).unconfirmed;
        let Some(socket) = self.socket() else { return };
        // 0.0.2 never confirms a device.
        if unconfirmed == 0 || !socket.kinds.contains(&Kind::VirtualMachines) {
            self.leg_done(now, None, out);
            return;
        }
        if socket.unconfirmed.is_none_or(|least| unconfirmed < least) {
            // The backend is still working and makes progress.
            socket.unconfirmed = Some(unconfirmed);
            self.settle_ends = None;
        }
        self.settle_for_late_events(now);
    }

    /// Handles the end of a correlated full update, which reports its own outcome.
    fn run_ended(&mut self, now: Duration, end: RunEnd, out: &mut SessionOutput) {
        let RunEnd { ok, incomplete } = end;
        if ok && incomplete.is_empty() {
            self.normalizer.apply(completed(ResultSummary::default()), &mut out.frames);
            self.leg_done(now, None, out);
            return;
        }
        let stages: Vec<String> =
            incomplete.iter().map(|(stage, status)| format!("{stage} {status}")).collect();
        let stages = if stages.is_empty() { "without saying which".to_owned() } else { stages.join(", ") };
        let what = match ok {
            true => "did not complete every stage of the full update",
            false => "ended the full update as failed",
        };
        self.command_failed(now, format!("The backend {what}: {stages}."), None, out);
    }

    fn command_failed(&mut self, now: Duration, error: String, why: Option<&str>, out: &mut SessionOutput) {
        let detail = why.map_or_else(|| error.clone(), |why| format!("{error} {why}"));
        let failure = Failure { step: self.leg_kind().row().step.to_owned(), error, detail };
        self.leg_done(now, Some((failure, Cause::BackendFailed)), out);
    }

    pub(super) fn socket_closed(&mut self, now: Duration, how: CloseReason<'_>, out: &mut SessionOutput) {
        let Some(stage) = self.socket().map(|socket| socket.stage) else { return };
        match (stage, how) {
            (CommandState::Returned, _) => self.leg_done(now, None, out),
            (CommandState::Waiting { .. }, CloseReason::Frame { code, reason }) => {
                let last_text =
                    self.socket().map(|socket| std::mem::take(&mut socket.last_text)).unwrap_or_default();
                let reason = if reason.is_empty() { &last_text } else { reason };
                self.refuse(Refusal::from_close(code, reason), out);
            }
            (CommandState::Waiting { .. }, CloseReason::Cleanly | CloseReason::Broken(_)) => {
                let why = "It dropped /ws before it was ready for a command; its log says why.";
                self.refuse(Refusal::bad_backend(why), out);
            }
            (CommandState::Running, how) => {
                let (cause, what) = match how {
                    CloseReason::Frame { code, reason } => {
                        let reason = if reason.is_empty() { String::new() } else { format!(" {reason:?}") };
                        let what = format!(
                            "The backend closed /ws (code {code}{reason}) before the command had returned, which is \
                             how it reports a failure; its log says why"
                        );
                        (Cause::BackendFailed, what)
                    }
                    CloseReason::Cleanly => {
                        let what = "The backend dropped /ws in the middle of the command".to_owned();
                        (Cause::BackendLost, what)
                    }
                    CloseReason::Broken(why) => {
                        (Cause::BackendLost, format!("The connection to the backend's /ws broke ({why})"))
                    }
                };
                self.lost(now, cause, &what, out);
            }
        }
    }
}
