//! One error type for the whole house: what failed, on what, and which errno the caller gets.

use std::error::Error as StdError;
use std::fmt;
use std::io;

pub use rustix::io::Errno;

/// A failed operation.
///
/// `errno` is what the caller of the mounted tree sees; the rest is for the log and the command line.
#[derive(Debug)]
pub struct Error {
    errno: Errno,
    operation: &'static str,
    /// What it failed on, where that is known; boxed, so that a plain errno stays small and free of allocation.
    subject: Option<Box<str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of `operation` with `errno`.
    pub const fn new(errno: Errno, operation: &'static str) -> Self {
        Self { errno, operation, subject: None, source: None }
    }

    /// Names what the operation failed on.
    #[must_use]
    pub fn on(mut self, subject: impl Into<Box<str>>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Adds the underlying reason.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The errno that the caller gets.
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// Whether the underlying reason is a `T`.
    pub fn source_is<T: StdError + 'static>(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is::<T>())
    }

    /// The operation that failed.
    pub const fn operation(&self) -> &'static str {
        self.operation
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if let Some(subject) = &self.subject {
            write!(f, " {subject}")?;
        }
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => write!(f, ": {}", io::Error::from(self.errno)),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::new(errno, "system call")
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Self::new(errno, "system call").because(error)
    }
}

/// Says which operation a bare errno came from.
pub trait Context<T> {
    /// Turns the error into an [`Error`] of `operation`.
    ///
    /// # Errors
    /// The same errno, with the operation's name.
    fn during(self, operation: &'static str) -> Result<T>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn during(self, operation: &'static str) -> Result<T> {
        self.map_err(|errno| Error::new(errno, operation))
    }
}
