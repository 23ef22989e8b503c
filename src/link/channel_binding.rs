//! The channel binding `tls-server-end-point` (RFC 5929, section 4.1): a hash of the server's
//! certificate, which ties the password exchange to this very TLS connection.
//!
//! The hash is the one of the certificate's own signature, with SHA-256 in place of MD5 and SHA-1.
//! A certificate whose signature has no single hash (Ed25519) has no such binding.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::{ContextSpecific, ObjectIdentifier};
use x509_cert::der::{Decode, TagNumber};
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

/// The binding for a certificate in DER, or `None` where none is defined.
pub(super) fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let hash = match signature_hash(parsed.signature_algorithm())? {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    };
    Some(hash)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

fn signature_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<Hash> {
    if algorithm.oid == RSASSA_PSS {
        return pss_hash(algorithm);
    }
    match algorithm.oid.to_string().as_str() {
        // RSA (PKCS #1 1.5) and ECDSA; MD5 and SHA-1 are replaced as the RFC says.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => Some(Hash::Sha256),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some(Hash::Sha224),
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => Some(Hash::Sha256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Hash::Sha384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Hash::Sha512),
        _ => None,
    }
}

/// RSASSA-PSS names its hash in the parameters; SHA-1 where it does not.
fn pss_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<Hash> {
    let hash = algorithm
        .parameters
        .as_ref()?
        .sequence(|reader| {
            let hash = ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode_explicit(
                reader,
                TagNumber(0),
            )?;
            // What follows (mask function, salt length) does not matter here.
            x509_cert::der::Reader::read_slice(
                reader,
                x509_cert::der::Reader::remaining_len(reader),
            )?;
            Ok::<_, x509_cert::der::Error>(hash.map(|hash| hash.value.oid.to_string()))
        })
        .ok()?;
    match hash.as_deref() {
        None | Some("1.3.14.3.2.26") => Some(Hash::Sha256),
        Some("2.16.840.1.101.3.4.2.1") => Some(Hash::Sha256),
        Some("2.16.840.1.101.3.4.2.2") => Some(Hash::Sha384),
        Some("2.16.840.1.101.3.4.2.3") => Some(Hash::Sha512),
        Some("2.16.840.1.101.3.4.2.4") => Some(Hash::Sha224),
        Some(_) => None,
    }
}
