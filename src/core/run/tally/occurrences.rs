//! Telling objects apart, in little memory.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::{Form, Said, Scope, State};
use crate::core::domain::object::Object;

/// How many objects are told apart: as many as fit into 4 MiB, with the ids of their records. Past this, memory is
/// worth more than telling two events about one object from events about two.
const TOLD_APART: usize = (1 << 17) / 8 * 7;
/// How many objects of one sort and name are told apart.
const OF_ONE_NAME: u16 = 64;

/// What was said of one object. Zero stands for what was not said.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    owner: u32,
    cluster: u16,
    /// Its state in each form, in three bits for each, and whether it is in NetBox under an id.
    states: u8,
    /// How often it was said to begin, in each form, in four bits for each.
    begun: u8,
}

impl Known {
    fn state(self, form: Form) -> Option<State> {
        match self.states >> (3 * form as u8) & 0b111 {
            1 => Some(State::Processing),
            2 => Some(State::Checked),
            3 => Some(State::Completed),
            4 => Some(State::Failed),
            _ => None,
        }
    }

    fn set(&mut self, form: Form, state: State) {
        let shift = 3 * form as u8;
        self.states = self.states & !(0b111 << shift) | (state as u8 + 1) << shift;
    }

    /// Notes that it has an id. Says whether that is news.
    fn identify(&mut self) -> bool {
        const IDENTIFIED: u8 = 1 << 7;
        let is_news = self.states & IDENTIFIED == 0;
        self.states |= IDENTIFIED;
        is_news
    }

    fn begun(self, form: Form) -> u8 {
        self.begun >> (4 * form as u8) & 0b1111
    }

    /// Notes one more beginning, or one less.
    fn count_begun(&mut self, form: Form, is_more: bool) {
        let shift = 4 * form as u8;
        let begun = self.begun(form);
        let begun = if is_more { (begun + 1).min(0b1111) } else { begun.saturating_sub(1) };
        self.begun = self.begun & !(0b1111 << shift) | begun << shift;
    }

    /// Whether one more object of its name began in its place, and failed now.
    fn hides_failure(self, said: Said) -> bool {
        let has_failed = self.state(said.form) == Some(State::Failed);
        has_failed && said.state == State::Failed && self.begun(said.form) > 1
    }

    /// What became of it. Of two forms that disagree, the worse one is believed.
    fn outcome(self) -> State {
        let states = [Form::Frame, Form::Item].map(|form| self.state(form));
        let ends = [State::Failed, State::Completed, State::Checked];
        ends.into_iter().find(|end| states.contains(&Some(*end))).unwrap_or(State::Processing)
    }

    fn is_elsewhere(self, place: Self) -> bool {
        let differ = |known: u32, told: u32| known != 0 && told != 0 && known != told;
        differ(self.owner, place.owner) || differ(self.cluster.into(), place.cluster.into())
    }

    fn add(&mut self, place: Self) {
        self.owner = if self.owner == 0 { place.owner } else { self.owner };
        self.cluster = if self.cluster == 0 { place.cluster } else { self.cluster };
    }

    /// How well an object fits what is said in `form`, if it may be meant: the better, the more.
    fn fits(self, said: Said, place: Self) -> Option<u8> {
        let Said { form, state, is_part, .. } = said;
        if self.is_elsewhere(place) || self.hides_failure(said) {
            return None;
        }
        match (self.state(form), state) {
            (Some(_), _) if is_part => Some(0),
            (Some(State::Processing), State::Processing) => Some(0),
            (Some(State::Processing), _) if self.owner == place.owner && self.cluster == place.cluster => {
                Some(3)
            }
            (Some(State::Processing), _) => Some(2),
            (None, _) => Some(1),
            (Some(known), state) if known == state => Some(0),
            // It has ended, and something of its name begins, or ends in another way.
            (Some(_), _) => None,
        }
    }
}

/// An object, as it is told apart from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity(u64);

/// What an event changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) identity: Identity,
    /// What was known of the object before, if anything was.
    pub(super) before: Option<State>,
    pub(super) after: State,
    /// Whether this was not said before in the same form.
    pub(super) is_first: bool,
    /// Whether it turns out that it is in NetBox under the id of another one.
    pub(super) is_double: bool,
}

/// Every object that was told of.
///
/// An object is known by its sort, its name, and where it belongs. Many events do not say the latter. Then
/// one more of the same name is assumed where one that has ended begins again, or ends in another way.
#[derive(Debug, Default)]
pub(super) struct Occurrences {
    known: HashMap<Identity, Known, BuildHasherDefault<DefaultHasher>>,
    /// The records of NetBox that objects are.
    records: HashSet<Identity, BuildHasherDefault<DefaultHasher>>,
}

impl Occurrences {
    pub(super) fn take(&mut self, object: Object, scope: &Scope<'_>, name: &str, said: Said) -> Change {
        let place = Known {
            owner: scope.owner.as_deref().map_or(0, |owner| hash(owner) as u32 | 1),
            cluster: scope.cluster.as_deref().map_or(0, |cluster| hash(cluster) as u16 | 1),
            states: 0,
            begun: 0,
        };
        let mut hidden = None;
        let mut best: Option<(u8, Identity)> = None;
        for ordinal in 0..OF_ONE_NAME {
            let identity = identity(object, scope, name, ordinal);
            let Some(known) = self.known.get(&identity) else {
                if let (None, Some(hidden)) = (best, hidden.and_then(|hidden| self.known.get_mut(&hidden))) {
                    hidden.count_begun(said.form, false);
                }
                let meant = best.map_or(identity, |(_, best)| best);
                return self.note(object, meant, place, said);
            };
            if known.hides_failure(said) {
                hidden.get_or_insert(identity);
            }
            let fits = known.fits(said, place);
            if let Some(fits) = fits.filter(|fits| best.is_none_or(|(best, _)| *fits > best)) {
                best = Some((fits, identity));
            }
        }
        match best {
            Some((_, identity)) => self.note(object, identity, place, said),
            // Too many to be told apart: their ends alone are counted.
            None => {
                let before = (said.state == State::Processing).then_some(State::Processing);
                let identity = identity(object, scope, name, OF_ONE_NAME - 1);
                Change { identity, before, after: said.state, is_first: true, is_double: false }
            }
        }
    }

    fn note(&mut self, object: Object, identity: Identity, place: Known, said: Said) -> Change {
        let Said { form, state, is_part, .. } = said;
        if self.known.len() >= TOLD_APART && !self.known.contains_key(&identity) {
            return Change { identity, before: None, after: state, is_first: true, is_double: false };
        }
        let known = self.known.entry(identity).or_default();
        let before = (known.states != 0).then(|| known.outcome());
        let is_first = known.state(form) != Some(state);
        known.add(place);
        if !is_part || before.is_none() {
            known.set(form, state);
        }
        if state == State::Processing && !is_part {
            known.count_begun(form, true);
        }
        let record = said.id.filter(|_| state == State::Completed && known.identify());
        let is_double = record.is_some_and(|record| !self.records.insert(Identity(hash(&(object, record)))));
        Change { identity, before, after: known.outcome(), is_first, is_double }
    }

    /// Whether the object of this name that was told of after `earlier` others of it has ended.
    pub(super) fn has_ended(&self, object: Object, name: &str, earlier: u16) -> bool {
        let known = self.known.get(&identity(object, &Scope::default(), name, earlier));
        known.is_some_and(|known| known.outcome() != State::Processing)
    }
}

fn identity(object: Object, scope: &Scope<'_>, name: &str, ordinal: u16) -> Identity {
    let owner = scope.owner.as_deref().filter(|_| object.is_scoped());
    Identity(hash(&(object, owner, name, ordinal)))
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
