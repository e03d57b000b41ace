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
    let home = home.map(PathBuf::from);
    // A variable that no shell has seen may still begin with `~`, as the hub's own programs allow.
    let set = |key: &str| {
        let at = set(key)?;
        Some(at.strip_prefix("~").ok().zip(home.as_ref()).map_or(at.clone(), |(below, home)| home.join(below)))
    };
    set("HF_HUB_CACHE")
        .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| set("HF_HOME").map(|at| at.join("hub")))
        .or_else(|| set("XDG_CACHE_HOME").map(|at| at.join("huggingface").join("hub")))
        .or_else(|| home.as_ref().map(|at| at.join(".cache").join("huggingface").join("hub")))
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
        let there = snapshots(&repo);
        let commit = match &starting_with(&there, &commit)[..] {
            [] => commit,
            [one] => (*one).to_owned(),
            several => {
                let what = format!("`{}@{}` could be more than one snapshot in the cache", self.id, shown(revision));
                return Err(Error::usage(what).hint(format!("there are {}", specs(several))));
            }
        };
        let snapshot = repo.join("snapshots").join(&commit);
        if is_plain(&commit) && snapshot.is_dir() {
            return match snapshot.is_symlink() {
                false => Ok(Some(snapshot)),
                true => Err(Error::input(format!("the snapshot `{}` is a link", text::path(&snapshot)))
                    .hint("if you trust it, name the folder that it leads to")),
            };
        }
        let what = format!("`{}` is in the cache `{}`, but not its revision", self.id, text::path(cache));
        let error = Error::usage(format!("{what} `{}`", shown(revision)));
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        let error = if there.is_empty() { error } else { error.hint(format!("there are {}", specs(&there))) };
        Err(error.hint(self.download()))
    }

    /// The command that fills the cache.
    pub(super) fn download(&self) -> String {
        format!("download it first: `{}`", self.command())
    }

    fn command(&self) -> String {
        let revision = self.revision.map_or(String::new(), |name| format!(" --revision {name}"));
        format!("hf download {}{revision}", self.id)
    }
}

/// Whether `commit` can be the name of a snapshot.
fn is_plain(commit: &str) -> bool {
    !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Names of the snapshots of `repo`.
fn snapshots(repo: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(repo.join("snapshots")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).take(1000).collect();
    names.sort_unstable();
    names
}

/// The snapshot `commit`, or those that it is the beginning of, as of any commit: seven digits or more.
fn starting_with<'a>(snapshots: &'a [String], commit: &str) -> Vec<&'a str> {
    let is_short = commit.len() >= 7 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    match snapshots.iter().find(|name| *name == commit) {
        Some(exact) => vec![exact],
        None => snapshots.iter().filter(|name| is_short && name.starts_with(commit)).map(String::as_str).collect(),
    }
}

/// Snapshots in a message, each as a spec would name it.
fn specs(snapshots: &[&str]) -> String {
    let specs: Vec<String> = snapshots.iter().map(|name| format!("@{name}")).collect();
    list(specs.iter().map(String::as_str), 8)
}

/// A folder that is a snapshot in the cache, whoever named it.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// `models--org--name`.
    repo: PathBuf,
    commit: String,
}

impl Snapshot {
    /// The snapshot that the folder `real` is or lies in, if its path has the form of one.
    pub(super) fn of(real: &Path) -> Option<Self> {
        let commit = real.ancestors().find(|dir| {
            let repo = dir.parent().filter(|dir| dir.file_name().is_some_and(|name| name == "snapshots"));
            let repo = repo.and_then(Path::parent).and_then(Path::file_name).and_then(|name| name.to_str());
            repo.is_some_and(|name| name.starts_with("models--"))
        })?;
        let repo = commit.parent()?.parent()?.to_owned();
        Some(Self { repo, commit: commit.file_name()?.to_string_lossy().into_owned() })
    }

    /// Whether links of the snapshot lead to the file `real`: it is among the repository's blobs, or one that the cache
    /// keeps for all repositories, under its hash.
    pub(super) fn links_to(&self, real: &Path) -> bool {
        real.starts_with(self.repo.join("blobs")) || self.is_shared(real)
    }

    fn is_shared(&self, real: &Path) -> bool {
        let store = self.repo.with_file_name("blobs");
        let hash = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_hash = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash && real == store.join(&hash[..2]).join(hash) && store.join(".huggingface-shared-blobs").is_file()
    }

    /// The command that downloads what is missing of it, if it can be typed safely.
    pub(super) fn download(&self) -> Option<String> {
        let name = self.repo.file_name()?.to_str()?.strip_prefix("models--")?.replace("--", "/");
        let id = Repo::parse(&name).filter(|repo| repo.revision.is_none() && is_plain(&self.commit))?.id;
        Some(Repo { id, revision: Some(&self.commit) }.command())
    }
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
        assert_eq!(at(&[("HUGGINGFACE_HUB_CACHE", "c"), ("HF_HOME", "x")]), hub(&["c"]));
        assert_eq!(at(&[("XDG_CACHE_HOME", "y")]), hub(&["y", "huggingface", "hub"]));
        assert_eq!(at(&[("HF_HOME", "~/x")]), hub(&["h", "x", "hub"]));
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
