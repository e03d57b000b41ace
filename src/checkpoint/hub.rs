//! `org/name[@revision]` in the local Hugging Face cache. Nothing is ever fetched.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::files::read_small;
use super::text::{self, list, shown};
use crate::error::{Error, Result};

/// The folder of the cache: the first of `HF_HUB_CACHE`, `HF_HOME` and the home directory that says where.
pub(super) fn cache() -> Option<PathBuf> {
    let set = |key: &str| env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    cache_from(set, env::home_dir().map(PathBuf::into_os_string))
}

fn cache_from(set: impl Fn(&str) -> Option<PathBuf>, home: Option<OsString>) -> Option<PathBuf> {
    set("HF_HUB_CACHE")
        .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| set("HF_HOME").map(|at| at.join("hub")))
        .or_else(|| set("XDG_CACHE_HOME").map(|at| at.join("huggingface").join("hub")))
        .or_else(|| home.map(|at| PathBuf::from(at).join(".cache").join("huggingface").join("hub")))
}

/// A name that could be one of the hub.
pub(super) struct Repo<'a> {
    /// `org/name` or, for the oldest models, `name`.
    pub(super) id: &'a str,
    revision: Option<&'a str>,
}

impl<'a> Repo<'a> {
    /// Reads `spec`, if it has the form of a name of the hub.
    pub(super) fn parse(spec: &'a str) -> Option<Self> {
        let (id, revision) = spec.split_once('@').map_or((spec, None), |(id, revision)| (id, Some(revision)));
        let part = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.') && !part.contains("..")
        };
        let parts = id.split('/').collect::<Vec<_>>();
        let named = parts.len() <= 2 && parts.iter().all(|p| part(p) && !p.contains("--"));
        (named && revision.is_none_or(|name| name.split('/').all(part))).then_some(Self { id, revision })
    }

    /// The snapshot of this model in `cache`, `None` if the model is not there at all.
    pub(super) fn find(&self, cache: &Path) -> Result<Option<PathBuf>> {
        let repo = cache.join(format!("models--{}", self.id.replace('/', "--")));
        if !repo.is_dir() {
            return Ok(None);
        }
        let revision = self.revision.unwrap_or("main");
        let pointer = repo.join("refs").join(revision);
        // The hub's own programs make no links here, and a link could lead to any file.
        let commit = match pointer.is_file() && !pointer.is_symlink() {
            true => String::from_utf8_lossy(&read_small(&pointer, 256)?).trim().to_owned(),
            false => revision.to_owned(),
        };
        let plain = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let snapshot = repo.join("snapshots").join(&commit);
        if plain && snapshot.is_dir() {
            return match snapshot.is_symlink() {
                false => Ok(Some(snapshot)),
                true => Err(Error::input(format!("the snapshot `{}` is a link", text::path(&snapshot)))
                    .hint("if you trust it, name the folder that it leads to")),
            };
        }
        let there = snapshots(&repo);
        let what = format!("`{}` is in the cache `{}`, but not its revision", self.id, text::path(cache));
        let error = Error::usage(format!("{what} `{}`", shown(revision)));
        Err(match there.is_empty() {
            true => error.hint(self.download()),
            false => error.hint(format!("there are {}", list(there.iter().map(String::as_str), 8))),
        })
    }

    /// The command that fills the cache.
    pub(super) fn download(&self) -> String {
        let revision = self.revision.map_or(String::new(), |name| format!(" --revision {name}"));
        format!("download it first: `hf download {}{revision}`", self.id)
    }
}

/// The snapshots of `repo`, each as a spec would name it.
fn snapshots(repo: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(repo.join("snapshots")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| format!("@{}", entry.file_name().to_string_lossy())).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_variable_that_is_set_says_where_the_cache_is() {
        let at = |known: &[(&str, &str)]| {
            let known: Vec<(String, PathBuf)> = known.iter().map(|(k, v)| ((*k).into(), v.into())).collect();
            cache_from(move |key| known.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()), Some("h".into()))
        };
        let hub = |path: &[&str]| Some(path.iter().collect::<PathBuf>());
        assert_eq!(at(&[("HF_HUB_CACHE", "c"), ("HF_HOME", "x")]), hub(&["c"]));
        assert_eq!(at(&[("HF_HOME", "x"), ("XDG_CACHE_HOME", "y")]), hub(&["x", "hub"]));
        assert_eq!(at(&[]), hub(&["h", ".cache", "huggingface", "hub"]));
    }

    #[test]
    fn only_names_of_the_hub_are_looked_up() {
        for good in ["gpt2", "org/name", "org/na-me_1.5@main", "org/name@refs/pr/1"] {
            assert!(Repo::parse(good).is_some(), "{good}");
        }
        for bad in
            ["", "/", "./a", "../a", "a/../b", "a/b/c", "a b/c", "/a/b", "a/b@", "a/b@../c", "a--b/c", "a\\b", "C:a"]
        {
            assert!(Repo::parse(bad).is_none(), "{bad}");
        }
    }
}
