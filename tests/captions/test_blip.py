"""The captioner against BLIP's own code and transformers' preprocessing, and what cannot be loaded."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file

from fti4cir.backbones import hub
from fti4cir.captions import blip
from fti4cir.captions.blip import BlipCaptioner
from fti4cir.captions.split import cut_last_word
from fti4cir.cli import training as commands
from fti4cir.errors import InputError, ModelError
from fti4cir.images.preprocess import square
from tinyblip import INPUT_SIZE, MEAN, SPECIAL, STD, WORDS, build
from tinyclip import build as build_clip
from tinyclip import picture

START, END = len(SPECIAL) + len(WORDS), SPECIAL.index("[SEP]")


@pytest.fixture(scope="module")
def captioner(blip_folder: Path) -> BlipCaptioner:
    return blip.load_captioner(blip_folder, device="cpu")


@pytest.fixture
def copy(blip_folder: Path, tmp_path: Path) -> Path:
    """The captioner's folder, to be damaged."""
    return shutil.copytree(blip_folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def pixels(captioner: BlipCaptioner) -> torch.Tensor:
    return torch.stack([captioner.preprocess(picture(seed)) for seed in range(6)])


def ids_by_blips_own_code(captioner: BlipCaptioner, pixels: torch.Tensor) -> torch.Tensor:
    """Token ids (B, T) as `BLIP_Decoder.generate` makes them from tower and decoder, told anew."""
    image = captioner.model.vision_model(pixel_values=pixels).last_hidden_state
    words = ["a", "picture", "of"]
    prompt = [START, *(len(SPECIAL) + WORDS.index(word) for word in words)]
    return captioner.model.text_decoder.generate(
        input_ids=torch.tensor([prompt] * len(pixels)),
        max_length=25, min_length=10, num_beams=3, eos_token_id=END, pad_token_id=0,
        encoder_hidden_states=image, encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long),
    )  # fmt: skip


def test_captions_are_those_of_blips_own_code(captioner: BlipCaptioner, pixels: torch.Tensor) -> None:
    ids = ids_by_blips_own_code(captioner, pixels)
    texts = captioner.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert all(text.startswith("a picture of") for text in texts)
    captions = captioner.caption(pixels)
    assert captions == [cut_last_word(text.removeprefix("a picture of")) for text in texts]
    assert len(set(captions)) > 3
    # The start and the prompt count, and so does the end.
    assert ids.shape[1] <= 25
    ends = [row.index(END) if END in row else len(row) for row in ids.tolist()]
    assert 10 <= min(ends) < max(ends)


def test_a_caption_depends_on_its_own_image_only(captioner: BlipCaptioner, pixels: torch.Tensor) -> None:
    assert [captioner.caption(one[None])[0] for one in pixels] == captioner.caption(pixels)


def test_repeats_are_cut(captioner: BlipCaptioner, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "red dog on the grass grass grass"
    row = [START, *[len(SPECIAL)] * 3, *(len(SPECIAL) + WORDS.index(word) for word in words.split()), END, 0]
    monkeypatch.setattr(captioner.model, "generate", lambda *_, **__: torch.tensor([row]))
    assert captioner.caption(pixels[:1]) == ["red dog on the grass"]


SIZES = ((48, 40), (20, 90), (90, 20), (51, 33), (300, 2), (32, 32))


def test_preprocessing_is_that_of_the_release(captioner: BlipCaptioner) -> None:
    """Padded, resized, cropped at the centre and normalised, as its script calls torchvision."""
    for size in SIZES:
        image = picture(size=size)
        pixels = torch.from_numpy(np.array(square(image, INPUT_SIZE))).permute(2, 0, 1) / 255
        expected = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        torch.testing.assert_close(captioner.preprocess(image), expected, atol=1e-5, rtol=0)


def test_squeezing_is_that_of_transformers(blip_folder: Path) -> None:
    own = pytest.importorskip("transformers.models.blip.image_processing_pil_blip", reason="an earlier transformers")
    processor = own.BlipImageProcessorPil.from_pretrained(blip_folder)
    captioner = blip.load_captioner(blip_folder, device="cpu", preprocessing="squeeze")
    for size in SIZES:
        image = picture(size=size)
        expected = processor(image, return_tensors="pt").pixel_values[0]
        assert expected.shape == (3, INPUT_SIZE, INPUT_SIZE)
        torch.testing.assert_close(captioner.preprocess(image), expected, atol=1e-5, rtol=0)


def test_a_preprocessing_that_is_none(blip_folder: Path) -> None:
    with pytest.raises(InputError, match="There is no preprocessing 'stretch'; there are target-pad, squeeze"):
        blip.load_captioner(blip_folder, preprocessing="stretch")


def test_a_folder_as_transformers_5_saves_it(captioner: BlipCaptioner, copy: Path) -> None:
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    captioner.tokenizer.save_pretrained(copy)
    (copy / "vocab.txt").unlink()
    again = blip.load_captioner(copy, device="cpu")
    torch.testing.assert_close(again.preprocess(picture()), captioner.preprocess(picture()))
    assert again.caption(again.preprocess(picture())[None]) == captioner.caption(captioner.preprocess(picture())[None])


def test_fingerprint(captioner: BlipCaptioner, blip_folder: Path, copy: Path, tmp_path: Path) -> None:
    assert blip.load_captioner(copy, device="cpu").fingerprint == captioner.fingerprint
    assert blip.load_captioner(build(tmp_path / "other", seed=1), device="cpu").fingerprint != captioner.fingerprint
    assert blip.load_captioner(copy, device="cpu", preprocessing="squeeze").fingerprint != captioner.fingerprint
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.5, 0.5, 0.5]}))
    assert blip.load_captioner(copy, device="cpu").fingerprint != captioner.fingerprint


# -- pickled weights, which is all that the base captioner has on the hub -------------------------------------
def test_pickled_weights(captioner: BlipCaptioner, copy: Path, pixels: torch.Tensor) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert blip.load_captioner(copy, device="cpu").caption(pixels) == captioner.caption(pixels)


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.target),))


def test_a_pickle_runs_no_code(copy: Path, tmp_path: Path) -> None:
    torch.save({"weight": Hostile(tmp_path / "was here")}, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        blip.load_captioner(copy, device="cpu")
    assert not (tmp_path / "was here").exists()
    pickle.loads(pickle.dumps(Hostile(tmp_path / "was here")))  # it would
    assert (tmp_path / "was here").exists()


# -- what cannot be loaded ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json", "vocab.txt"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_folders(copy: Path, name: str, damage: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).unlink()
    if damage == "cut":
        (copy / name).write_bytes(content[:10])
    with pytest.raises(ModelError, match="copy"):
        blip.load_captioner(copy, device="cpu")


def test_weights_that_are_not_whole(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    torch.save(dict(list(weights.items())[:20]), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="of a captioner's weights are not in it"):
        blip.load_captioner(copy, device="cpu")


def test_a_clip_does_not_caption(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="clip"):
        blip.load_captioner(build_clip(tmp_path / "clip"), device="cpu")


def test_names_that_are_none(blip_folder: Path) -> None:
    for name in ("gone", "a/b/c", str(blip_folder / "config.json")):
        with pytest.raises(ModelError, match="There is no captioner"):
            blip.load_captioner(name)


# -- the hub --------------------------------------------------------------------------------------------------
def test_the_base_captioner_is_pinned_and_its_weights_come_in_one_kind(
    blip_folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None, list[str]]] = []
    folder = blip_folder

    def snapshot(name: str, revision: str | None, allow_patterns: list[str], local_files_only: bool) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("nothing yet")
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr(hub, "_require_answer", lambda *_: None)
    assert blip.load_captioner("some/blip", device="cpu").name == "some/blip"
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("some/blip", None)
    assert not any("bin" in pattern for pattern in patterns)

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    folder = copy
    asked.clear()
    blip.load_captioner(device="cpu")
    assert [len(revision or "") for _, revision, _ in asked] == [40]  # found as soon as there are weights

    (copy / "pytorch_model.bin").unlink()
    asked.clear()
    with pytest.raises(ModelError, match="does not hold all the files"):
        blip.load_captioner(device="cpu")
    first, second = (patterns for _, _, patterns in asked)
    assert not any("bin" in pattern for pattern in first)
    assert not any("safetensors" in pattern for pattern in second)


def test_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("Name or service\n not known")

    monkeypatch.setattr(hub, "_require_answer", offline)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match=r"cannot be reached; go online.*HF_HOME"):
        blip.load_captioner()


def test_the_command_line_has_the_same_default() -> None:
    assert commands.DEFAULT_CAPTIONER == blip.BASE
