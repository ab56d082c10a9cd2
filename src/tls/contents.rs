//! Hashes of files, to detect changes.

use std::io;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::front::ServerFiles;
use super::trust::Trust;

/// The hash of each of several files, or why it cannot be read. File times are not compared: package managers, `cp
/// -p` and `tar` set them arbitrarily.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileHashes(Vec<Result<[u8; 32], io::ErrorKind>>);

impl FileHashes {
    /// Hashes the files of a listener.
    pub fn for_server(files: &ServerFiles) -> Self {
        let ServerFiles { certificate, key, client_ca } = files;
        Self::from_files([certificate, key].into_iter().chain(client_ca))
    }

    /// Hashes the files for connections to a backend: its authorities, and the client certificate with its key.
    pub fn for_client(trust: &Trust, client_certificate: Option<&(PathBuf, PathBuf)>) -> Self {
        let authorities = match trust {
            Trust::Authority(path) => Some(path),
            Trust::System | Trust::Pinned(_) | Trust::Insecure => None,
        };
        let own = client_certificate.into_iter().flat_map(|(certificate, key)| [certificate, key]);
        let mut contents = Self::from_files(authorities.into_iter().chain(own));
        if *trust == Trust::System {
            let mut hash = Sha256::new();
            for authority in rustls_native_certs::load_native_certs().certs {
                hash.update(&authority);
            }
            contents.0.push(Ok(hash.finalize().into()));
        }
        contents
    }

    fn from_files<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Self {
        let hash = |path| std::fs::read(path).map(|text| Sha256::digest(text).into());
        Self(paths.map(|path| hash(path).map_err(|error| error.kind())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_connection_to_a_backend_counts_by_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let [ca, certificate, key] = ["ca", "certificate", "key"].map(|name| folder.path().join(name));
        let (trust, own) = (Trust::Authority(ca.clone()), (certificate, key));
        let contents = || FileHashes::for_client(&trust, Some(&own));
        let mut known = vec![contents()];
        for path in [&ca, &own.0, &own.1] {
            for text in ["one", "two"] {
                std::fs::write(path, text).unwrap();
                let now = contents();
                assert!(!known.contains(&now), "{path:?} {text}");
                assert_eq!(now, contents());
                known.push(now);
            }
        }
    }
}
