#!/usr/bin/env python3
"""Make, or measure, the demo checkpoints of `magic`: one tiny vision transformer and six experts fine-tuned from it.

    pip install torch numpy scikit-learn scikit-image safetensors      (transformers too, for --check)
    python train.py              pre-train, fine-tune, write base/, expert_*/ and samples/, then measure them (10 to 15 minutes on one core)
    python train.py --evaluate   read the stored files again and print the table of README.md
    python train.py --check      load every folder with transformers.ViTForImageClassification and compare the logits

Everything is made from images that ship inside the wheels of scikit-learn and scikit-image; nothing is downloaded.

How it goes
  1. Data. Photographs are cut into tiles; a tile belongs either to training or to test, and a patch never leaves its tile, so test
     patches come from image regions that no training step, head or calibration sample has seen. Digits are split image by image.
  2. Pre-training. One network learns to name the digit or the photograph (one label set for both), and with a throw-away head its
     quarter turn, under wide augmentation. The result, rounded to bfloat16, is the base.
  3. Heads. For each task a linear classifier is fitted on the frozen base, and never changes again (like CLIP's text head).
  4. Experts. From the stored base each expert trains the backbone alone, gently, under its fixed head, and rehearses a little of
     the pre-training. So all that fine-tuning learns lies in the task vector, and `magic merge --exclude 'classifier.*'` merges it
     without touching any head.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = Path(__file__).resolve().parent
SEED = 7
THREADS = 1  # one thread: the same sums in the same order, and no fight over shared cores
SIZE, PATCH, CHANNELS = 16, 4, 3
HIDDEN, LAYERS, HEADS, MLP = 96, 4, 6, 192
TILE = 40
TESTS, CALIBS, TRAIN = 250, 24, 6000
PRETRAIN = dict(images=40000, steps=4000, batch=128, lr=1.5e-3)
FINETUNE = dict(steps=700, batch=64, rehearsed=32, lr=6e-4)

# ---------------------------------------------------------------- images
# Sources and licences: README.md.

COLOUR = ["astronaut", "chelsea", "coffee", "china", "flower", "rocket", "hubble", "retina", "ihc"]
GREY = ["camera", "brick", "grass", "gravel", "coins", "cell", "text"]
PHOTOS = ["astronaut", "chelsea", "coffee", "china", "flower", "rocket"]
TEXTURES = ["brick", "grass", "gravel", "camera", "ihc", "text"]
DETAILED = ["chelsea", "coffee", "china", "flower", "ihc", "brick", "grass", "gravel", "coins", "text"]
DAMAGES = ["clean", "blurred", "noisy", "pixelated", "striped"]
TURNABLE = [3, 4, 6, 7]  # digits that look different in each of the four quarter turns
LABELS = {
    "digits": [str(d) for d in range(10)],
    "parity": ["even", "odd"],
    "turned": ["upright", "left", "upside down", "right"],
    "texture": TEXTURES,
    "photo": PHOTOS,
    "damage": DAMAGES,
}
TASKS = list(LABELS)


def load_sources():
    """The bundled photographs as float RGB arrays [H, W, 3] in 0..1."""
    import skimage.data
    import skimage.io
    from sklearn.datasets import load_sample_image

    folder = Path(skimage.data.__file__).parent
    files = {"hubble": "hubble_deep_field.jpg", "retina": "retina.jpg", "rocket": "rocket.jpg"}
    out = {}
    for name in COLOUR + GREY:
        image = load_sample_image(f"{name}.jpg") if name in ("china", "flower") else skimage.io.imread(folder / files.get(name, f"{name}.png"))
        image = image.astype(np.float32) / 255
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        if name == "retina":  # by far the largest, and smooth
            image = image[:1410, :1410].reshape(705, 2, 705, 2, 3).mean((1, 3))
        out[name] = image
    return out


class Data:
    """All images, split once into train and test, and the generators that cut samples from them."""

    def __init__(self):
        from sklearn.datasets import load_digits

        rng = np.random.default_rng(SEED)
        self.sources = load_sources()
        self.tiles = {}
        for name, image in self.sources.items():
            tiles = [(y, x) for y in range(0, image.shape[0] - TILE + 1, TILE) for x in range(0, image.shape[1] - TILE + 1, TILE)]
            if name in ("retina", "cell"):  # leave the black frame out
                tiles = [(y, x) for y, x in tiles if image[y : y + TILE, x : x + TILE].std() > 0.01]
            order = rng.permutation(len(tiles))
            cut = max(2, round(0.3 * len(tiles)))
            self.tiles[name] = {"test": [tiles[i] for i in order[:cut]], "train": [tiles[i] for i in order[cut:]]}
        digits = load_digits()
        order = rng.permutation(len(digits.target))
        self.digits = {}
        for split, chosen in (("test", order[:600]), ("train", order[600:])):
            self.digits[split] = (digits.images[chosen].astype(np.float32) / 16, digits.target[chosen])

    def patch(self, rng, name, split, zoom=None):
        """A 16x16 patch from one tile: 16 or 32 pixels wide, the latter box-averaged by two; mirrored at random."""
        image, tiles = self.sources[name], self.tiles[name][split]
        y, x = tiles[rng.integers(len(tiles))]
        zoom = zoom or rng.integers(1, 3)
        side = SIZE * zoom
        y, x = y + rng.integers(TILE - side + 1), x + rng.integers(TILE - side + 1)
        crop = image[y : y + side, x : x + side].reshape(SIZE, zoom, SIZE, zoom, 3).mean((1, 3))
        return crop[:, ::-1] if rng.random() < 0.5 else crop

    def digit(self, rng, split, only=None):
        """A digit as a 16x16 ink mask in 0..1 (8x8 doubled bilinearly, moved by up to two pixels), and its value."""
        images, values = self.digits[split]
        while True:
            i = rng.integers(len(values))
            if only is None or values[i] in only:
                break
        small = np.pad(images[i], 1, mode="edge")
        near, far = small[1:-1], (small[:-2], small[2:])
        rows = np.stack([0.75 * near + 0.25 * far[0], 0.75 * near + 0.25 * far[1]], 1).reshape(SIZE, -1)
        near, far = rows[:, 1:-1], (rows[:, :-2], rows[:, 2:])
        big = np.stack([0.75 * near + 0.25 * far[0], 0.75 * near + 0.25 * far[1]], 2).reshape(SIZE, SIZE)
        dy, dx = rng.integers(-2, 3, size=2)
        moved = np.zeros_like(big)
        moved[max(dy, 0) : SIZE + min(dy, 0), max(dx, 0) : SIZE + min(dx, 0)] = big[max(-dy, 0) : SIZE + min(-dy, 0), max(-dx, 0) : SIZE + min(-dx, 0)]
        return moved, int(values[i])

    def damaged(self, rng, image, kind):
        """One of five kinds of damage, with a random strength."""
        if kind == "blurred":
            soft = image
            for axis in (0, 1, 0, 1):
                wide = np.pad(soft, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
                soft = (np.take(wide, range(SIZE), axis) + 2 * np.take(wide, range(1, SIZE + 1), axis) + np.take(wide, range(2, SIZE + 2), axis)) / 4
            amount = rng.uniform(0.8, 1.0)
            return image + amount * (soft - image)
        if kind == "noisy":
            return image + rng.normal(0, rng.uniform(0.08, 0.16), image.shape)
        if kind == "pixelated":
            blocks = image.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
            return blocks.repeat(2, 0).repeat(2, 1)
        if kind == "striped":
            lines = image.copy()
            lines[rng.integers(2) :: 2] *= rng.uniform(0.6, 0.8)
            return lines
        return image

    def sample(self, rng, task, split):
        """One labelled image of a task."""
        if task == "digits":  # light digit on a dark, noisy ground
            ink, label = self.digit(rng, split)
            image = np.repeat((0.1 + 0.8 * ink)[..., None], 3, 2) + rng.normal(0, 0.08, (SIZE, SIZE, 3))
        elif task == "parity":  # dark ink on a piece of a photograph
            ink, value = self.digit(rng, split)
            ground = 0.35 + 0.65 * self.patch(rng, COLOUR[rng.integers(len(COLOUR))], split)
            image, label = ground * (1 - 0.95 * ink[..., None]), value % 2
        elif task == "turned":  # a coloured digit on a plain ground, turned by quarters
            ink, _ = self.digit(rng, split, TURNABLE)
            label = int(rng.integers(4))
            ground, tint = rng.uniform(0, 0.2, 3), rng.uniform(0.7, 1, 3)
            image = np.rot90(ground + (tint - ground) * ink[..., None], label) + rng.normal(0, 0.03, (SIZE, SIZE, 3))
        elif task == "texture":  # grey, with brightness and contrast taken away
            label = int(rng.integers(len(TEXTURES)))
            image = self.patch(rng, TEXTURES[label], split, zoom=2)
            image = np.rot90(image, rng.integers(4))
            image = 0.5 + 0.2 * (image - image.mean()) / (image.std() + 0.02)
        elif task == "photo":  # colours weakened and tinted, so that hue alone does not decide
            label = int(rng.integers(len(PHOTOS)))
            image = self.patch(rng, PHOTOS[label], split) * rng.uniform(0.9, 1.1, 3)
        else:
            label = int(rng.integers(len(DAMAGES)))
            image = self.damaged(rng, self.patch(rng, DETAILED[rng.integers(len(DETAILED))], split, zoom=2), DAMAGES[label])
        return image, label

    def batch(self, task, split, count, seed):
        """`count` samples of a task as normalised pixels [N, 3, H, W] and labels."""
        rng = np.random.default_rng([SEED, TASKS.index(task), seed])
        images, labels = zip(*(self.sample(rng, task, split) for _ in range(count)))
        return to_pixels(np.stack(images)), torch.tensor(labels)

    def pretraining(self, count):
        """Digits in every dress and patches of every photograph; labels: what it is, and its quarter turn."""
        rng = np.random.default_rng([SEED, 1000])
        names = COLOUR + GREY
        images, what, turn = [], [], []
        for _ in range(count):
            if rng.random() < 0.5:
                ink, label = self.digit(rng, "train")
                ground = rng.uniform(0, 1, 3) if rng.random() < 0.5 else self.patch(rng, names[rng.integers(len(names))], "train")
                tint = rng.uniform(0, 1, 3)
                image = ground + (tint - ground) * ink[..., None]
            else:
                label = int(rng.integers(len(names)))
                image = self.patch(rng, names[label], "train") * rng.uniform(0.7, 1.3, 3)
                label += 10
            if rng.random() < 0.3:
                image = np.repeat(image.mean(2, keepdims=True), 3, 2)
            if rng.random() < 0.3:
                image = 1 - image
            quarter = int(rng.integers(4))
            image = np.rot90(image, quarter) + rng.normal(0, rng.uniform(0, 0.15), image.shape)
            images.append(image), what.append(label), turn.append(quarter)
        return to_pixels(np.stack(images)), torch.tensor(what), torch.tensor(turn)


def to_pixels(images):
    """[N, H, W, 3] in 0..1 to what the preprocessor would give: 8-bit levels, (x - 0.5) / 0.5, stored as float16."""
    levels = np.clip(np.rint(images * 255), 0, 255) / 255
    return torch.tensor((levels - 0.5) / 0.5).permute(0, 3, 1, 2).to(torch.float16).float().contiguous()


# ---------------------------------------------------------------- network


def module(**children):
    out = nn.Module()
    for name, child in children.items():
        setattr(out, name, child)
    return out


class ViT(nn.Module):
    """ViTForImageClassification of Hugging Face, name for name and operation for operation (pre-norm, exact GELU, class token)."""

    def __init__(self, labels):
        super().__init__()
        linear = nn.Linear
        embeddings = module(patch_embeddings=module(projection=nn.Conv2d(CHANNELS, HIDDEN, PATCH, PATCH)))
        embeddings.cls_token = nn.Parameter(torch.randn(1, 1, HIDDEN) * 0.02)
        embeddings.position_embeddings = nn.Parameter(torch.randn(1, (SIZE // PATCH) ** 2 + 1, HIDDEN) * 0.02)
        layers = [
            module(
                attention=module(
                    attention=module(query=linear(HIDDEN, HIDDEN), key=linear(HIDDEN, HIDDEN), value=linear(HIDDEN, HIDDEN)),
                    output=module(dense=linear(HIDDEN, HIDDEN)),
                ),
                intermediate=module(dense=linear(HIDDEN, MLP)),
                output=module(dense=linear(MLP, HIDDEN)),
                layernorm_before=nn.LayerNorm(HIDDEN, eps=1e-12),
                layernorm_after=nn.LayerNorm(HIDDEN, eps=1e-12),
            )
            for _ in range(LAYERS)
        ]
        self.vit = module(embeddings=embeddings, encoder=module(layer=nn.ModuleList(layers)), layernorm=nn.LayerNorm(HIDDEN, eps=1e-12))
        self.classifier = linear(HIDDEN, labels)

    def features(self, pixels):
        e = self.vit.embeddings
        x = e.patch_embeddings.projection(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([e.cls_token.expand(len(x), -1, -1), x], 1) + e.position_embeddings
        n, t, d = x.shape
        for layer in self.vit.encoder.layer:
            a, y = layer.attention, layer.layernorm_before(x)
            q, k, v = (f(y).view(n, t, HEADS, d // HEADS).transpose(1, 2) for f in (a.attention.query, a.attention.key, a.attention.value))
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d)
            x = x + a.output.dense(y)
            x = x + layer.output.dense(F.gelu(layer.intermediate.dense(layer.layernorm_after(x))))
        return self.vit.layernorm(x)[:, 0]

    def forward(self, pixels):
        return self.classifier(self.features(pixels))


@torch.no_grad()
def round_to_bf16(model):
    for p in model.parameters():
        p.copy_(p.to(torch.bfloat16).float())
    return model


def schedule(optimizer, step, steps, lr, warmup=0.1):
    """Linear warm-up, then cosine to zero."""
    x = step / steps
    for group in optimizer.param_groups:
        group["lr"] = lr * (x / warmup if x < warmup else 0.5 * (1 + np.cos(np.pi * (x - warmup) / (1 - warmup))))


def pretrain(data):
    torch.manual_seed(SEED)
    model = ViT(10 + len(COLOUR + GREY))
    turn_head = nn.Linear(HIDDEN, 4)
    parameters = [*model.parameters(), *turn_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0, weight_decay=0.05)
    pixels, what, turn = data.pretraining(PRETRAIN["images"])
    for step in range(PRETRAIN["steps"]):
        schedule(optimizer, step, PRETRAIN["steps"], PRETRAIN["lr"])
        i = torch.randint(len(pixels), (PRETRAIN["batch"],))
        h = model.features(pixels[i])
        named = F.cross_entropy(model.classifier(h), what[i])
        loss = named + 0.5 * F.cross_entropy(turn_head(h), turn[i])
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        if step % 100 == 0 or step == PRETRAIN["steps"] - 1:
            print(f"  step {step:5}  loss {loss.item():.3f}  naming {named.item():.3f}", flush=True)
    return round_to_bf16(model)


def fit_head(base, pixels, labels, classes):
    """A linear classifier on the frozen base (logistic regression with a little weight decay)."""
    with torch.no_grad():
        h = torch.cat([base.features(p) for p in pixels.split(500)])
    head = nn.Linear(HIDDEN, classes)
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(head(h), labels) + 1e-4 * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return head


def finetune(data, base_state, rehearsed, task):
    """One expert. Besides its own labels it keeps naming some pre-training images as the base does: it should specialise, not forget."""
    torch.manual_seed(SEED + 1 + TASKS.index(task))
    pixels, labels = data.batch(task, "train", TRAIN, seed=0)
    base, model = ViT(len(base_state["classifier.bias"])), ViT(len(LABELS[task]))
    base.load_state_dict(base_state)
    model.vit.load_state_dict(base.vit.state_dict())
    model.classifier = fit_head(base, pixels, labels, len(LABELS[task]))
    round_to_bf16(model)
    with torch.no_grad():
        names = torch.cat([base(p) for p in rehearsed.split(500)]).log_softmax(1)
    optimizer = torch.optim.AdamW(model.vit.parameters(), lr=0, weight_decay=0)
    n = FINETUNE["batch"]
    for step in range(FINETUNE["steps"]):
        schedule(optimizer, step, FINETUNE["steps"], FINETUNE["lr"])
        i, j = torch.randint(len(pixels), (n,)), torch.randint(len(rehearsed), (FINETUNE["rehearsed"],))
        h = model.features(torch.cat([pixels[i], rehearsed[j]]))
        loss = F.cross_entropy(model.classifier(h[:n]), labels[i])
        loss = loss + F.kl_div(base.classifier(h[n:]).log_softmax(1), names[j], log_target=True, reduction="batchmean")
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return round_to_bf16(model)


# ---------------------------------------------------------------- files


def write_model(folder, model, labels):
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": HIDDEN,
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "image_size": SIZE,
        "initializer_range": 0.02,
        "intermediate_size": MLP,
        "label2id": {name: i for i, name in enumerate(labels)},
        "layer_norm_eps": 1e-12,
        "num_attention_heads": HEADS,
        "num_channels": CHANNELS,
        "num_hidden_layers": LAYERS,
        "patch_size": PATCH,
        "qkv_bias": True,
        "torch_dtype": "bfloat16",
    }
    processor = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5] * 3,
        "image_processor_type": "ViTImageProcessor",
        "image_std": [0.5] * 3,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": SIZE, "width": SIZE},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def write_samples(out, data):
    from safetensors.torch import save_file

    (out / "samples").mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        pixels, _ = data.batch(task, "train", CALIBS, seed=2)
        save_file({"pixel_values": pixels.half()}, out / "samples" / f"{task}.calib.safetensors")
        pixels, labels = data.batch(task, "test", TESTS, seed=1)
        save_file({"pixel_values": pixels.half(), "labels": labels}, out / "samples" / f"{task}.test.safetensors")


def read(path):
    from safetensors.torch import load_file

    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}


# ---------------------------------------------------------------- merging (float32; the result is rounded once to bfloat16)


def average(taus):
    return torch.stack(taus).mean(0)


def ties(taus, density=0.2):
    """mergekit's TIES at weights 1: keep the largest share of each tensor, elect a sign by the sum, average what agrees."""
    kept = []
    for tau in taus:
        flat, n = tau.flatten(), int(density * tau.numel())
        mask = torch.zeros_like(flat)
        mask[flat.abs().sort(descending=True, stable=True).indices[:n]] = 1
        kept.append((flat * mask).view_as(tau))
    kept = torch.stack(kept)
    elected = torch.where(kept.sum(0) >= 0, 1.0, -1.0)
    agree = kept.sign() == elected
    return (kept * agree).sum(0) / agree.sum(0).clamp(min=1)


def arithmetic(scale):
    return lambda taus: scale * torch.stack(taus).sum(0)


def eligible(name, tensor):
    return tensor.ndim >= 2 and name.endswith("weight")


def wsc(tau, taus):
    """The factor of weight-space calibration, manifold `mixed`, one per row."""
    tau, taus = tau.flatten(1), torch.stack([t.flatten(1) for t in taus])
    norms = taus.norm(dim=2)
    alpha = torch.where(norms > 0, (tau * taus).sum(2) / norms.square().clamp(min=1e-30), 0.0)
    rest = tau - (alpha[..., None] * taus).sum(0)
    mean = norms.mean(0)
    inner = alpha.square().sum(0) + torch.where(mean > 0, rest.square().sum(1) / mean.square().clamp(min=1e-30), 0.0)
    return torch.where(inner > 0, inner.clamp(min=1e-30).rsqrt(), 1.0)


def merge(base, experts, method, calibrate):
    """The merged backbone, and the mean over rows of |merged task vector| / mean |task vector of an expert|."""
    merged, ratios = {}, []
    for name, theta in base.items():
        if name.startswith("classifier."):
            continue
        taus = [e[name] - theta for e in experts]
        tau = method(taus)
        if eligible(name, theta):
            if calibrate:
                tau = tau * wsc(tau, taus).view(-1, *[1] * (tau.ndim - 1))
            norms = torch.stack([t.flatten(1).norm(dim=1) for t in taus]).mean(0)
            ratios.append((tau.flatten(1).norm(dim=1) / norms)[norms > 0])
        merged[name] = (theta + tau).to(torch.bfloat16).float()
    return merged, torch.cat(ratios).mean().item()


@torch.no_grad()
def accuracy(backbone, head, test):
    model = ViT(len(head["classifier.bias"]))
    model.load_state_dict({**backbone, **head})
    return 100 * (model(test["pixel_values"]).argmax(1) == test["labels"]).float().mean().item()


def evaluate(out):
    base = read(out / "base" / "model.safetensors")
    experts = [read(out / f"expert_{t}" / "model.safetensors") for t in TASKS]
    heads = [{k: v for k, v in e.items() if k.startswith("classifier.")} for e in experts]
    tests = [read(out / "samples" / f"{t}.test.safetensors") for t in TASKS]
    backbone = lambda state: {k: v for k, v in state.items() if not k.startswith("classifier.")}

    def row(name, states, ratio):
        scores = [accuracy(s, h, t) for s, h, t in zip(states, heads, tests)]
        shown = "    –" if ratio is None else f"{ratio:5.2f}"
        print(f"| {name:<25} |" + "".join(f" {s:7.1f} |" for s in scores) + f" {np.mean(scores):6.2f} | {shown} |", flush=True)

    print(f"| {'backbone':<25} |" + "".join(f" {t:>7} |" for t in TASKS) + "   mean | ratio |")
    print(f"|{'-' * 27}|" + "--------:|" * len(TASKS) + "-------:|------:|")
    row("base", [backbone(base)] * len(TASKS), 0.0)
    row("experts, each its own", [backbone(e) for e in experts], None)
    methods = {"average": average, "ties 0.2": ties} | {f"task arithmetic {s}": arithmetic(s) for s in (0.3, 0.5, 1.0)}
    for name, method in methods.items():
        for calibrate in (False, True):
            merged, ratio = merge(base, experts, method, calibrate)
            row(name + (" + WSC" if calibrate else ""), [merged] * len(TASKS), ratio)


def check(out):
    """Load the folders with transformers and compare logits with this file's network."""
    from transformers import ViTForImageClassification

    for folder in [out / "base"] + [out / f"expert_{t}" for t in TASKS]:
        task = folder.name.removeprefix("expert_") if folder.name != "base" else TASKS[0]
        pixels = read(out / "samples" / f"{task}.test.safetensors")["pixel_values"]
        theirs, info = ViTForImageClassification.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        state = read(folder / "model.safetensors")
        ours = ViT(len(state["classifier.bias"]))
        ours.load_state_dict(state)
        with torch.no_grad():
            gap = (theirs.eval()(pixel_values=pixels).logits - ours(pixels)).abs().max().item()
        odd = {k: v for k, v in info.items() if v}
        print(f"{folder.name:16} largest logit difference {gap:.1e}  loading problems: {odd or 'none'}")
        assert gap < 1e-4 and not odd


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--evaluate", action="store_true", help="only measure the stored files")
    parser.add_argument("--check", action="store_true", help="only compare the stored files with transformers")
    parser.add_argument("--keep-base", action="store_true", help="do not pre-train again; start from the stored base")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to read and write (default: beside this file)")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    if args.evaluate:
        return evaluate(args.out)
    if args.check:
        return check(args.out)
    data = Data()
    if not args.keep_base:
        print("pre-training the base", flush=True)
        write_model(args.out / "base", pretrain(data), LABELS["digits"] + COLOUR + GREY)
    write_samples(args.out, data)
    base = read(args.out / "base" / "model.safetensors")
    rehearsed = data.pretraining(TRAIN)[0]
    for task in TASKS:
        print(f"fine-tuning {task}", flush=True)
        write_model(args.out / f"expert_{task}", finetune(data, base, rehearsed, task), LABELS[task])
    evaluate(args.out)


if __name__ == "__main__":
    main()
