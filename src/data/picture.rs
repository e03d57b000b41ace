//! One image file as bytes.

use std::io::BufReader;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::guard::guarded;
use crate::checkpoint::files::open_file;
use crate::checkpoint::text::{self, shown};
use crate::error::{Error, Result};

/// Longest file.
const MAX_FILE: u64 = 256 << 20;
/// Most rows and columns.
const MAX_SIDE: u32 = 16384;
/// Most bytes of a decoded image: 44 million pixels of red, green and blue. A decoder may take twice that for itself.
const MAX_DECODED: u64 = 128 << 20;
/// Images larger than this are decoded one at a time, whatever the number of threads.
const LARGE: u64 = 32 << 20;

/// An image [height, width, channels] of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) bytes: Vec<u8>,
}

impl Picture {
    /// Decodes a PNG or JPEG file, whatever its name says, to red, green and blue or, for one channel, to grey as PIL
    /// makes it (ITU-R 601). Transparency is left out, and images are not turned by what EXIF says: neither do
    /// Hugging Face's processors.
    ///
    /// # Errors
    /// No image, a damaged one, one larger than 16384 × 16384 or 128 MiB decoded.
    pub(super) fn open(path: &Path, channels: usize) -> Result<Self> {
        let at = text::path(path);
        let bad = |why: &str| {
            Error::input(format!("`{at}` cannot be decoded as an image: {why}"))
                .hint("remove the file, or save it again or smaller")
        };
        let (file, len) = open_file(path)?;
        if len > MAX_FILE {
            return Err(bad(&format!(
                "it is {} long, more than the {} expected",
                text::size(len),
                text::size(MAX_FILE)
            )));
        }
        let image = guarded(|| decode(file))
            .map_err(|why| format!("its decoder fails: {why}"))
            .flatten()
            .map_err(|why| bad(&why))?;
        let image = image.into_rgb8();
        let (width, height) = (image.width() as usize, image.height() as usize);
        let rgb = image.into_raw();
        let bytes = if channels == 3 { rgb } else { rgb.as_chunks::<3>().0.iter().map(grey).collect() };
        Ok(Self { height, width, channels, bytes })
    }
}

fn grey(&[red, green, blue]: &[u8; 3]) -> u8 {
    let sum = u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471;
    ((sum + 0x8000) >> 16) as u8
}

fn decode(file: std::fs::File) -> std::result::Result<DynamicImage, String> {
    static ONE_LARGE: Mutex<()> = Mutex::new(());
    let reason = |e: &dyn std::fmt::Display| shown(e.to_string().trim());
    let mut reader = ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(|e| reason(&e))?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    if reader.format().is_none() {
        return Err("it is neither PNG nor JPEG".to_owned());
    }
    // Reads no more than headers. Sides are checked below, where the message can say them.
    let decoder = reader.into_decoder().map_err(|e| reason(&e))?;
    let (width, height) = decoder.dimensions();
    let bytes = decoder.total_bytes();
    if width > MAX_SIDE || height > MAX_SIDE || bytes > MAX_DECODED {
        return Err(format!(
            "it is {width} × {height} pixels ({}), more than {MAX_SIDE} × {MAX_SIDE} or {}",
            text::size(bytes),
            text::size(MAX_DECODED)
        ));
    }
    let _turn = (bytes > LARGE).then(|| ONE_LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    DynamicImage::from_decoder(decoder).map_err(|e| reason(&e))
}
