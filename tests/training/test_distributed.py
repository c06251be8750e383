"""Two real processes, with the environment that `torchrun` gives them, train what one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fti4cir.methods import registry
from fti4cir.training import distributed as parallel
from fti4cir.training.distributed import World
from tinydata import SMALL, SMALL_ATTRIBUTES, log_of, logged

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

# Dropout is drawn in each process for its own images: without it, all is as in one process.
CONFIG = {**SMALL, **SMALL_ATTRIBUTES, "epochs": 2, "network.dropout": 0.0}


# -- what the processes do ------------------------------------------------------------------------------------
def operations() -> None:
    with parallel.world() as both:
        rank = both.rank
        assert (both.size, both.is_first) == (2, rank == 0)
        assert both.first(lambda: ("told by", rank)) == ("told by", 0)

        part = torch.full((2, 3), float(rank), requires_grad=True)
        rows = both.gather(part)
        assert rows.tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
        (rows * torch.arange(4.0)[:, None]).sum().backward()
        assert part.grad is not None
        assert part.grad.tolist() == [[2.0 * rank] * 3, [2.0 * rank + 1] * 3]  # of the own rows only

        weights = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(1))]
        weights[0].grad, weights[1].grad = torch.full((2, 2), 1.0 + rank), torch.full((3,), 10.0 * rank)
        both.add_gradients(weights)
        assert [None if weight.grad is None else weight.grad.flatten().tolist() for weight in weights] == [
            [3.0] * 4,
            [10.0] * 3,
            None,
        ]
        both.wait()


def end_at_step_8(line: str) -> None:
    print(line)
    if line.startswith("step 8 "):
        os._exit(7)


def launch(pictures: str, captions: str, backbone: str, folder: str) -> None:
    """Run all jobs, each in processes forked from this one, since importing takes longer than what they do."""
    ends: dict[str, list[int]] = {}

    def job(name: str, size: int, action: Callable[[], object]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        children = []
        for rank in map(str, range(size)):
            child = os.fork()
            if not child:
                os.environ.update(
                    RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=port
                )
                for number, kind in ((1, "out"), (2, "err")):
                    os.dup2(os.open(f"{folder}/{name}.{rank}.{kind}", os.O_WRONLY | os.O_CREAT), number)
                status = 0
                try:
                    action()
                except BaseException:
                    traceback.print_exc()
                    status = 1
                sys.stdout.flush()
                os._exit(status)
            children.append(child)
        ends[name] = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    def train(name: str, each_line: Callable[[str], None] = print, **changes: object) -> Callable[[], object]:
        config = registry.preset("composed", **{**CONFIG, **changes})

        def action() -> None:
            with logged(each_line):
                registry.train(config, pictures, captions, backbone, f"{folder}/{name}", resume=True)

        return action

    torch.set_num_threads(1)
    job("operations", 2, operations)
    job("alone", 1, train("alone"))
    job("both", 2, train("both"))
    job("chunks", 2, train("chunks", chunk_size=3))
    job("ended", 2, train("ended", end_at_step_8))
    job("resumed", 2, train("ended"))
    job("few", 2, train("few", batch_size=1))
    Path(folder, "ends.json").write_text(json.dumps(ends))


# -- what came of it ------------------------------------------------------------------------------------------
class Job(NamedTuple):
    ends: list[int]
    out: list[str]
    err: list[str]


@pytest.fixture(scope="module")
def jobs(data: SimpleNamespace, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all jobs' outputs, once all are done."""
    folder = tmp_path_factory.mktemp("jobs")
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", "import sys, test_distributed; test_distributed.launch(*sys.argv[1:])"]
    done = subprocess.run(
        [*command, data.pictures, data.captions, clip_folder, folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def job(folder: Path, name: str) -> Job:
    ends = json.loads((folder / "ends.json").read_text())[name]
    out, err = (
        [(folder / f"{name}.{rank}.{kind}").read_text() for rank in range(len(ends))] for kind in ("out", "err")
    )
    return Job(ends, out, err)


def assert_trained_alike(folder: Path, name: str, output: str) -> Job:
    """The job has done what one process alone does, but for rounding."""
    done = job(folder, name)
    assert set(done.ends) == {0}, done.err
    rows, expected = log_of(folder / output), log_of(folder / "alone")
    assert [row["step"] for row in rows] == [row["step"] for row in expected] == ["4", "8"]
    for row, other in zip(rows, expected, strict=True):
        for column, value in row.items():
            wanted = other[column]
            assert value == wanted or float(value) == pytest.approx(float(wanted), rel=1e-5, abs=1e-5), column
    one, other = (load_file(folder / where / "model.safetensors") for where in (output, "alone"))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    return done


def test_operations_of_two(jobs: Path) -> None:
    assert job(jobs, "operations").ends == [0, 0], job(jobs, "operations").err


def test_alone_every_operation_is_trivial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.world() as alone:
        assert alone == World()
        assert alone.is_first
        part = torch.ones(2, 3)
        assert alone.gather(part) is part
        assert alone.first(lambda: 5) == 5
        alone.wait()


def test_two_processes_train_what_one_does_and_one_of_them_speaks(jobs: Path) -> None:
    done = assert_trained_alike(jobs, "both", "both")
    assert "training on 36 images" in done.out[0]
    assert done.out[1] == ""
    names = [
        sorted(path.relative_to(jobs / where) for path in (jobs / where).rglob("*")) for where in ("both", "alone")
    ]
    assert names[0] == names[1]


def test_each_of_two_processes_in_chunks(jobs: Path) -> None:
    assert_trained_alike(jobs, "chunks", "chunks")  # four images each, in three and one


def test_two_processes_go_on_after_an_end(jobs: Path) -> None:
    ended = job(jobs, "ended")
    assert ended.ends == [7, 1]  # the second, by its connection to the first
    resumed = assert_trained_alike(jobs, "resumed", "ended")
    assert "going on from step 4 of 8" in resumed.out[0]


def test_fewer_images_than_processes(jobs: Path) -> None:
    few = job(jobs, "few")
    assert few.ends == [1, 1]
    for said in few.err:
        assert said.endswith("errors.TrainingError: A batch of 1 is too small for 2 processes.\n")
