"""Reads the authors' released checkpoint without running anything that it contains.

The release saves its whole network with `torch.save(network)`, so the file is a pickle, and a pickle can
make its reader call any function. This reader accepts a closed list of names. Tensors are built by our own code,
the release's classes become inert stand-ins that only keep their state, and every other name is refused. Nothing is
imported because a pickle names it, and `torch.load` is never called.
"""

from __future__ import annotations

import collections
import math
import pickle
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..inversion.network import InversionConfig

# The defaults of the release's command line, for settings that a bare state dict does not contain.
_DEFAULTS: dict[str, Any] = {"max_attributes": 12, "threshold": 0.05, "heads": 1, "dropout": 0.5}

_STAND_INS = frozenset(
    {
        ("i2t_model", "IMG2TEXT"),
        ("i2t_model", "Phi"),
        ("MHTransformer", "Transformer"),
        ("MHTransformer", "TransformerLayer"),
        ("MHTransformer", "MultiHeadAttention"),
        ("MHTransformer", "MlpTransformer"),
        ("torch.nn.modules.activation", "GELU"),
        ("torch.nn.modules.activation", "Sigmoid"),
        ("torch.nn.modules.container", "ModuleList"),
        ("torch.nn.modules.container", "Sequential"),
        ("torch.nn.modules.dropout", "Dropout"),
        ("torch.nn.modules.linear", "Linear"),
        ("torch.nn.modules.loss", "CosineEmbeddingLoss"),
        ("torch.nn.modules.loss", "MSELoss"),
        ("torch.nn.modules.normalization", "LayerNorm"),
        ("torch.nn.functional", "relu"),
    }
)
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_ZIP_START = b"PK\x03\x04"
# `torch.save` before 1.6: this number, pickled, then a version, a description of the machine, the object,
# the keys of its storages, and the storages' bytes.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = pickle.dumps(_LEGACY_MAGIC, protocol=2)
_LEGACY_VERSION = 1001

# The release's names of parameters, and ours.
_NAMES = (
    (r"templates", "latent.queries"),
    (r"local_atte_fc\.0\.(weight|bias)", r"latent.project.\1"),
    (r"phi_s\.layers\.0\.(weight|bias)", r"subject.first.\1"),
    (r"phi_s\.layers\.3\.(weight|bias)", r"subject.second.\1"),
    (r"phi_s\.layers\.6\.(weight|bias)", r"subject.third.\1"),
    (r"phi_a\.layers\.0\.(weight|bias)", r"attribute.first.\1"),
    (r"phi_a\.layers\.3\.(weight|bias)", r"attribute.second.\1"),
    (r"phi_a\.layers\.6\.(weight|bias)", r"attribute.third.\1"),
    (r"transformer\.layers\.(\d+)\.norm1\.(weight|bias)", r"latent.layers.\1.norm_attention.\2"),
    (r"transformer\.layers\.(\d+)\.attn\.to_queries\.weight", r"latent.layers.\1.query.weight"),
    (r"transformer\.layers\.(\d+)\.attn\.to_keys_values\.weight", r"latent.layers.\1.key_value.weight"),
    (r"transformer\.layers\.(\d+)\.attn\.project\.(weight|bias)", r"latent.layers.\1.output.\2"),
    (r"transformer\.layers\.(\d+)\.norm2\.(weight|bias)", r"latent.layers.\1.norm_mlp.\2"),
    (r"transformer\.layers\.(\d+)\.mlp\.fc1\.(weight|bias)", r"latent.layers.\1.widen.\2"),
    (r"transformer\.layers\.(\d+)\.mlp\.fc2\.(weight|bias)", r"latent.layers.\1.narrow.\2"),
)


@dataclass(frozen=True)
class ReleasedNetwork:
    """What a checkpoint of the release holds, in our terms."""

    config: InversionConfig
    state: dict[str, Tensor]
    """The parameters of `FineGrainedInversion(config)`, float32."""
    recorded: dict[str, Any]
    """The release's training settings that the file contains."""
    assumed: dict[str, Any]
    """The fields of `config` that the file does not contain, with the release's defaults, which are used for them."""


def read_released(path: Path) -> ReleasedNetwork:
    """Read a checkpoint that the release saved: a pickled network, or a state dict under its names.

    Raises:
        ModelError: if the file cannot be read, is of another kind, asks for anything but tensors and the
            release's own classes, or holds another network.

    """
    root = _unpickle(path)
    if isinstance(root, dict) and not _is_state_dict(root):
        networks = [value for value in root.values() if isinstance(value, _Inert) or _is_state_dict(value)]
        root = networks[0] if len(networks) == 1 else root
    if isinstance(root, _Inert) and type(root).__name__ == "IMG2TEXT":
        modules = _walk(root, path)
        parameters = {
            (f"{prefix}.{name}" if prefix else name): value
            for prefix, module in modules.items()
            for name, value in _part(module, "_parameters", path).items()
            if value is not None
        }
    elif _is_state_dict(root):
        modules, parameters = {}, root
    else:
        raise ModelError(f"{path} is a PyTorch file, but holds neither the release's network nor its state dict.")
    state: dict[str, Tensor] = {}
    for theirs, value in parameters.items():
        ours = our_name(theirs)
        if ours is None:
            raise ModelError(f"{path} is not a checkpoint of the release, which has no parameter named {theirs!r}.")
        state[ours] = _weights(theirs, value, path)
    shape = _shape(state, path)
    stored, recorded = _settings(modules, shape, path)
    assumed = {name: default for name, default in _DEFAULTS.items() if name not in stored}
    return ReleasedNetwork(InversionConfig(**{**shape, **assumed, **stored}), state, recorded, assumed)


# -- from the file to an object -----------------------------------------------------------------------------


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_START))
            file.seek(0)
            if start.startswith(_ZIP_START):
                return _read_zip(file, path.stat().st_size)
            if start == _LEGACY_START:
                return _read_legacy(file, path.stat().st_size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    except _Refused as error:
        raise ModelError(f"{path} was refused, and nothing in it was run: {error}.") from error
    except Exception as error:
        # Bytes that are not a valid pickle can make the unpickler raise nearly anything, from EOFError to
        # UnicodeDecodeError. In each case the file is at fault.
        reason = str(error) or type(error).__name__
        raise ModelError(f"{path} is damaged or not a checkpoint of the release ({reason}).") from error
    kind = "is empty" if not start else "is not a file that torch.save writes"
    raise ModelError(f"{path} {kind}; the checkpoint of the release is expected, such as model_59.pth.")


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not allowed."""


class _Inert:
    """Stands in for a class of the release: keeps the state that the pickle gives it and does nothing.

    It has no instance dictionary, so a pickle cannot replace this `__setstate__` by its own.
    """

    __slots__ = ("state",)
    state: dict[str, Any]

    def __new__(cls) -> _Inert:
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise _Refused(f"the state of a {type(self).__name__} is not a dictionary")
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Allows tensors, OrderedDict, set and stand-ins for the release's classes, by exact name.

    Args:
        file: open at the pickle's first byte.
        storage: returns the values of a storage, flat, by its key, type and number of elements.

    """

    def __init__(self, file: IO[bytes], storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The object behind a name; looked up in closed lists, never by an import or a getattr."""
        name = (module_name, global_name)
        if name in _STAND_INS:
            # A new class each time, so that what a pickle does to a class affects nothing else.
            return type(global_name, (_Inert,), {"__slots__": ()})
        if module_name == "torch" and global_name in _DTYPES:
            return _DTYPES[global_name]
        if name == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if name == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if name == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if name in {("__builtin__", "set"), ("builtins", "set")}:
            return set
        raise _Refused(f"it asks for {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> Any:
        """A storage. In the legacy format also a class, stored with a copy of its source text."""
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(count)):
                return self._storage(key, dtype, count)
            case ("storage", torch.dtype() as dtype, str(key), _, int(count), None):  # legacy: no view
                return self._storage(key, dtype, count)
            case ("module", type() as stand_in, _, _) if issubclass(stand_in, _Inert):
                return stand_in
        raise _Refused("it refers to something other than a storage of numbers")


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """A view of a storage, after a check that it lies within the storage and repeats no elements."""
    if not isinstance(storage, Tensor) or len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise _Refused("it describes an impossible tensor")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count > storage.numel() or (count and last >= storage.numel()):
        raise _Refused(f"it describes a tensor of {count} elements in a storage of {storage.numel()}")
    return torch.as_strided(storage, size, stride, offset)


def _rebuild_parameter(data: Tensor, *_: object) -> Tensor:
    return data


def _check(pickled: IO[bytes], length: int) -> None:
    """Scan a pickle of at most `length` bytes without building anything, then restore the file's position.

    The C unpickler trusts sizes: it allocates memory for the memo's largest index, and for a string before it
    reads it. `genops` fails if a string is cut off. This function checks the rest.
    """
    start = pickled.tell()
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in {"PUT", "LONG_BINPUT"} and isinstance(argument, int) and argument > length:
            raise _Refused("it claims more memory than it can need")
        if opcode.name in {"EXT1", "EXT2", "EXT4"}:  # these do not go through find_class
            raise _Refused("it uses the extension registry")
    pickled.seek(start)


def _read_zip(file: IO[bytes], size: int) -> Any:
    """The format of torch 1.6 and later: a zip archive of one pickle and one record for each storage, uncompressed."""
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in records if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Refused("it is a zip archive, but not one that torch.save writes")
        if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
            raise _Refused("its records are compressed, which torch.save never does")
        if sum(info.file_size for info in records.values()) > size:
            raise _Refused("its records claim more bytes than the file has")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in records and archive.read(order) != b"little":
            raise _Refused("its numbers are stored big-endian")
        loaded: dict[str, Tensor] = {}

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            record = records.get(f"{folder}data/{key}")
            if record is None or record.file_size != count * dtype.itemsize:
                raise _Refused(f"its storage {key} does not have the {count} elements it claims")
            if key not in loaded:
                loaded[key] = _numbers(bytearray(archive.read(record)), torch.uint8)
            return loaded[key].view(dtype)

        with archive.open(pickles[0]) as pickled:
            _check(pickled, records[pickles[0]].file_size)
            return _Unpickler(pickled, storage).load()


def _read_legacy(file: IO[bytes], size: int) -> Any:
    """The format before torch 1.6: several pickles in a row, then the storages' bytes."""
    claimed: dict[str, Tensor] = {}
    total = 0

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        nonlocal total
        if key not in claimed:
            total += count * dtype.itemsize
            if count < 0 or total > size:
                raise _Refused(f"its storages claim {total} bytes, more than the file has")
            claimed[key] = torch.zeros(count, dtype=dtype)
        if claimed[key].dtype != dtype or claimed[key].numel() != count:
            raise _Refused(f"it describes its storage {key} in two ways")
        return claimed[key]

    def load() -> Any:
        _check(file, size)
        return _Unpickler(file, storage).load()

    load()  # the magic number, which identified the format
    version, machine = load(), load()
    if version != _LEGACY_VERSION or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise _Refused("it is of an unknown version, or its numbers are stored big-endian")
    root, keys = load(), load()
    for key in keys:
        target = claimed[key]
        count = int.from_bytes(file.read(8), "little")
        data = bytearray(file.read(target.numel() * target.itemsize))
        if count != target.numel() or len(data) != target.numel() * target.itemsize:
            raise _Refused(f"its storage {key} is cut off")
        target.copy_(_numbers(data, target.dtype))
    return root


def _numbers(data: bytearray, dtype: torch.dtype) -> Tensor:
    """Little-endian bytes as a flat tensor."""
    if sys.byteorder != "little":
        raise _Refused("its numbers are stored little-endian, and this machine is big-endian")
    return torch.frombuffer(data, dtype=dtype) if data else torch.zeros(0, dtype=dtype)


# -- from the object to a network ---------------------------------------------------------------------------


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def _part(module: _Inert, name: str, path: Path) -> dict[str, Any]:
    part = module.state.get(name, {})
    if not isinstance(part, dict):
        raise ModelError(f"{path} is not a checkpoint of the release: a {name} in it is not a dictionary.")
    return part


def _walk(root: _Inert, path: Path) -> dict[str, _Inert]:
    """A stand-in and all those below it, by the dotted names that `named_modules` would give."""
    found: dict[str, _Inert] = {}
    waiting = [("", root)]
    while waiting:
        prefix, module = waiting.pop()
        if any(module is other for other in found.values()):  # in the release, no module occurs twice or within itself
            raise ModelError(f"{path} is not a checkpoint of the release: a module occurs in it twice.")
        found[prefix] = module
        waiting += [
            (f"{prefix}.{name}".lstrip("."), child)
            for name, child in _part(module, "_modules", path).items()
            if isinstance(child, _Inert)
        ]
    return found


def our_name(parameter: str) -> str | None:
    """Our name for a parameter of the release, in `FineGrainedInversion`; None if the release has no such parameter."""
    for theirs, ours in _NAMES:
        match = re.fullmatch(theirs, parameter)
        if match:
            return match.expand(ours)
    return None


def _weights(name: str, value: object, path: Path) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ModelError(f"The parameter {name!r} in {path} is not a tensor of floating-point numbers.")
    return value.detach().to(torch.float32, copy=True).contiguous()


def _shape(state: Mapping[str, Tensor], path: Path) -> dict[str, int]:
    """The network's widths and counts, from its parameters' shapes."""
    try:
        _, num_latent, vision_width = state["latent.queries"].shape
        joint_width = state["subject.first.weight"].shape[1]
        token_width = state["subject.third.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"{path} is not a checkpoint of the release: some of its parameters are missing.") from error
    layers = {int(name.split(".")[2]) for name in state if name.startswith("latent.layers.")}
    return {
        "joint_width": joint_width,
        "vision_width": vision_width,
        "token_width": token_width,
        "num_latent": num_latent,
        "layers": len(layers),
    }


def _settings(
    modules: Mapping[str, _Inert], shape: Mapping[str, int], path: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the stored modules contain besides their parameters: fields of the config, and training settings.

    Raises:
        ModelError: if they describe a network that computes something other than ours would.
    """
    if not modules:
        return {}, {}

    def value(module: str, name: str, *kinds: type) -> Any:
        found = modules[module].state.get(name) if module in modules else None
        if not isinstance(found, kinds):
            raise ModelError(
                f"{path} does not contain {f'{module}.{name}'.lstrip('.')} as the release's checkpoints do."
            )
        return found

    attentions = [name for name in modules if re.fullmatch(r"transformer\.layers\.\d+\.attn", name)]
    heads = {value(name, "num_heads", int) for name in attentions}
    dropouts = {value(name, "p", float) for name in modules if re.fullmatch(r"phi_[sa]\.layers\.[25]", name)}
    if len(heads) != 1 or len(dropouts) != 1:
        raise ModelError(
            f"The layers in {path} differ in their number of heads or in their dropout; in the release they do not."
        )
    stored = {
        "max_attributes": value("", "topk", int),
        "threshold": float(value("", "epsilon", float, int)),
        "heads": heads.pop(),
        "dropout": dropouts.pop(),
    }
    scale = (shape["vision_width"] / stored["heads"]) ** -0.5 if stored["heads"] > 0 else 0.0
    norms = [name for name in modules if re.fullmatch(r"transformer\.layers\.\d+\.norm[12]", name)]
    gelus = [name for name in modules if re.fullmatch(r"phi_[sa]\.layers\.[14]", name)]
    same = (
        value("", "num_k", int) == shape["num_latent"]
        and value("transformer", "enc_dec", bool) is False
        and all(math.isclose(value(name, "scale", float), scale, rel_tol=1e-6) for name in attentions)
        and all(value(name, "eps", float) == 1e-5 for name in norms)
        and all(modules[name].state.get("approximate", "none") == "none" for name in gelus)
    )
    if not same:
        raise ModelError(f"The network in {path} is built differently from the release's, so it cannot be converted.")
    recorded = {
        ours: modules[""].state[theirs]
        for ours, theirs in (("regularization_weight", "hy_regLoss"), ("temperature", "temperature"))
        if isinstance(modules[""].state.get(theirs), (int, float))
    }
    return stored, recorded
