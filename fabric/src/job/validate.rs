//! placeholder: what holds for every spec.
use super::JobSpec;
/// Why a spec is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SpecError {
    /// `task.command`
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}
impl JobSpec {
    /// Checks everything that the type does not.
    pub fn validate(&self) -> Result<(), SpecError> {
        Ok(())
    }
}
