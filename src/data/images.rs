//! Samples from a folder of images, or of a folder of images for each class.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::picture::Picture;
use super::processor::Processor;
use super::{Sample, Samples};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::Folder;
use crate::checkpoint::text::{self, list, shown};
use crate::error::{Error, Result};

/// At most `limit` samples of the folder, `size` [channels, height, width] each. Of classes the first image of each
/// comes first, then the second of each, and so on.
pub(super) fn read(dir: &Path, size: [u32; 3], model: &Checkpoint, limit: usize) -> Result<Samples> {
    let mut warnings = Vec::new();
    let (mut chosen, classes) = choose(dir, &mut warnings)?;
    chosen.truncate(limit);
    if !matches!(size[0], 1 | 3) {
        let (channels, model) = (size[0], shown(model.name()));
        return Err(Error::input(format!("images have 3 channels or 1, but the model `{model}` takes {channels}"))
            .hint("give its pixels as `pixel_values` in a `.safetensors` file"));
    }
    let processor = Processor::open(model, size[0], &mut warnings)?;
    let one = |(path, _): &(PathBuf, u32)| {
        let picture = Picture::open(path, size[0] as usize)?;
        let [height, width] = processor.size_of([picture.height, picture.width]);
        if [height, width] != [size[1] as usize, size[2] as usize] {
            let (at, config, model) = (text::path(path), processor.at(), shown(model.name()));
            let [.., rows, columns] = size;
            return Err(Error::input(format!(
                "`{at}` comes out {height} × {width} (height × width) of `{config}`, but the model `{model}` takes \
                 {rows} × {columns}"
            ))
            .hint("the two do not belong together: take `preprocessor_config.json` from the model's origin"));
        }
        processor.process(picture, path).map(Sample::Pixels)
    };
    // All results first: the error that is shown is that of the first image, not of the fastest thread.
    let samples: Vec<Result<Sample>> = chosen.par_iter().map(one).collect();
    let labels = (!classes.is_empty()).then(|| chosen.iter().map(|(_, class)| *class).collect());
    Ok(Samples {
        samples: samples.into_iter().collect::<Result<_>>()?,
        labels,
        classes,
        warnings,
        ..Samples::default()
    })
}

/// Images in the order of the samples, each with the number of its class; and the names of the classes.
type Chosen = (Vec<(PathBuf, u32)>, Vec<String>);

fn choose(dir: &Path, warnings: &mut Vec<String>) -> Result<Chosen> {
    let at = text::path(dir);
    let whole = Folder::open(dir.to_owned())?;
    let top = Entries::of(&whole, Path::new(""))?;
    top.warn(&at, warnings);
    if top.folders.is_empty() || !top.images.is_empty() {
        if let ([image, ..], [folder, ..]) = (&top.images[..], &top.folders[..]) {
            let (image, folder) = (image.to_string_lossy(), folder.to_string_lossy());
            let names = format!("the image `{}` and the folder `{}`", shown(&image), shown(&folder));
            return Err(Error::input(format!("`{at}` has both images and folders: {names}"))
                .hint("a data set is a folder of images, or of a folder of images for each class"));
        }
        if top.images.is_empty() {
            return Err(none(&at));
        }
        return Ok((top.images.into_iter().map(|name| (dir.join(name), 0)).collect(), Vec::new()));
    }
    let mut classes = Vec::with_capacity(top.folders.len());
    let mut images = Vec::with_capacity(top.folders.len());
    for name in top.folders {
        let folder = dir.join(&name);
        let entries = Entries::of(&whole, Path::new(&name))?;
        entries.warn(&text::path(&folder), warnings);
        if entries.images.is_empty() {
            return Err(none(&text::path(&folder)).hint(format!("every folder in `{at}` is a class with its images")));
        }
        classes.push(name.to_string_lossy().into_owned());
        images.push(entries.images.into_iter().map(move |image| folder.join(image)));
    }
    let mut order = Vec::new();
    loop {
        let begun = order.len();
        let turn = (0..).zip(&mut images).filter_map(|(class, images)| Some((images.next()?, class)));
        order.extend(turn);
        if order.len() == begun {
            return Ok((order, classes));
        }
    }
}

fn none(at: &str) -> Error {
    Error::input(format!("`{at}` has no PNG or JPEG image"))
        .hint("images end in .png, .jpg or .jpeg; for other data name its .txt, .jsonl or .safetensors file")
}

/// What is in a folder, sorted; hidden entries are passed over.
#[derive(Default)]
struct Entries {
    images: Vec<OsString>,
    folders: Vec<OsString>,
    others: Vec<OsString>,
}

impl Entries {
    /// Of the folder `below` in `whole`; links may lead to what is in that, and not out of it.
    fn of(whole: &Folder, below: &Path) -> Result<Self> {
        let dir = &whole.path().join(below);
        let failed = |e| text::cannot_read(dir, &e);
        let mut entries = Self::default();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let path = dir.join(&name);
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
            let names = match end.as_str() {
                _ if path.is_dir() => &mut entries.folders,
                "png" | "jpg" | "jpeg" => &mut entries.images,
                _ => {
                    entries.others.push(name);
                    continue;
                }
            };
            whole.file(below.join(&name))?;
            names.push(name);
        }
        [&mut entries.images, &mut entries.folders, &mut entries.others].into_iter().for_each(|names| names.sort());
        Ok(entries)
    }

    /// Says what is left out.
    fn warn(&self, at: &str, warnings: &mut Vec<String>) {
        let others: Vec<String> = self.others.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if !others.is_empty() {
            let names = list(others.iter().map(String::as_str), 4);
            warnings.push(format!("left out of `{at}`, as neither PNG nor JPEG: {names}"));
        }
    }
}
