"""Models by name: saved folders, CLIPs by folder and hub name, the preset; and what can be wrong with each."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import ModelError
from fti4cir.inversion.prompts import Template
from fti4cir.models import loading, names
from fti4cir.models.authors_pickle import our_name
from fti4cir.models.loading import load, load_all
from fti4cir.models.saved import save_model
from tinyclip import build, picture, random_inversion


@pytest.fixture
def saved(encoder: ClipEncoder, tmp_path: Path) -> Path:
    return save_model(tmp_path / "saved", random_inversion(threshold=0.2), encoder=encoder, trained={"epochs": 3})


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# -- saved models ---------------------------------------------------------------------------------------------


def test_round_trip(saved: Path, encoder: ClipEncoder) -> None:
    source = random_inversion(threshold=0.2)
    model = load(saved, device="cpu")
    assert model.name == str(saved)
    assert model.encoder.fingerprint == encoder.fingerprint
    assert model.inversion is not None
    assert model.inversion.config == source.config
    state = model.inversion.state_dict()
    assert state.keys() == source.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in source.state_dict().items())
    assert not model.inversion.training
    assert not any(parameter.requires_grad for parameter in model.inversion.parameters())


def test_method_and_what_it_needs_besides(encoder: ClipEncoder, tmp_path: Path) -> None:
    extra = {"concepts": {"a dog": ["on grass"]}}
    model = load(
        save_model(tmp_path / "m", random_inversion(), encoder=encoder, trained={}, method="searle", extra=extra),
        device="cpu",
    )
    assert (model.method, model.extra) == ("searle", extra)


def test_a_template_goes_with_the_weights(encoder: ClipEncoder, tmp_path: Path) -> None:
    template = Template(modification="that {text}")
    model = load(
        save_model(tmp_path / "m", random_inversion(template=template), encoder=encoder, trained={}), device="cpu"
    )
    assert model.require_inversion().config.template == template
    plain = load(save_model(tmp_path / "n", random_inversion(), encoder=encoder, trained={}), device="cpu")
    assert not torch.allclose(model.compose([picture()], ["is red"]), plain.compose([picture()], ["is red"]))


def test_a_config_without_method_and_template_is_of_the_papers(saved: Path) -> None:
    """As the first version wrote them."""
    config = json.loads((saved / "config.json").read_text())
    del config["method"], config["extra"], config["inversion"]["template"]
    (saved / "config.json").write_text(json.dumps(config))
    model = load(saved, device="cpu")
    assert (model.method, model.extra) == ("fti4cir", {})
    assert model.require_inversion().config == random_inversion(threshold=0.2).config


def test_what_is_written(saved: Path, encoder: ClipEncoder, clip_folder: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((saved / "config.json").read_text())
    assert config["format"] == "fti4cir"
    assert config["version"] == 1
    assert config["backbone"] == str(clip_folder)
    assert config["fingerprint"] == encoder.fingerprint
    assert config["inversion"]["threshold"] == 0.2
    assert config["trained"] == {"epochs": 3}
    assert (config["method"], config["extra"]) == ("fti4cir", {})
    assert config["inversion"]["template"]["modification"] == "but {text}"


def test_saving_again_replaces(saved: Path, encoder: ClipEncoder) -> None:
    (saved / "log.csv").write_text("kept")
    save_model(saved, random_inversion(seed=5, max_attributes=2), encoder=encoder, trained={})
    model = load(saved, device="cpu")
    assert model.inversion is not None
    assert model.inversion.config.max_attributes == 2
    assert (saved / "log.csv").read_text() == "kept"


def test_saving_never_overwrites_a_clip(clip_folder: Path, encoder: ClipEncoder) -> None:
    with pytest.raises(ModelError, match="another kind"):
        save_model(clip_folder, random_inversion(), encoder=encoder, trained={})
    assert load(clip_folder, device="cpu").inversion is None


def test_a_full_disk_leaves_the_old_model(saved: Path, encoder: ClipEncoder) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # bytes a file: enough for the config
    try:
        with pytest.raises(ModelError, match="cannot be saved"):
            save_model(saved, random_inversion(seed=5, max_attributes=2), encoder=encoder, trained={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    inversion = load(saved, device="cpu").require_inversion()
    assert inversion.config.max_attributes == 4


@pytest.mark.parametrize("fails", ["model.safetensors", "config.json"])
def test_saving_that_ends_in_between_leaves_no_config(
    saved: Path, encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """The old config beside new weights of the same shapes would load."""
    replaced: list[str] = []
    real = Path.replace

    def replace(source: Path, target: Path) -> Path:
        assert not (saved / "config.json").exists()
        replaced.append(target.name)
        if target.name == fails:
            raise OSError("It ends here")
        return real(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(ModelError, match="It ends here"):
        save_model(saved, random_inversion(seed=5), encoder=encoder, trained={})
    assert replaced == ["model.safetensors", "config.json"][: len(replaced)]
    assert replaced[-1] == fails
    assert [path.name for path in saved.iterdir()] == ["model.safetensors"]


def test_whoever_may_read_the_config_may_read_the_weights(saved: Path) -> None:
    assert (saved / "model.safetensors").stat().st_mode == (saved / "config.json").stat().st_mode


def test_folder_that_cannot_be_made(encoder: ClipEncoder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be saved"):
        save_model(tmp_path / "file" / "model", random_inversion(), encoder=encoder, trained={})


def test_backbone_inside_moves_along(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "here" / "backbone")
    inner = load(tmp_path / "here" / "backbone", device="cpu").encoder
    save_model(tmp_path / "here", random_inversion(), encoder=inner, trained={})
    assert json.loads((tmp_path / "here" / "config.json").read_text())["backbone"] == "backbone"
    (tmp_path / "here").rename(tmp_path / "there")
    assert load(tmp_path / "there", device="cpu").inversion is not None


def test_relative_backbone_is_saved_whole(clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip_folder.parent)
    save_model(tmp_path / "saved", random_inversion(), encoder=load("clip", device="cpu").encoder, trained={})
    monkeypatch.chdir(tmp_path)
    assert load("saved", device="cpu").inversion is not None


def test_half_precision_weights_load_as_float32(saved: Path) -> None:
    path = saved / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    model = load(saved, device="cpu")
    assert model.inversion is not None
    assert {parameter.dtype for parameter in model.inversion.parameters()} == {torch.float32}


def test_bfloat16_keeps_the_weights_fitting(saved: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    model = load(saved, device="cpu", dtype="bfloat16")
    assert model.compose([picture()], ["is red"]).isfinite().all()
    again = save_model(tmp_path / "again", random_inversion(), encoder=model.encoder, trained={})
    assert load(again, device="cpu").encoder.fingerprint == encoder.fingerprint


def test_another_encoder(saved: Path, tmp_path: Path) -> None:
    edit(saved / "config.json", backbone=str(build(tmp_path / "other", seed=1)))
    with pytest.raises(ModelError, match="another encoder"):
        load(saved, device="cpu")


def test_several_models_share_their_encoder(
    saved: Path, encoder: ClipEncoder, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_model(tmp_path / "other", random_inversion(1), encoder=encoder, trained={}, method="pic2word")
    loads = []
    real = loading._load_backbone
    monkeypatch.setattr(loading, "_load_backbone", lambda *given: loads.append(given) or real(*given))
    first, second = load_all([saved, other], device="cpu")
    assert len(loads) == 1
    assert first.encoder is second.encoder
    assert [(one.name, one.method) for one in (first, second)] == [(str(saved), "fti4cir"), (str(other), "pic2word")]
    texts, pictures = ["in red"], [picture()]
    torch.testing.assert_close(second.compose(pictures, texts), load(other, device="cpu").compose(pictures, texts))
    bare, third = load_all([clip_folder, other], device="cpu")
    assert bare.inversion is None
    assert third.encoder is bare.encoder
    assert [one.inversion is None for one in load_all([other, clip_folder], device="cpu")] == [False, True]


def test_several_models_of_different_encoders(saved: Path, tmp_path: Path) -> None:
    elsewhere = build(tmp_path / "elsewhere", seed=1)
    own = save_model(tmp_path / "own", random_inversion(), encoder=load(elsewhere, device="cpu").encoder, trained={})
    for other in (own, elsewhere, "mini"):
        with pytest.raises(ModelError) as caught:
            load_all([saved, other], device="cpu")
        assert str(caught.value) == (
            f"{saved} and {other} cannot be compared in one pass, because their encoders differ; "
            "evaluate each by itself."
        )


@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_another_version(saved: Path, version: object) -> None:
    edit(saved / "config.json", version=version)
    with pytest.raises(ModelError, match=f"version {version}"):
        load(saved, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": None}, "does not name a backbone"),
        ({"backbone": "/nowhere/at/all"}, "no model '/nowhere/at/all'"),
        ({"fingerprint": None}, "another encoder"),
        ({"inversion": {"joint_width": 24}}, "not complete"),
        ({"inversion": {"joint_width": 24, "vision_width": 48, "token_width": 32, "speed": 9}}, "speed"),
        ({"inversion": {"joint_width": "24", "vision_width": 48, "token_width": 32}}, "not complete"),
        ({"inversion": {"joint_width": 24, "vision_width": 48, "token_width": 32, "num_latent": 13}}, "do not fit"),
        ({"inversion": None}, "not complete"),
    ],
)
def test_wrong_configs(saved: Path, changes: dict[str, Any], message: str) -> None:
    edit(saved / "config.json", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load(saved, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b'"fti4cir"'])
def test_damaged_config(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        load(saved, device="cpu")


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage", "pickle"])
def test_damaged_weights(saved: Path, damage: str) -> None:
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "pickle":
        torch.save({"a": torch.zeros(1)}, path)
    else:
        path.write_bytes({"empty": b"", "cut": whole[:-100], "garbage": os.urandom(1000)}[damage])
    with pytest.raises(ModelError, match="missing or damaged"):
        load(saved, device="cpu")


# -- CLIPs ----------------------------------------------------------------------------------------------------


def test_clip_folder(clip_folder: Path) -> None:
    model = load(clip_folder, device="cpu")
    assert model.inversion is None
    assert model.encode_images([picture()]).shape == (1, 24)
    with pytest.raises(ModelError, match="fti4cir train"):
        model.compose([picture()], ["is red"])


def test_loading_is_silent(clip_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(clip_folder, device="cpu")
    out, err = capfd.readouterr()
    assert out == err == ""


def damaged_clips(clip: Path) -> dict[str, tuple[Any, str]]:
    weights = clip / "model.safetensors"

    def fewer() -> None:
        state = load_file(weights)
        del state["visual_projection.weight"]
        save_file(state, weights, {"format": "pt"})

    def pickled() -> None:
        torch.save(load_file(weights), clip / "pytorch_model.bin")
        weights.unlink()

    return {
        "another kind of model": (lambda: edit(clip / "config.json", model_type="siglip"), "known are clip"),
        "remote code": (
            lambda: edit(clip / "config.json", model_type="x", auto_map={"AutoModel": "evil.Evil"}),
            "known are clip",
        ),
        "no config": (lambda: (clip / "config.json").unlink(), "cannot be read"),
        "no preprocessing": (lambda: (clip / "preprocessor_config.json").unlink(), "cannot be read"),
        "empty preprocessing": (lambda: (clip / "preprocessor_config.json").write_text("{}"), "image_mean"),
        "no tokeniser": (lambda: (clip / "vocab.json").unlink(), "tokeniser"),
        "damaged tokeniser": (lambda: (clip / "vocab.json").write_text("{"), "damaged"),
        "damaged weights": (lambda: weights.write_bytes(weights.read_bytes()[:-64]), "damaged"),
        "fewer weights": (fewer, "not complete"),
        "pickled weights": (pickled, "safetensors"),
    }


@pytest.mark.parametrize("name", damaged_clips(Path()))
def test_damaged_clip(name: str, clip_folder: Path, tmp_path: Path) -> None:
    clip = Path(shutil.copytree(clip_folder, tmp_path / "clip"))
    harm, message = damaged_clips(clip)[name]
    harm()
    with pytest.raises(ModelError, match=message) as caught:
        load(clip, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no-such-model", "./nowhere", "a/b/c", "", "https://example.org/a", "../up", "a b/c"])
def test_no_such_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"mini|config\.json"):
        load(name, device="cpu")


def test_file_instead_of_folder(tmp_path: Path) -> None:
    (tmp_path / "model_59.pth").touch()
    with pytest.raises(ModelError, match="fti4cir convert"):
        load(tmp_path / "model_59.pth")


def test_wrong_device_and_dtype(clip_folder: Path) -> None:
    with pytest.raises(ModelError, match="no device called 'gpu'"):
        load(clip_folder, device="gpu")
    with pytest.raises(ModelError, match="float16"):
        load(clip_folder, dtype="float16")  # type: ignore[arg-type]


# -- the hub --------------------------------------------------------------------------------------------------


def lay_out(hub: Path, repository: str, commit: str, files: Path, ref: str | None = None) -> None:
    """Put files into a cache as huggingface_hub lays it out, with links from the snapshot to the blobs."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    for file in files.iterdir():
        shutil.copy(file, folder / "blobs" / file.name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    if ref is not None:
        (folder / "refs").mkdir()
        (folder / "refs" / ref).write_text(commit)


RELEASE_COMMIT = "4" * 40


def released_state(seed: int = 0) -> dict[str, torch.Tensor]:
    source = random_inversion(seed, num_latent=14, max_attributes=12, layers=1, threshold=0.05)
    inner = [f"layers.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")]
    layer = ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.to_queries.weight"]
    layer += ["attn.to_keys_values.weight", "attn.project.weight", "attn.project.bias"]
    layer += [f"mlp.{name}.{kind}" for name in ("fc1", "fc2") for kind in ("weight", "bias")]
    parameters = ["templates", "local_atte_fc.0.weight", "local_atte_fc.0.bias"]
    parameters += [f"{phi}.{name}" for phi in ("phi_s", "phi_a") for name in inner]
    parameters += [f"transformer.layers.0.{name}" for name in layer]
    return {name: source.state_dict()[str(our_name(name))] for name in parameters}


@pytest.fixture
def hub(clip_folder: Path, tmp_path: Path) -> Path:
    """HF_HOME with the preset's two repositories, the tiny CLIP in the place of the large one."""
    home = tmp_path / "home"
    lay_out(home / "hub", names.CLIP_REPOSITORY, names.CLIP_REVISION, clip_folder)
    (tmp_path / "release").mkdir()
    torch.save(released_state(), tmp_path / "release" / "model_59.pth")
    lay_out(home / "hub", names.RELEASE_REPOSITORY, RELEASE_COMMIT, tmp_path / "release", "main")
    return home


def run(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own: huggingface_hub reads its environment when it is imported."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ASSETS_CACHE", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_preset_from_the_cache(hub: Path) -> None:
    """Converted on first use; afterwards the release is not needed any more."""
    code = f"""
import shutil
from pathlib import Path
from fti4cir.models.loading import load
first = load("vit-l-14", device="cpu")
assert first.name == "vit-l-14" and first.inversion.config.num_latent == 14
shutil.rmtree(Path({str(hub)!r}) / "hub" / "models--iLearn-Lab--SIGIR24-FTI4CIR")
second = load("vit-l-14", device="cpu", dtype="bfloat16")
assert all((a == b).all() for a, b in zip(first.inversion.parameters(), second.inversion.parameters()))
print(first.encoder.name)
"""
    done = run(code, hub)
    assert done.stderr == ""
    assert done.stdout == "openai/clip-vit-large-patch14\n"
    config = json.loads((hub / "assets" / "fti4cir" / "vit-l-14" / "main" / "config.json").read_text())
    assert config["trained"]["converted_from"] == f"{names.RELEASE_REPOSITORY}@{RELEASE_COMMIT}: model_59.pth"
    assert config["trained"]["assumed"]["heads"] == 1


def test_hub_name_from_the_cache(clip_folder: Path, tmp_path: Path) -> None:
    lay_out(tmp_path / "hub", "someone/tiny-clip", "a" * 40, clip_folder, "main")
    done = run("from fti4cir.models.loading import load; print(load('someone/tiny-clip', 'cpu').fingerprint)", tmp_path)
    assert done.stderr == ""
    assert done.stdout.strip() == load(clip_folder, "cpu").fingerprint


FAIL = """
from fti4cir.models.loading import load
from fti4cir.errors import ModelError
for name in {names}:
    try:
        load(name, device="cpu")
    except ModelError as error:
        print(error)
"""


def test_offline_without_a_cache(tmp_path: Path) -> None:
    done = run(FAIL.format(names=["vit-l-14", "openai/clip-vit-base-patch32"]), tmp_path)
    assert done.stderr == ""
    preset, other = done.stdout.splitlines()
    assert names.CLIP_REPOSITORY in preset
    assert names.CLIP_REVISION in preset
    assert "openai/clip-vit-base-patch32" in other
    for message in (preset, other):
        assert "downloaded" in message
        assert "HF_HOME" in message
        assert "mini" in message


def test_offline_with_part_of_a_cache(hub: Path) -> None:
    release = hub / "hub" / f"models--{names.RELEASE_REPOSITORY.replace('/', '--')}"
    shutil.rmtree(release)
    clip = hub / "hub" / f"models--{names.CLIP_REPOSITORY.replace('/', '--')}"
    lay_out(hub / "hub", "someone/partial", "b" * 40, clip / "blobs", "main")
    (hub / "hub" / "models--someone--partial" / "snapshots" / ("b" * 40) / "model.safetensors").unlink()
    without_release, partial = run(FAIL.format(names=["vit-l-14", "someone/partial"]), hub).stdout.splitlines()
    assert names.RELEASE_REPOSITORY in without_release
    assert "someone/partial has to be downloaded" in partial


def test_several_checkpoints_in_the_release(hub: Path) -> None:
    release = hub / "hub" / f"models--{names.RELEASE_REPOSITORY.replace('/', '--')}"
    snapshot = release / "snapshots" / RELEASE_COMMIT
    shutil.copy(snapshot / "model_59.pth", snapshot / "model_60.pth")
    done = run(FAIL.format(names=["vit-l-14"]), hub)
    assert "model_59.pth, model_60.pth" in done.stdout
    assert "fti4cir convert" in done.stdout
