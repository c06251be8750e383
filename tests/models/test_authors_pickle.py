"""The authors' pickled checkpoint: what is read from it, and that nothing in it is ever run."""

import builtins
import json
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import ModelError
from fti4cir.inversion.network import FineGrainedInversion
from fti4cir.models.authors_pickle import read_released
from fti4cir.models.loading import convert, load
from releasednetwork import SETTINGS, released_name
from tinyclip import JOINT, VISION, picture, random_inversion

pytestmark = pytest.mark.numeric

# -- checkpoints like the release's ---------------------------------------------------------------------------


def saved(network: object, path: Path, legacy: bool = False) -> Path:
    torch.save(network, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_network(release: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool) -> None:
    source = random_inversion(**SETTINGS)
    path = saved(release(source), tmp_path / "model_59.pth", legacy)
    monkeypatch.undo()  # the release's modules cannot be imported from here on
    found = read_released(path)
    assert found.config == source.config
    assert found.assumed == {}
    assert found.recorded == {"regularization_weight": 1.4, "temperature": 0.2}
    assert found.state.keys() == source.state_dict().keys()
    assert all(torch.equal(found.state[name], value) for name, value in source.state_dict().items())


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "in a dict"])
def test_state_dict(tmp_path: Path, nested: bool) -> None:
    """What a state dict cannot tell is assumed, and said to be."""
    source = random_inversion(num_latent=14, max_attributes=12, layers=2)
    state: dict[str, Any] = {released_name(name): value for name, value in source.state_dict().items()}
    path = saved({"epoch": 3, "model": state} if nested else state, tmp_path / "state.pth")
    found = read_released(path)
    assert found.config == source.config
    assert found.assumed == {"max_attributes": 12, "threshold": 0.05, "heads": 1, "dropout": 0.5}


def test_half_precision_and_shared_storage(release: Any, tmp_path: Path) -> None:
    source = random_inversion(**SETTINGS)
    network = release(source).half()
    network.phi_a.layers[0].weight = network.phi_s.layers[0].weight
    found = read_released(saved(network, tmp_path / "half.pth"))
    assert all(value.dtype == torch.float32 for value in found.state.values())
    assert torch.equal(found.state["attribute.first.weight"], found.state["subject.first.weight"])
    torch.testing.assert_close(found.state["subject.first.weight"], source.subject.first.weight, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_k": 7},
        {"topk": "four"},
        {"transformer__enc_dec": True},
        {"transformer__layers__0__attn__scale": 0.3},
        {"transformer__layers__1__attn__num_heads": 1},
        {"transformer__layers__0__norm1__eps": 1e-3},
        {"phi_s__layers__1__approximate": "tanh"},
        {"phi_s__layers__2__p": 0.9},
        {"extra": nn.Linear(2, 2)},
    ],
    ids=str,
)
def test_another_network(release: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    path = saved(release(random_inversion(**SETTINGS), **changes), tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth"):
        read_released(path)


def test_convert(release: Any, clip_folder: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    source = random_inversion(**SETTINGS)
    folder = convert(saved(release(source), tmp_path / "model_59.pth"), clip_folder, output=tmp_path / "out")
    model = load(folder, device="cpu")
    config = json.loads((folder / "config.json").read_text())
    assert config["trained"]["converted_from"] == "model_59.pth"
    assert model.inversion is not None
    assert model.inversion.config == source.config
    features = model.features([picture()])
    found, expected = model.inversion(*features), source(*features)
    torch.testing.assert_close(found.attributes, expected.attributes)
    torch.testing.assert_close(found.subject, expected.subject)


def test_widths_that_do_not_fit(release: Any, clip_folder: Path, tmp_path: Path) -> None:
    network = release(FineGrainedInversion(type(random_inversion().config)(JOINT + 8, VISION, 32)))
    with pytest.raises(ModelError, match="joint_width is 32, the encoder's 24"):
        convert(saved(network, tmp_path / "wide.pth"), clip_folder, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- files of other kinds -------------------------------------------------------------------------------------


def other_files(folder: Path) -> dict[str, Path]:
    for name in ("empty", "text", "jpeg", "zip", "safetensors", "clip", "number", "cut", "missing record"):
        (folder / name).unlink(missing_ok=True)
    (folder / "empty").touch()
    (folder / "text").write_text("hello")
    Image.new("RGB", (8, 8)).save(folder / "jpeg", "JPEG")
    with zipfile.ZipFile(folder / "zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    save_file({"a": torch.zeros(2)}, folder / "safetensors")
    torch.save({"visual_projection.weight": torch.zeros(2, 2)}, folder / "clip")
    torch.save(3, folder / "number")
    torch.save({"templates": torch.zeros(1, 6, 8)}, folder / "whole")
    (folder / "cut").write_bytes((folder / "whole").read_bytes()[:-200])
    with zipfile.ZipFile(folder / "whole") as whole, zipfile.ZipFile(folder / "missing record", "w") as archive:
        for name in whole.namelist():
            if not name.endswith("data/0"):
                archive.writestr(name, whole.read(name))
    return {path.name: path for path in folder.iterdir()}


def test_files_of_another_kind(tmp_path: Path) -> None:
    for path in other_files(tmp_path).values():
        with pytest.raises(ModelError) as caught:
            read_released(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(ModelError, match="cannot be read"):
            read_released(path)


# -- hostile pickles ------------------------------------------------------------------------------------------

RUN: list[str] = []
"""What a hostile pickle has managed to run."""


def strike(*what: object) -> None:
    RUN.append(str(what))


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def archive_of(pickled: bytes, path: Path, records: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, record in (records or {}).items():
            archive.writestr(f"archive/data/{name}", record)
    return path


def legacy_of(pickled: bytes, path: Path) -> Path:
    start = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in start) + pickled + pickle.dumps([], 2))
    return path


def by_name(module: str, name: str, *arguments: Any) -> bytes:
    """A pickle in protocol 4 that calls whatever stands under a name, dots and all."""
    start = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)) + b"\x93"
    return start + pickle.dumps(arguments, 2)[2:-1] + b"R."


def state_of(module: str, name: str, state: bytes) -> bytes:
    """A pickle of an instance whose state is the given opcodes' value."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")\x81" + state + b"b."


HOSTILE = {
    "os.system": pickle.dumps(Calls(os.system, "touch PWNED"), 2),
    "eval": pickle.dumps(Calls(builtins.eval, f"__import__('sys').modules[{__name__!r}].strike()"), 2),
    "exec": pickle.dumps(Calls(builtins.exec, "open('PWNED', 'w')"), 2),
    "open": pickle.dumps(Calls(builtins.open, "PWNED", "w"), 2),
    "own function": pickle.dumps(Calls(strike, 1), 2),
    "nested": pickle.dumps({"a": [Calls(print, Calls(strike, Calls(os.getcwd)))]}, 2),
    "in an OrderedDict": by_name("collections", "OrderedDict", [(Calls(strike), 1)]),
    "getattr": pickle.dumps(Calls(getattr, Calls(builtins.__import__, "os"), "system"), 2),
    "getattr, protocol 4": pickle.dumps(Calls(getattr, os, "system").call[0], 4),
    "dotted os": by_name("os", "path.os.system", "touch PWNED"),
    "dotted method": by_name("torch.nn.modules.linear", "Linear.__init__", 1),
    "dotted to globals": by_name("torch.nn.modules.linear", "Linear.forward.__globals__.get", "math"),
    "module behind torch": by_name("torch.nn.modules.module", "torch.hub.load", "a/b", "c"),
    "unknown torch class": by_name("torch.nn.modules.module", "Module"),
    "real class, unlisted": by_name("torch.nn.modules.linear", "Bilinear", 1, 1, 1),
    "torch.load": by_name("torch.serialization", "load", "PWNED"),
    "stand-in, dotted": by_name("i2t_model", "IMG2TEXT.__setstate__", {}),
    "stand-in's innards": by_name("i2t_model", "IMG2TEXT.__init__.__globals__", {}),
    "stand-in called with arguments": by_name("i2t_model", "IMG2TEXT", 1),
    "storage called": by_name("torch", "FloatStorage", 10),
    "copyreg": by_name("copyreg", "_reconstructor", 1),
    "functools.partial": pickle.dumps(Calls(__import__("functools").partial, strike), 2),
    "extension registry": b"\x80\x02\x82\x01)R.",
    "state that is no dictionary": state_of("i2t_model", "IMG2TEXT", b"K\x01"),
    "slot state": state_of("i2t_model", "IMG2TEXT", b"}}\x86"),
    "build on the class": b"\x80\x02ci2t_model\nIMG2TEXT\n}X\x01\x00\x00\x00aK\x01sb.",
    "persistent id of another kind": b"\x80\x02X\x03\x00\x00\x00abcQ.",
    "module id with a function": b"\x80\x02(X\x06\x00\x00\x00modulecos\nsystem\nNNtQ.",
    "memo bomb": b"\x80\x02Nr\xf0\xff\xff\xff.",
    "text memo bomb": b"\x80\x02Np4000000000\n.",
    "string bomb": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
    "huge integer": b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"abc.",
    "deep": b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".",
    "nothing": b"",
    "no stop": b"\x80\x02}",
    "future protocol": b"\x80\x09}.",
}


@pytest.mark.parametrize("pack", [archive_of, legacy_of], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = pack(HOSTILE[name], tmp_path / "hostile.pth")
    RUN.clear()
    before = set(sys.modules)
    with pytest.raises(ModelError) as caught:
        read_released(path)
    assert "\n" not in str(caught.value)
    assert RUN == []
    assert not (tmp_path / "PWNED").exists()
    assert "i2t_model" not in set(sys.modules) - before


def test_hostile_pickles_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ordinary unpickler does run them."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE["os.system"])
    assert (tmp_path / "PWNED").exists()
    RUN.clear()
    pickle.loads(HOSTILE["own function"])
    assert RUN


def test_setstate_of_an_importable_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of the release's name with a `__setstate__` is on the path, and is never imported."""
    (tmp_path / "i2t_model.py").write_text(
        "from pathlib import Path\nPath('PWNED').touch()\n"
        "class IMG2TEXT:\n    def __setstate__(self, state): Path('PWNED').touch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        read_released(archive_of(state_of("i2t_model", "IMG2TEXT", b"}"), tmp_path / "a.pth"))
    assert not (tmp_path / "PWNED").exists()
    assert "i2t_model" not in sys.modules


def test_state_cannot_replace_setstate(tmp_path: Path) -> None:
    """Two states one after the other, the first of which holds a `__setstate__`."""
    first = b"}X\x0c\x00\x00\x00__setstate__ccollections\nOrderedDict\ns"
    pickled = b"\x80\x02ci2t_model\nIMG2TEXT\n)\x81" + first + b"b}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(ModelError, match="parameters are missing"):
        read_released(archive_of(pickled, tmp_path / "a.pth"))


def tensor_of(offset: int, size: tuple[int, ...], stride: tuple[int, ...], count: int) -> bytes:
    """A state dict of one tensor over storage 0."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage += pickle.dumps(count, 2)[2:-1] + b"tQ"
    shape = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, size, stride))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + b"\x89}tR"
    return b"\x80\x02}X\x09\x00\x00\x00templates" + tensor + b"s."


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, (4,), (1,), 1 << 40), "claim"),  # a storage of a tebibyte
        ((0, (1 << 40,), (0,), 4), "elements in a storage"),  # one number, repeated
        ((0, (5,), (1,), 4), "elements in a storage"),
        ((2, (4,), (1,), 4), "elements in a storage"),
        ((0, (2, 2), (3, 1), 4), "elements in a storage"),
        ((0, (2,), (-1,), 4), "impossible"),
        ((-1, (2,), (1,), 4), "impossible"),
        ((0, (2, 2), (1,), 4), "impossible"),
        ((0, (4,), (1,), -4), "claim"),
    ],
)
def test_impossible_tensors(shape: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        read_released(archive_of(tensor_of(*shape), tmp_path / "zip.pth", {"0": bytes(16)}))
    with pytest.raises(ModelError, match=f"{message}|cut off"):
        read_released(legacy_of(tensor_of(*shape), tmp_path / "legacy.pth"))


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_of(0, (1,), (1,), 1 << 20))
        archive.writestr("archive/data/0", bytes(4 << 20))
    with pytest.raises(ModelError, match="compressed"):
        read_released(path)


def test_module_in_itself(tmp_path: Path) -> None:
    pickled = b"\x80\x02ci2t_model\nIMG2TEXT\n)\x81q\x00}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x00ssb."
    with pytest.raises(ModelError, match="twice"):
        read_released(archive_of(pickled, tmp_path / "loop.pth"))
