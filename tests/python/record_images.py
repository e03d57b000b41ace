"""Records what Hugging Face's image processors make of two small images, for tests/data.rs.

Needs numpy, torch, transformers (5 or later, for the processors of the PIL kind), safetensors and pillow:
    python tests/python/record_images.py tests/golden/data
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

out = pathlib.Path(sys.argv[1])


def picture(height, width, noise, seed):
    """Slopes, a disc with a hard edge, and noise."""
    y, x = np.mgrid[0:height, 0:width]
    disc = 120.0 * ((x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2)
    planes = [255 * x / width, 255 * y / height, disc + 60]
    random = np.random.default_rng(seed).normal(0, noise, (height, width, 3))
    return np.clip(np.stack(planes, -1) + random, 0, 255).astype(np.uint8)


(out / "images").mkdir(parents=True, exist_ok=True)
Image.fromarray(picture(43, 61, 25, 1)).save(out / "images" / "a.png", optimize=True)
Image.fromarray(picture(70, 50, 8, 2)).save(out / "images" / "b.jpg", quality=88)

PROCESSORS = {
    "vit": ViTImageProcessorPil(size={"height": 20, "width": 24}),
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
    "padded": CLIPImageProcessorPil(size={"shortest_edge": 17}, crop_size={"height": 20, "width": 23}, resample=2),
    "bytes": ViTImageProcessorPil(
        size={"height": 56, "width": 16}, resample=1, do_rescale=False, do_normalize=False
    ),
}

recorded = {}
for name, processor in PROCESSORS.items():
    config = processor.to_dict()
    config["image_processor_type"] = config["image_processor_type"].removesuffix("Pil")
    (out / f"{name}.json").write_text(json.dumps(config, indent=1, default=int) + "\n")
    for path in sorted((out / "images").iterdir()):
        values = np.asarray(processor(Image.open(path), return_tensors="np")["pixel_values"])[0]
        recorded[f"{name}.{path.stem}"] = np.ascontiguousarray(values)
        print(name, path.name, values.shape, values.dtype)
save_file(recorded, out / "expected.safetensors")
