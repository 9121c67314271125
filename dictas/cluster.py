"""Photos judged by many machines with Ray Data, as one process would: same groups, same bits, same journal.

Photos go to the workers in blocks of consecutive ones (`dictas.images.block_size`), each with the names of its own
photos only. A worker reads them, judges them and writes their files to storage that all machines share; rows alone come
back, in order, and the process that holds the journal notes them there. So a block whose worker dies is judged again by
another one, which writes the same files anew, and a process that dies is continued behind its journal as always. A
block that no worker survives is given up after `ATTEMPTS`.

Only `dictsplat anomaly predict --cluster` imports this, because Ray need not be installed.
"""

import contextlib
import json
import logging
import os
import textwrap
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import ray
import ray.data
import ray.util.client
import torch

from dictas.detector import Backbone
from dictas.images import AHEAD, Loaded, Photo, block_size, read
from dictas.journal import Journal
from dictas.outputs import Row, Writer
from dictas.stream import Judge, journalled, judged
from dictas.support import Learned, model_digest
from dictas.tiles import Tiling
from encoders.base import Encoder
from encoders.errors import InputError
from encoders.progress import Report

ATTEMPTS = 4
"""How often a block of photos is begun; the worker died each time."""
REASON = 200
"""Most characters of what Ray says was wrong."""


@dataclass(frozen=True)
class Workers:
    """Who judges.

    Attributes:
        load: makes the backbone and the detector, in the worker; it travels there by pickle.
        most: workers at a time.
        threads: of the processor, in each. Equal bits take as many as the one process would have.
        gpus: of each, 0 or 1.
    """

    load: Callable[[], tuple[Backbone, Learned]]
    most: int
    threads: int
    gpus: int = 0

    def judge_all(
        self, judge: Judge, photos: Sequence[Photo], writer: Writer, readers: int, journal: Journal, report: Report
    ) -> list[Row]:
        """As `dictas.stream.judge_all`; ``readers`` are threads that read photos, in each worker."""

        def groups(empty: Sequence[Row], start: int) -> Generator[list[Row]]:
            size = block_size(judge.group_size())
            ends = [*range((start // size + 1) * size, len(photos), size), len(photos)]
            blocks = [
                _block(first, photos[first:last], empty[first:last])
                for first, last in zip([start, *ends], ends, strict=False)
                if first < last
            ]
            return self._judged(_work(self, judge, writer, readers), blocks)

        return journalled(photos, writer, journal, report, groups)

    def _judged(self, work: "_Work", blocks: list[dict[str, Any]]) -> Generator[list[Row]]:
        # In a list, so that the reference travels and not what it refers to.
        shared = [ray.put(work)]
        most = max(1, min(self.most, len(blocks)))
        for text in _answers(shared, blocks, most, self.threads, self.gpus):
            answer = json.loads(text)
            if "error" in answer:
                raise _error(answer["error"])
            for group in answer["groups"]:
                yield [Row(**row) for row in group]


def _block(start: int, photos: Sequence[Photo], empty: Sequence[Row]) -> dict[str, Any]:
    """What a worker is told of consecutive photos, the first of which is the ``start``-th.

    As JSON, because tables of Ray Data have no room for file names whose bytes are no text.
    """
    told = [(photo.name, str(photo.path), row.output) for photo, row in zip(photos, empty, strict=True)]
    return {"start": start, "photos": json.dumps(told)}


def _answers(*asked: Any) -> Iterator[str]:
    try:
        if not ray.util.client.ray.is_connected():
            yield from blocks_judged(*asked)
            return
        # Ray Data does not run at the far end of a ray:// address, so it runs in the cluster and is asked from here.
        remote: Any = ray.remote(_Elsewhere).options(num_cpus=0)
        elsewhere = remote.remote(*asked)
        while (text := ray.get(elsewhere.next.remote())) is not None:
            yield text
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise InputError(
            f"The workers of the cluster cannot be used ({reason(error)}); see that they have the same dictsplat as "
            "this machine, and give the same command again to continue."
        ) from error


def reason(error: Exception) -> str:
    """What Ray says last of an error in a worker, which is what happened, below the traces of how it came to that."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[-1] if lines else type(error).__name__, REASON).rstrip(".")


class _Elsewhere:
    """`blocks_judged` in another process."""

    def __init__(self, *asked: Any) -> None:
        self._answers = blocks_judged(*asked)

    def next(self) -> str | None:
        return next(self._answers, None)


def blocks_judged(shared: list[Any], blocks: list[dict[str, Any]], most: int, threads: int, gpus: int) -> Iterator[str]:
    """What workers answer for block after block of photos, in order.

    Args:
        shared: a reference to a `_Work`.
        blocks: of `_block`.
        most, threads, gpus: see `Workers`.
    """
    if not blocks:
        return
    _quiet()
    attempts: Any = ray.remote(_Attempts).options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    answers = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        _Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
        fn_constructor_args=(shared, attempts.remote(ATTEMPTS)),
        num_cpus=threads,
        num_gpus=gpus,
    )
    for answer in answers.iter_rows():
        yield answer["answer"]


class _Attempts:
    """Counts how often each block was begun. Ray alone would give one that kills its workers to others without end."""

    def __init__(self, most: int) -> None:
        self._begun: Counter[int] = Counter()
        self._most = most

    def begin(self, start: int) -> int:
        """Note that the block is begun; how many workers died of it if these are enough, else 0."""
        self._begun[start] += 1
        return self._most if self._begun[start] > self._most else 0


@dataclass(frozen=True)
class _Work:
    """What every worker gets, once: the dictionary and all else that blocks have in common."""

    workers: Workers
    model: str
    dictionary: dict[str, torch.Tensor]
    tiling: Tiling | None
    size: int
    white: int | None
    writer: Writer
    readers: int
    place: Path
    """Where relative paths begin."""


def _work(workers: Workers, judge: Judge, writer: Writer, readers: int) -> _Work:
    detector = cast(Learned, judge.detector)
    dictionary = {name: value.detach().cpu() for name, value in detector.dictionary_state().items()}
    digest = model_digest(detector)
    return _Work(workers, digest, dictionary, judge.tiling, judge.size, judge.white, writer, readers, Path.cwd())


class _Worker:
    """Judges blocks of photos. What goes wrong comes back as an answer: raised here, Ray would tell it with traces."""

    def __init__(self, shared: list[Any], attempts: Any) -> None:
        self._shared, self._attempts = shared[0], attempts
        self._ready: tuple[_Work, Judge] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        start, told = int(batch["start"][0]), json.loads(batch["photos"][0])
        try:
            self._give_up_after_deaths(start, told)
            with torch.no_grad():
                answer: dict[str, Any] = {"groups": self._groups(start, told)}
        except Exception as error:
            answer = {"error": _told(error)}
        return {"answer": [json.dumps(answer)]}

    def _give_up_after_deaths(self, start: int, told: Sequence[Sequence[str]]) -> None:
        deaths = ray.get(self._attempts.begin.remote(start))
        if deaths:
            raise InputError(
                f"Workers died {deaths} times at the photos {told[0][0]} to {told[-1][0]}; take out those that "
                "cannot be judged, or use a smaller --batch or --size if memory did not suffice, and give the same "
                "command again to continue."
            )

    def _groups(self, start: int, told: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
        if self._ready is None:
            # Once: every `ray.get` unpickles everything anew.
            work: _Work = ray.get(self._shared)
            self._ready = work, _judge(work)
        work, judge = self._ready
        # Groups end where they do in the whole list, because that has a border of blocks where this list begins.
        first = start % block_size(judge.group_size())
        photos = [Photo(name, Path(path)) for name, path, _ in told]
        empty = [Row("")] * first + [Row(name, output=output) for name, _, output in told]
        groups = judged(judge, _read(judge, work, photos, first), empty, work.writer)
        return [[asdict(row) for row in group] for group in groups]


def _judge(work: _Work) -> Judge:
    torch.set_num_threads(work.workers.threads)
    with contextlib.suppress(OSError):  # paths are absolute where there is no such folder
        os.chdir(work.place)
    backbone, detector = work.workers.load()
    if model_digest(detector) != work.model:
        raise InputError(
            "A worker has other weights than this machine; install the same dictsplat on both and give both the same "
            "--checkpoint."
        )
    detector.load_dictionary_state(work.dictionary)
    return Judge(backbone, detector, work.tiling, work.size, work.white)


def _read(judge: Judge, work: _Work, photos: Sequence[Photo], first: int) -> Generator[Loaded]:
    """As `Judge.read`, of one block, by threads: processes of a worker would outlive it if it is killed."""
    prepare = None if judge.tiling else replace(judge.backbone, encoder=cast(Encoder, None)).prepare
    if not work.readers:
        yield from (read(photo, index, prepare, judge.white) for index, photo in enumerate(photos, first))
        return
    coming: deque[Future[Loaded]] = deque()
    with ThreadPoolExecutor(work.readers) as pool:
        for index, photo in enumerate(photos, first):
            coming.append(pool.submit(read, photo, index, prepare, judge.white))
            if len(coming) > AHEAD * work.readers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _quiet() -> None:
    """The journal takes blocks in order; progress is told elsewhere, and a log of Ray Data is nothing to a person."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _told(error: Exception) -> dict[str, Any]:
    if isinstance(error, OSError) and error.errno is not None:
        return {"system": [error.errno, error.strerror, error.filename]}
    return {"input" if isinstance(error, InputError) else "fault": str(error), "kind": type(error).__name__}


def _error(told: dict[str, Any]) -> Exception:
    if "system" in told:
        return OSError(*told["system"])
    if "input" in told:
        return InputError(told["input"])
    return RuntimeError(f"a worker: {told['kind']}: {told['fault']}")
