//! The secrets of fingerprints.

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

/// A secret for fingerprints.
pub(super) type Secret = [u8; 32];

/// The secrets that fingerprints in the ledger may have been made with.
#[derive(Clone)]
pub(super) struct FingerprintSecrets(Arc<Mutex<Inner>>);

struct Inner {
    /// New fingerprints are made with the first one.
    secrets: Vec<Secret>,
    /// Whether fingerprints may have been made.
    used: bool,
}

impl FingerprintSecrets {
    /// Creates the set with a random secret, which a ledger without a secret adopts. All but twelve of its bits are
    /// random.
    pub(super) fn random() -> Self {
        let mut secret = [0; 32];
        let (first, second) = secret.split_at_mut(16);
        first.copy_from_slice(Uuid::new_v4().as_bytes());
        second.copy_from_slice(Uuid::new_v4().as_bytes());
        Self::new(secret)
    }

    fn new(secret: Secret) -> Self {
        Self(Arc::new(Mutex::new(Inner { secrets: vec![secret], used: false })))
    }

    /// All secrets, for a caller that makes fingerprints.
    pub(super) fn all(&self) -> Vec<Secret> {
        let mut known = self.inner();
        known.used = true;
        known.secrets.clone()
    }

    /// Replaces the secrets by those of the ledger. `exchange` loads them, given a new one for a ledger without any,
    /// and stores there the used ones. Other callers do not wait for it.
    pub(super) fn exchange<E>(
        &self,
        mut exchange: impl FnMut(Secret, &[Secret]) -> Result<Vec<Secret>, E>,
    ) -> Result<(), E> {
        loop {
            let (secrets, used) = {
                let known = self.inner();
                (known.secrets.clone(), known.used)
            };
            let new = secrets.first().copied().unwrap_or_default();
            let found = exchange(new, if used { &secrets } else { &[] })?;
            let mut known = self.inner();
            // If it was used meanwhile, the secret must be stored too.
            if known.used == used {
                known.secrets = found;
                return Ok(());
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }
}

impl fmt::Debug for FingerprintSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secrets>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_does_not_wait_for_the_file_to_get_the_secrets_and_the_one_that_it_used_is_kept() {
        let secrets = FingerprintSecrets::new([2; 32]);
        let mut stored = vec![[1; 32]];
        let exchanged: Result<(), ()> = secrets.exchange(|new, used| {
            assert_eq!(new, [2; 32]);
            // A locked mutex would block until the file has answered.
            assert!(secrets.0.try_lock().is_some());
            secrets.all();
            stored.extend(used);
            Ok(stored.clone())
        });
        assert_eq!(exchanged, Ok(()));
        assert_eq!(secrets.all(), [[1; 32], [2; 32]]);
    }
}
