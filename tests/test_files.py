"""Places that a user names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fti4cir.cli.terminal import require_folder_place
from fti4cir.errors import InputError
from fti4cir.files import append, drop_partial_line, replacing, require_folder, user_cache


def test_a_folder(tmp_path: Path) -> None:
    require_folder(tmp_path)
    require_folder(str(tmp_path))
    with pytest.raises(InputError, match=r"There is no folder '.*gone'\."):
        require_folder(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"'.*file' is not a folder\."):
        require_folder(tmp_path / "file")


def test_only_a_uri_is_not_looked_at(tmp_path: Path) -> None:
    """Two slashes behind a colon within a path are the name of a folder."""
    require_folder_place("s3://bucket/x", "--store")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, not a folder; give another --store"):
        require_folder_place(f"{tmp_path}/file/s3://bucket", "--store")


def test_nothing_large_is_imported() -> None:
    code = "import sys, fti4cir.files; sys.exit(any(name in sys.modules for name in ('numpy', 'PIL', 'lancedb')))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    with replacing(path) as file:
        file.write(b"first")
    assert path.read_bytes() == b"first"
    path.chmod(0o640)
    with pytest.raises(KeyError), replacing(path) as file:  # noqa: PT012
        file.write(b"half of the sec")
        raise KeyError
    assert path.read_bytes() == b"first"
    with replacing(path) as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["figures.json"]


def test_a_new_file_may_be_read_by_those_who_may_read_others(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with replacing(tmp_path / "new"):
        pass
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert user_cache() == tmp_path / "fti4cir"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert user_cache() == tmp_path / ".cache" / "fti4cir"


def test_append_goes_on_after_the_last_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    append(file, b"one\n")
    append(file, b"two\nthr")  # and here the process is killed
    assert drop_partial_line(file)
    append(file, b"three\n")
    assert file.read_bytes() == b"one\ntwo\nthree\n"
    file.write_bytes(b"on")
    assert not drop_partial_line(file)
    assert file.read_bytes() == b""
