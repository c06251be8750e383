"""The Hugging Face hub: download a repository's files once, or explain in one sentence why that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..errors import ModelError

_SECONDS = 10
"""How long to wait for the hub's first answer."""


def snapshot(
    repository: str,
    revision: str | None,
    *,
    choices: Sequence[Sequence[str]],
    whole: Callable[[Path], bool],
    otherwise: str,
) -> Path:
    """The folder of a repository's files in the hub's cache. Missing files are downloaded.

    Files in the cache are used without asking the hub again. The client itself would try an unreachable hub six times,
    for half a minute, and report each attempt. Here the hub is asked once, before anything is downloaded.

    Args:
        repository: its name on the hub, such as `openai/clip-vit-base-patch32`.
        revision: a commit or branch; None: the newest.
        choices: patterns of the names of the needed files. Each further choice is tried if the one before it is not
            enough.
        whole: whether a folder holds all needed files.
        otherwise: what a user can do instead: the end of a sentence.

    Raises:
        ModelError: if the files are not in the cache and cannot be downloaded.

    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def get(patterns: Sequence[str], local: bool) -> Path:
        found = snapshot_download(repository, revision=revision, allow_patterns=list(patterns), local_files_only=local)
        return Path(found)

    for patterns in choices:
        with contextlib.suppress(LocalEntryNotFoundError):
            cached = get(patterns, local=True)
            if whole(cached):
                return cached
    called = f"{repository}{f' at revision {revision}' if revision else ''}"
    needed = f"{called} has to be downloaded once from the Hugging Face hub"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{needed}, but HF_HUB_OFFLINE forbids it; unset that, or {otherwise}.")
    with _quiet_client():
        try:
            _require_answer(repository, revision)
            for patterns in choices:
                downloaded = get(patterns, local=False)
                if whole(downloaded):
                    return downloaded
        except Exception as error:
            # The client passes on the errors of its HTTP library, and that library depends on its version.
            raise ModelError(f"{needed}, {_reason(error)}, or {otherwise}.") from error
    raise ModelError(f"{called} on the Hugging Face hub does not hold all the files that are needed; {otherwise}.")


def _require_answer(repository: str, revision: str | None) -> None:
    """Ask the hub once about a repository; raises the client's error if it does not answer."""
    from huggingface_hub import HfApi

    HfApi().model_info(repository, revision=revision, timeout=_SECONDS)


def _reason(error: Exception) -> str:
    """Why a download failed, and the first thing to do about it: text to put after a comma."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "which requires that you accept its terms there first; log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "which has no public model of that name; check the name, log in with `hf auth login` if it is private"
    if isinstance(error, RevisionNotFoundError):
        return "which does not have that revision; check it"
    if isinstance(error, HfHubHTTPError):
        return f"which answers with an error (status {error.response.status_code}); try again later"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return (
            f"but '{error.filename}' cannot be written ({error.strerror}); make room, or set HF_HOME to another folder"
        )
    return "which cannot be reached; go online"


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep the client's warnings about each failed attempt off stderr."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
