//! A folder for several results, of which nothing stays unless all of them are there.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use magic_merge::{Error, Result};

/// A folder that the user named, or a temporary one.
pub struct Folder {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
    /// Whether this made the folder.
    made: bool,
    /// What lies in it and goes with it.
    inside: RefCell<Vec<PathBuf>>,
    keep: Cell<bool>,
}

impl Folder {
    /// `named`, which must be empty or not there; else a temporary folder, which never stays.
    pub fn new(named: Option<&Path>) -> Result<Self> {
        let (inside, keep) = (RefCell::default(), Cell::default());
        let Some(path) = named else {
            let temporary = tempfile::Builder::new().prefix("magic-").tempdir();
            let temporary = temporary.map_err(|e| Error::write(&std::env::temp_dir(), &e))?;
            let path = temporary.path().to_owned();
            return Ok(Self { path, temporary: Some(temporary), made: false, inside, keep });
        };
        let path = path.to_owned();
        if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::output(format!("the output folder `{}` is not empty", path.display()))
                .hint("choose another folder"));
        }
        let made = !path.exists();
        fs::create_dir_all(&path).map_err(|e| Error::write(&path, &e))?;
        Ok(Self { path, temporary: None, made, inside, keep })
    }

    /// The place of a result in it.
    pub fn add(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        if path.exists() {
            return Err(Error::usage(format!("`{name}` is asked for twice")));
        }
        self.inside.borrow_mut().push(path.clone());
        Ok(path)
    }

    /// All results are there.
    pub fn keep(&self) {
        self.keep.set(true);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary.is_some() || self.keep.get() {
            return;
        }
        // Failures have no remedy here.
        for path in self.inside.borrow().iter() {
            let _ = fs::remove_dir_all(path);
        }
        if self.made {
            let _ = fs::remove_dir(&self.path);
        }
    }
}
