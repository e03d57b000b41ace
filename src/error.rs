//! One error type. A message says what is wrong and where (file, tensor or key); a hint says what to type.

use std::fmt;
use std::path::Path;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as the exit code is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The command line or the recipe asks for something that does not exist (exit code 2).
    Usage,
    /// An input cannot be used as it is (exit code 1).
    Input,
    /// The output cannot be written (exit code 1).
    Output,
    /// The device cannot do the work (exit code 1).
    Device,
    /// The user stopped the run (exit code 130).
    Interrupted,
}

/// An error with its place, its remedy and its exit code.
///
/// It displays as one line that names the file, tensor or key; [`hints`](Self::hints) are further lines.
///
/// ```
/// use magic_merge::{Checkpoint, Kind};
///
/// let error = Checkpoint::open("assets/demo/bass", &[]).unwrap_err();
/// assert_eq!(error.kind(), Kind::Usage);
/// assert!(error.to_string().starts_with("`assets/demo/bass` does not exist"));
/// assert_eq!(error.hints(), ["did you mean `assets/demo/base`?"]);
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hints: Vec<String>,
}

#[doc(hidden)]
impl Error {
    /// A new error. `message` is lower case, without a full stop, with back quotes around paths and names.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new() }
    }

    /// See [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// See [`Kind::Input`].
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// See [`Kind::Output`].
    pub fn output(message: impl Into<String>) -> Self {
        Self::new(Kind::Output, message)
    }

    /// See [`Kind::Device`].
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(Kind::Device, message)
    }

    /// A failed read of `path`, which the command line or a recipe named: what is not there is wrong usage.
    pub fn read(path: &Path, source: &std::io::Error) -> Self {
        let at = path.display();
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::usage(format!("`{at}` does not exist")),
            _ => Self::input(format!("cannot read `{at}`: {source}")),
        }
    }

    /// Something else than a folder at `path`: nothing is wrong usage.
    pub fn no_folder(path: &Path) -> Self {
        let at = crate::checkpoint::text::path(path);
        match path.exists() {
            true => Self::input(format!("`{at}` is not a folder")),
            false => Self::usage(format!("`{at}` does not exist")),
        }
    }

    /// A failed write of `path`.
    pub fn write(path: &Path, source: &std::io::Error) -> Self {
        Self::output(format!("cannot write `{}`: {source}", path.display()))
    }

    /// Adds a line that says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same error, its message made a part of another.
    #[must_use]
    pub(crate) fn within(mut self, message: impl FnOnce(&str) -> String) -> Self {
        self.message = message(&self.message);
        self
    }
}

impl Error {
    /// The remedies, each a line.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// What went wrong, as far as the exit code is concerned.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The exit code of the process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Input | Kind::Output | Kind::Device => 1,
            Kind::Interrupted => 130,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The known name nearest to `given`, if one is near enough to be what was meant.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance takes time and memory of the product of the lengths.
    if given.len() > 256 {
        return None;
    }
    let near = |name: &&str| strsim::damerau_levenshtein(given, name) <= 1 + name.len() / 4;
    known.into_iter().filter(near).min_by_key(|name| strsim::damerau_levenshtein(given, name))
}
