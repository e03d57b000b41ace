//! What a model wants done to its images: `preprocessor_config.json`, read as Hugging Face's image processors do.

use std::path::Path;

use serde_json::{Map, Value};

use super::family::{Family, Size};
use super::picture::Picture;
use super::resize::{Filter, resize};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::text::{self, list, shown};
use crate::error::{Error, Result};

const FILE: &str = "preprocessor_config.json";
/// Where newer models with a text side keep the same, below `image_processor`.
const COMBINED: &str = "processor_config.json";

/// Most pixels of an image, also between the two steps of a resize.
const MOST_PIXELS: usize = 1 << 25;

/// The steps from an image to pixels: resize, crop, rescale, normalize.
#[derive(Debug)]
pub(super) struct Processor {
    at: String,
    resize: Option<(Size, Filter)>,
    crop: Option<[usize; 2]>,
    /// What bytes are multiplied by.
    factor: f64,
    /// Mean and standard deviation of each channel.
    normal: Vec<(f32, f32)>,
}

impl Processor {
    /// Reads the processor of the model, for images of so many channels.
    ///
    /// # Errors
    /// The model is a single file or has no `preprocessor_config.json`, or that file asks for what is not done here.
    pub(super) fn open(model: &Checkpoint, channels: u32, warnings: &mut Vec<String>) -> Result<Self> {
        let (at, keys) = find(model)?;
        let keys = Keys { at: &at, keys };
        let family = keys.family(model, warnings)?;
        for key in ["do_flip_channel_order", "do_reduce_labels", "do_thumbnail", "do_align_long_axis"] {
            if keys.flag(key, false)? {
                return Err(keys.bad(&format!("asks for `{key}`, which is not done here")));
            }
        }
        let resize = match keys.flag("do_resize", true)? {
            false => None,
            true => Some((keys.size("size", family.size, family.square)?, keys.filter(family.filter)?)),
        };
        let crop = match keys.flag("do_center_crop", family.crop.is_some())? {
            false => None,
            true => match keys.size("crop_size", Size::Exactly(family.crop.unwrap_or([224, 224])), true)? {
                Size::Exactly(size) => Some(size),
                Size::ShortestEdge(_) => return Err(keys.bad("has a `crop_size` without `height` and `width`")),
            },
        };
        let factor = match keys.flag("do_rescale", true)? {
            false => 1.0,
            true => keys.number("rescale_factor", 1.0 / 255.0)?,
        };
        let normal = match keys.flag("do_normalize", true)? {
            false => vec![(0.0, 1.0); channels as usize],
            true => {
                let mean = keys.channels("image_mean", family.mean, channels)?;
                let std = keys.channels("image_std", family.std, channels)?;
                if std.contains(&0.0) {
                    return Err(keys.bad("has an `image_std` of 0"));
                }
                mean.into_iter().zip(std).collect()
            }
        };
        Ok(Self { resize, crop, factor, normal, at })
    }

    /// Path of its file.
    pub(super) fn at(&self) -> &str {
        &self.at
    }

    /// Height and width of what becomes of an image of that height and width.
    pub(super) fn size_of(&self, from: [usize; 2]) -> [usize; 2] {
        self.crop.unwrap_or_else(|| self.resize.map_or(from, |(size, _)| size.of(from)))
    }

    /// Pixels [channels, height, width] of an image, as [`Processor::size_of`] says. `path` is for messages.
    ///
    /// # Errors
    /// An image that is so long that it would become too large; a pixel that is not finite.
    pub(super) fn process(&self, picture: Picture, path: &Path) -> Result<Vec<f32>> {
        let picture = match self.resize {
            None => picture,
            Some((size, filter)) => {
                let [height, width] = size.of([picture.height, picture.width]);
                let most = height.max(picture.height).saturating_mul(width);
                if most > MOST_PIXELS || height == 0 || width == 0 {
                    let (from, at) = (format!("{} × {}", picture.height, picture.width), text::path(path));
                    let what = format!("`{at}` is {from} (height × width) and would become {height} × {width}");
                    return Err(Error::input(what).hint("remove the image, or cut it to a shape nearer to a square"));
                }
                resize(picture, height, width, filter)
            }
        };
        let [height, width] = self.crop.unwrap_or([picture.height, picture.width]);
        let mut pixels = Vec::with_capacity(height * width * picture.channels);
        for (channel, (mean, std)) in self.normal.iter().enumerate() {
            let value = |byte: u8| ((f64::from(byte) * self.factor) as f32 - mean) / std;
            let values: Vec<f32> = (0..=255).map(value).collect();
            for row in 0..height {
                for column in 0..width {
                    let inside =
                        from_center(row, height, picture.height).zip(from_center(column, width, picture.width));
                    // What a crop has beyond the image is black.
                    let byte =
                        inside.map_or(0, |(y, x)| picture.bytes[(y * picture.width + x) * picture.channels + channel]);
                    pixels.push(values[usize::from(byte)]);
                }
            }
        }
        if pixels.iter().all(|pixel| pixel.is_finite()) {
            return Ok(pixels);
        }
        Err(Error::input(format!(
            "`{}` turns pixels of `{}` into numbers that are not finite",
            self.at,
            text::path(path)
        ))
        .hint(ELSEWHERE))
    }
}

/// Where place `at` of a crop to `to` lies in the `from` places that it is the middle of.
fn from_center(at: usize, to: usize, from: usize) -> Option<usize> {
    let place = match from.checked_sub(to) {
        Some(surplus) => at + surplus / 2,
        None => at.checked_sub((to - from).div_ceil(2))?,
    };
    (place < from).then_some(place)
}

const ELSEWHERE: &str =
    "process the images with the model's own processor and save its `pixel_values` in a `.safetensors` file";

/// The object that describes the processor, and the path of its file.
fn find(model: &Checkpoint) -> Result<(String, Map<String, Value>)> {
    for (name, below) in [(FILE, None), (COMBINED, Some("image_processor"))] {
        let Some((path, bytes)) = model.side_file(name)? else { continue };
        let at = text::path(&path);
        let bad = |why: &str| {
            Error::input(format!("`{at}` holds no JSON object: {why}")).hint("take the file from the model's origin")
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| bad(&shown(&e.to_string())))?;
        let Value::Object(mut keys) = value else { return Err(bad("it holds another value")) };
        match below.map(|below| keys.remove(below)) {
            None => return Ok((at, keys)),
            Some(Some(Value::Object(keys))) => return Ok((at, keys)),
            Some(_) => {}
        }
    }
    Err(match model.folder() {
        Some(folder) => Error::input(format!("images need `{FILE}`, and `{}` has none", text::path(folder)))
            .hint("copy it from the model's origin")
            .hint(format!("or {ELSEWHERE}")),
        None => Error::input(format!("images need `{FILE}`, and `{}` is a single file", shown(model.name())))
            .hint("name the folder of the model")
            .hint(format!("or {ELSEWHERE}")),
    })
}

/// The keys of the file; one that is null counts as missing, as in Hugging Face's reader.
struct Keys<'a> {
    at: &'a str,
    keys: Map<String, Value>,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn bad(&self, what: &str) -> Error {
        Error::input(format!("`{}` {what}", self.at)).hint(ELSEWHERE)
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        let given = self.get(key).map(Value::to_string).unwrap_or_default();
        self.bad(&format!("has `{key}`: `{}`, which is not {wanted}", shown(&given)))
    }

    /// The kind of processor, by its own name or else by that of the model.
    fn family(&self, model: &Checkpoint, warnings: &mut Vec<String>) -> Result<&'static Family> {
        let name = ["image_processor_type", "feature_extractor_type"].into_iter().find_map(|key| self.get(key));
        if let Some(name) = name {
            let Some(name) = name.as_str() else { return Err(self.bad("names a processor that is not a string")) };
            return Family::of_processor(name).ok_or_else(|| {
                let known = list(Family::names(), 16);
                self.bad(&format!("asks for `{}`, which is not known here (known are those of {known})", shown(name)))
            });
        }
        let config = model.config()?;
        let of_model = config.as_ref().and_then(|config| Family::of_model(config.get("model_type")?.as_str()?));
        Ok(of_model.unwrap_or_else(|| {
            warnings.push(format!("`{}` does not name its processor: read as that of ViT", self.at));
            Family::vit()
        }))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    fn filter(&self, default: Filter) -> Result<Filter> {
        let Some(value) = self.get("resample") else { return Ok(default) };
        let known = value.as_u64().and_then(Filter::from_pil);
        known.ok_or_else(|| self.wrong("resample", "1 (Lanczos), 2 (bilinear) or 3 (bicubic)"))
    }

    /// `{height, width}`, `{shortest_edge}`, `[height, width]`, or a number: a square or the shortest edge.
    fn size(&self, key: &str, default: Size, square: bool) -> Result<Size> {
        let side = |value: &Value| value.as_u64().map(|n| n as usize).filter(|n| (1..=1 << 16).contains(n));
        let size = match self.get(key) {
            None => return Ok(default),
            Some(Value::Object(size)) => {
                let get = |key: &str| size.get(key).filter(|value| !value.is_null());
                let others = size.iter().filter(|(_, value)| !value.is_null()).count();
                match (get("height"), get("width"), get("shortest_edge"), others) {
                    (Some(height), Some(width), None, 2) => {
                        side(height).zip(side(width)).map(|(h, w)| Size::Exactly([h, w]))
                    }
                    (None, None, Some(edge), 1) => side(edge).map(Size::ShortestEdge),
                    _ => None,
                }
            }
            Some(Value::Array(sides)) => match &sides[..] {
                [height, width] => side(height).zip(side(width)).map(|(h, w)| Size::Exactly([h, w])),
                _ => None,
            },
            Some(value) if square => side(value).map(|n| Size::Exactly([n, n])),
            Some(value) => side(value).map(Size::ShortestEdge),
        };
        size.ok_or_else(|| self.wrong(key, "a size from 1 to 65536 of `height` and `width` or of `shortest_edge`"))
    }

    /// A number for each channel, from a list or from one for all.
    fn channels(&self, key: &str, default: [f32; 3], channels: u32) -> Result<Vec<f32>> {
        let wrong = || self.wrong(key, &format!("{channels} finite numbers, one for each channel"));
        let values: Vec<f32> = match self.get(key) {
            None if channels == 3 => default.to_vec(),
            None => return Err(self.bad(&format!("has no `{key}`, whose usual values are for 3 channels"))),
            Some(Value::Array(values)) => {
                values.iter().map(|value| value.as_f64().map(|v| v as f32).ok_or_else(wrong)).collect::<Result<_>>()?
            }
            Some(value) => vec![value.as_f64().ok_or_else(wrong)? as f32; channels as usize],
        };
        let fits = values.len() == channels as usize && values.iter().all(|value| value.is_finite());
        fits.then_some(values).ok_or_else(wrong)
    }
}
