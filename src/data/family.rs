//! The image processors of Hugging Face that differ only in their defaults: resize, crop, rescale, normalize.

use super::resize::Filter;

/// What an image is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Height and width.
    Exactly([usize; 2]),
    /// The shorter of the two; the other follows, rounded down.
    ShortestEdge(usize),
}

impl Size {
    /// Height and width of an image that had those of `from`, at least 1.
    pub(super) fn of(self, from: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Exactly(size) => size,
            Self::ShortestEdge(edge) => from.map(|side| edge * side / from[0].min(from[1]).max(1)),
        }
    }
}

/// Defaults of a processor.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    pub(super) size: Size,
    /// Whether a size that is one number is a square; else it is the shortest edge.
    pub(super) square: bool,
    pub(super) filter: Filter,
    /// Height and width of the crop, where there is one.
    pub(super) crop: Option<[usize; 2]>,
    pub(super) mean: [f32; 3],
    pub(super) std: [f32; 3],
}

const HALF: [f32; 3] = [0.5; 3];
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

const VIT: Family = Family {
    name: "ViT",
    size: Size::Exactly([224, 224]),
    square: true,
    filter: Filter::Bilinear,
    crop: None,
    mean: HALF,
    std: HALF,
};

const CLIP: Family = Family {
    name: "CLIP",
    size: Size::ShortestEdge(224),
    square: false,
    filter: Filter::Bicubic,
    crop: Some([224, 224]),
    mean: CLIP_MEAN,
    std: CLIP_STD,
};

static FAMILIES: [Family; 6] = [
    VIT,
    CLIP,
    Family { name: "Bit", ..CLIP },
    Family { name: "DeiT", size: Size::Exactly([256, 256]), filter: Filter::Bicubic, crop: Some([224, 224]), ..VIT },
    Family { name: "Siglip", square: false, filter: Filter::Bicubic, ..VIT },
    Family { name: "Blip", size: Size::Exactly([384, 384]), square: true, crop: None, ..CLIP },
];

impl Family {
    /// The processor of that name, such as `CLIPImageProcessor`, with or without `Fast` or `Pil` at its end.
    pub(super) fn of_processor(name: &str) -> Option<&'static Self> {
        let stem = name.strip_suffix("Fast").or_else(|| name.strip_suffix("Pil")).unwrap_or(name);
        let stem = stem.strip_suffix("ImageProcessor").or_else(|| stem.strip_suffix("FeatureExtractor"))?;
        FAMILIES.iter().find(|family| family.name == stem)
    }

    /// The processor that goes with a `model_type`.
    pub(super) fn of_model(model: &str) -> Option<&'static Self> {
        let stem = model.strip_suffix("_vision_model").unwrap_or(model);
        FAMILIES.iter().find(|family| family.name.eq_ignore_ascii_case(stem))
    }

    pub(super) fn vit() -> &'static Self {
        &FAMILIES[0]
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().map(|family| family.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_found_by_name() {
        let name = |family: Option<&'static Family>| family.map(|family| family.name);
        assert_eq!(name(Family::of_processor("CLIPImageProcessor")), Some("CLIP"));
        assert_eq!(name(Family::of_processor("ViTFeatureExtractor")), Some("ViT"));
        assert_eq!(name(Family::of_processor("SiglipImageProcessorFast")), Some("Siglip"));
        assert_eq!(name(Family::of_processor("ConvNextImageProcessor")), None);
        assert_eq!(name(Family::of_model("clip_vision_model")), Some("CLIP"));
        assert_eq!(name(Family::of_model("bert")), None);
    }

    #[test]
    fn the_longer_edge_is_rounded_down() {
        assert_eq!(Size::ShortestEdge(224).of([300, 451]), [224, 336]);
        assert_eq!(Size::ShortestEdge(5).of([7, 3]), [11, 5]);
        assert_eq!(Size::Exactly([4, 6]).of([7, 3]), [4, 6]);
    }
}
