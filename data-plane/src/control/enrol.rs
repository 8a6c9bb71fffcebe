//! How an unknown machine becomes a node: join token + CSR → certificate.

use anyhow::{Context as _, anyhow};
use awe4lb_proto::v1::{self, enrolment_client::EnrolmentClient};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::{
    connect,
    identity::{Identity, PendingKey},
    state_dir::StateDir,
    token::JoinToken,
};

/// Why enrolment did not work.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Trying again cannot help: the token is wrong, used or expired, or the server is another cluster's.
    #[error("{0}")]
    Refused(String),
    /// The control plane cannot be reached now.
    #[error("{0:#}")]
    Unreachable(anyhow::Error),
    /// Something on this machine.
    #[error("{0:#}")]
    Local(anyhow::Error),
}

/// Enrols at `url` and stores the identity.
pub async fn enrol(
    url: &str,
    token: &JoinToken,
    name: Option<&str>,
    control_planes: &[String],
    dir: &StateDir,
) -> Result<Identity, EnrolError> {
    let pending = PendingKey::stored(dir, name).map_err(EnrolError::Local)?;
    let config = connect::unchecked_tls().map_err(EnrolError::Local)?;
    let stream = connect::dial(url, config).await.map_err(EnrolError::Unreachable)?;
    let chain: Vec<CertificateDer<'static>> = stream
        .get_ref()
        .1
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let channel = connect::channel(stream).await.map_err(EnrolError::Unreachable)?;
    let mut client = EnrolmentClient::new(channel);

    // Nothing is said over this connection before the server has proven to be of the token's cluster.
    let authority = call(client.authority(timed(v1::AuthorityRequest {})).await)?;
    let hash: [u8; 32] = Sha256::digest(&authority.ca_der).into();
    if hash != token.ca_hash {
        return Err(EnrolError::Refused(format!(
            "the control plane at {url} is not the one this join token was made by (its CA has another hash)"
        )));
    }
    let ca = CertificateDer::from(authority.ca_der.to_vec());
    connect::check_chain(&chain, &ca).map_err(|error| {
        EnrolError::Refused(format!("the certificate that {url} shows does not lead to its CA: {error:#}"))
    })?;

    let request = v1::EnrolRequest {
        token: token.expose().to_owned(),
        name: name.unwrap_or_default().to_owned(),
        csr_der: pending.csr_der.into(),
    };
    let reply = call(client.enrol(timed(request)).await)?;
    if reply.ca_der[..] != ca[..] {
        return Err(EnrolError::Refused(format!("{url} answered with another CA than it showed")));
    }
    let identity = Identity::new(
        reply.name,
        reply.ca_der.to_vec(),
        reply.certificate_der.to_vec(),
        pending.key_pem,
        control_planes.to_vec(),
    )
    .map_err(|error| {
        EnrolError::Refused(format!("{url} answered with a certificate of no use: {error:#}"))
    })?;
    identity.store(dir).context("store the identity").map_err(EnrolError::Local)?;
    PendingKey::forget(dir).map_err(|error| EnrolError::Local(error.into()))?;
    Ok(identity)
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(std::time::Duration::from_secs(10));
    request
}

/// Tells what trying again may help against.
fn call<T>(result: Result<tonic::Response<T>, tonic::Status>) -> Result<T, EnrolError> {
    use tonic::Code;
    let status = match result {
        Ok(response) => return Ok(response.into_inner()),
        Err(status) => status,
    };
    let refused = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unauthenticated
            | Code::Unimplemented
    );
    if refused {
        let message = match status.message() {
            "" => format!("the control plane refuses this join token ({:?})", status.code()),
            message => format!("the control plane refuses: {message}"),
        };
        return Err(EnrolError::Refused(message));
    }
    Err(EnrolError::Unreachable(anyhow!("{:?}: {}", status.code(), status.message())))
}
