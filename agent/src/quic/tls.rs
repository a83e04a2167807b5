//! TLS 1.3 where a peer is its Ed25519 key: raw public keys (RFC 7250) on both sides, no certificates.
//!
//! The name of the server that a client asks for is the key that it expects (never sent over the wire:
//! SNI is off), so one configuration serves all connections. Sessions are never resumed: each handshake
//! proves both keys anew.

use anyhow::Context;
use fabric::id::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme, version,
};
use std::any::Any;
use std::sync::Arc;

use super::provider::provider;
use crate::identity::Identity;

/// Names the application protocol and its version.
const ALPN: &[u8] = b"weft/1";
/// Asks for a server with any key: what a joiner does, who checks the fabric's signature instead.
const ANYBODY: &str = "anybody.weft";
/// SubjectPublicKeyInfo of an Ed25519 key, up to the key itself (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The server name that makes [`client`] accept only `expected`; `None`: any key.
pub(super) fn server_name(expected: Option<&NodeId>) -> String {
    match expected {
        Some(node) => {
            let key = node.to_string();
            let (first, second) = key.split_at(key.len() / 2);
            format!("{first}.{second}.weft")
        }
        None => ANYBODY.to_owned(),
    }
}

/// The key that the peer of a connection has proved to hold.
pub(super) fn peer_key(identity: Option<Box<dyn Any>>) -> Option<NodeId> {
    let keys = identity?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    raw_key(keys.first()?)
}

/// For connections to others.
pub(super) fn client(identity: &Identity) -> anyhow::Result<Arc<QuicClientConfig>> {
    let provider = Arc::new(provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .context("the TLS library has no TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RawKeys { provider }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own_key(
            identity,
        )?)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    let config = QuicClientConfig::try_from(config).context("the TLS library has no AES-GCM")?;
    Ok(Arc::new(config))
}

/// For connections from others.
pub(super) fn server(identity: &Identity) -> anyhow::Result<Arc<QuicServerConfig>> {
    let provider = Arc::new(provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .context("the TLS library has no TLS 1.3")?
        .with_client_cert_verifier(Arc::new(RawKeys { provider }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own_key(identity)?)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let config = QuicServerConfig::try_from(config).context("the TLS library has no AES-GCM")?;
    Ok(Arc::new(config))
}

fn own_key(identity: &Identity) -> anyhow::Result<Arc<CertifiedKey>> {
    let mut spki = SPKI_PREFIX.to_vec();
    spki.extend_from_slice(&identity.id().0);
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(identity.pkcs8()))
        .context("the node's key cannot sign")?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key)))
}

/// The key of a SubjectPublicKeyInfo, if it is Ed25519.
fn raw_key(spki: &CertificateDer<'_>) -> Option<NodeId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    key.try_into().ok().map(NodeId)
}

/// Takes Ed25519 keys and nothing else, and has rustls check that the peer holds them.
#[derive(Debug)]
struct RawKeys {
    provider: Arc<CryptoProvider>,
}

impl RawKeys {
    fn key(
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<NodeId, Error> {
        let key = raw_key(end_entity).filter(|_| intermediates.is_empty());
        key.ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key.as_ref()),
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

fn tls13_only() -> Error {
    Error::General("raw keys are for TLS 1.3".to_owned())
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        expected: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = Self::key(end_entity, intermediates)?;
        let expected = expected.to_str();
        if expected == ANYBODY || expected == server_name(Some(&key)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls13_only())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    // Whether the key may speak is decided by the greeting: a joiner's key is in no roster yet.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::key(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls13_only())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
