//! An error with its causes in one line, each said once.
//!
//! Clients of object stores and of HTTP write the text of the cause into their own and name it as the source as well. Joined as they
//! come, the line that an operator reads repeats the answer of the provider up to six times.

use std::error::Error;
use std::fmt;

/// Displays an error and, behind colons, what each of its causes adds.
#[derive(Clone, Copy, Debug)]
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(": ");
                said.push_str(&text);
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("connection refused")]
    struct Refused;

    #[derive(Debug, thiserror::Error)]
    #[error("error sending request: {0}")]
    struct Send(#[source] Refused);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot use the storage")]
    struct Storage(#[source] Send);

    #[test]
    fn what_an_error_has_said_already_is_not_said_again() {
        let error = Storage(Send(Refused));
        assert_eq!(Causes(&error).to_string(), "cannot use the storage: error sending request: connection refused");
        assert_eq!(Causes(&Refused).to_string(), "connection refused");
    }
}
