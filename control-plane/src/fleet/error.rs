//! What can go wrong when somebody asks the fleet for something.

/// For the REST handlers and the services to translate.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// There is none of this name.
    #[error("there is no {0}")]
    NotFound(String),
    /// It cannot be done in this state.
    #[error("{0}")]
    Conflict(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Whoever asks may not.
    #[error("{0}")]
    Refused(String),
    /// The database.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The certificate authority.
    #[error("certificate authority: {0}")]
    Authority(String),
    /// The sealed storage.
    #[error("sealed storage: {0}")]
    Seal(String),
    /// An object cannot be encoded.
    #[error(transparent)]
    Wire(#[from] awe4lb_proto::WireError),
}

impl From<rcgen::Error> for FleetError {
    fn from(error: rcgen::Error) -> Self {
        Self::Authority(error.to_string())
    }
}

impl From<FleetError> for tonic::Status {
    fn from(error: FleetError) -> Self {
        let text = error.to_string();
        match error {
            FleetError::NotFound(_) => Self::not_found(text),
            FleetError::Conflict(_) => Self::failed_precondition(text),
            FleetError::Invalid(_) => Self::invalid_argument(text),
            FleetError::Refused(_) => Self::permission_denied(text),
            FleetError::Database(_)
            | FleetError::Authority(_)
            | FleetError::Seal(_)
            | FleetError::Wire(_) => {
                tracing::error!(error = %text, "a call of a node failed");
                Self::unavailable("the control plane has a problem, see its log")
            }
        }
    }
}
