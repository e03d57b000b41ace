//! The folder of that name in the product, as far as the targets need it.

/// Sums that are all the same, so that changed lines of a journal get past them.
mod digest {
    pub fn sha256(_: impl AsRef<[u8]>) -> String {
        "0".repeat(64)
    }
}
#[path = "../../src/checkpoint/disk.rs"]
mod disk;
#[path = "../../src/checkpoint/dtype.rs"]
pub mod dtype;
#[path = "../../src/checkpoint/faults.rs"]
mod faults;
#[path = "../../src/checkpoint/files.rs"]
pub(crate) mod files;
#[path = "../../src/checkpoint/header.rs"]
mod header;
#[path = "../../src/checkpoint/index.rs"]
mod index;
#[path = "../../src/checkpoint/journal.rs"]
mod journal;
#[path = "../../src/checkpoint/json.rs"]
mod json;
#[path = "../../src/checkpoint/text.rs"]
pub(crate) mod text;
#[path = "../../src/checkpoint/torch/mod.rs"]
mod torch;

/// A header and how many bytes follow it: its tensors must cover these, each once and in order.
pub fn header(bytes: &[u8], data: u64) -> crate::Result<()> {
    let mut end = 0;
    for entry in header::parse(bytes, data, "x.safetensors")? {
        assert_eq!(entry.begin, end);
        let elements = header::elements(&entry.shape).expect("it was counted before");
        assert_eq!(u128::from(elements) * u128::from(entry.dtype.bits()), u128::from(entry.end - entry.begin) * 8);
        assert!(header::check_name(&entry.name).is_ok() && !entry.name.contains(text::is_hostile));
        end = entry.end;
    }
    assert_eq!(end, data);
    Ok(())
}

/// An index: every shard is one plain name, and every tensor is in one of them.
pub fn index(bytes: &[u8]) -> crate::Result<()> {
    let index = index::parse(bytes, "model.safetensors.index.json", ".safetensors")?;
    for shard in &index.shards {
        let path = std::path::Path::new(shard);
        assert!(path.file_name().is_some_and(|name| name == shard.as_str()) && path.components().count() == 1);
    }
    assert!(index.map.values().all(|shard| *shard < index.shards.len()));
    Ok(())
}

/// A pickle: names of tensors, or an error.
pub fn pickle(bytes: &[u8]) -> crate::Result<()> {
    let names = torch::pickled_names(bytes)?;
    assert!(names.iter().all(|name| header::check_name(name).is_ok() && !name.contains(text::is_hostile)));
    Ok(())
}

/// A journal: what it lists begins where it says, or an error.
pub fn journal(bytes: &[u8]) -> crate::Result<()> {
    let Some(found) = journal::scan(bytes, ".magic.journal")? else { return Ok(()) };
    assert!(found.committing || !found.tensors.is_empty());
    Ok(())
}
