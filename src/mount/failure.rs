//! Why something could not be done, in one line for who asked for it.

use std::fmt;
use std::path::Path;

use crate::error::{Errno, Error};
use crate::name::on_one_line;

/// One line that tells an option or a path, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure in these words.
    pub fn new(line: impl Into<String>) -> Self {
        Self(on_one_line(&line.into()))
    }

    /// A failure on `path`, which is `what`.
    pub(super) fn on(what: &str, path: &Path, errno: Errno) -> Self {
        Self::new(format!("{what}{}: {}", path.display(), reason(errno)))
    }
}

/// What an errno means, without its number.
pub fn reason(errno: Errno) -> String {
    without_number(&std::io::Error::from(errno).to_string())
}

fn without_number(text: &str) -> String {
    let end = format!(" (os error {})", text.rsplit(' ').next().unwrap_or_default().trim_end_matches(')'));
    text.strip_suffix(end.as_str()).unwrap_or(text).to_owned()
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = without_number(&error.to_string());
        // What was done is told by what it was done on, if that is known.
        match text.strip_prefix(error.operation()).and_then(|rest| rest.strip_prefix(' ')) {
            Some(rest) => Self::new(rest),
            None => Self::new(text),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(Errno::IO, "mount").because(failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_becomes_one_line() {
        let line = |error| Failure::from(error).to_string();
        let missing = Error::new(Errno::NOENT, "open");
        assert_eq!(line(missing), "open: No such file or directory");
        let named = Error::new(Errno::NOENT, "open").on("lowerdir=/x");
        assert_eq!(line(named), "lowerdir=/x: No such file or directory");
        let told = Error::new(Errno::BUSY, "lock").on("upperdir=/a\nb").because("in use by another mount");
        assert_eq!(line(told), "upperdir=/a\\nb: in use by another mount");
        let system = Error::from(std::io::Error::from(Errno::ACCESS));
        assert_eq!(line(system), "system call: Permission denied");
    }
}
