"""The C runtime (runtime/include/bitwren.h), by ctypes: a .bwn file in, uint8 pictures in, int32 logits out.

ctypes lets go of Python's global lock for the length of a call, so other Python threads run meanwhile. A runner, which
is the working memory and the threads of one call, belongs to one call at a time: each call takes an idle one that fits,
or starts one, and puts it back. Runners hold their network, and both are released when nobody holds them any more; so
closing while another thread runs is safe.
"""

import ctypes
import functools
import os
import sys
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitwren.errors import ModelError, UsageError
from bitwren.network.reference import check_pixels

FOLDER = Path(__file__).resolve().parents[1] / "lib"  # where the build of the package puts the library
LONG_CALL = 0.1  # seconds: Python answers Ctrl-C between calls of the library only
MOST_TOGETHER = 16  # pictures that share the lanes of a vector at most: planning for more changes nothing


class RuntimeMissing(UsageError):
    """The C runtime is not part of this installation; the reference is."""


@dataclass(frozen=True)
class Step:
    """One step of a plan. seconds: for a picture, of all threads together; 0 where nothing was measured.

    macs: additions and subtractions (or products) of weights for one picture. parts of the seconds:
    tables, lookups, spills, finishing (requantise, add, halo).
    """

    layers: str
    kernel: str
    choice: str
    macs: int
    seconds: float
    parts: tuple[float, float, float, float]


# -------------------------------------------------------------------- bitwren.h


class _Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("node", ctypes.c_int32), ("message", ctypes.c_char * 256)]


class _OpenOptions(ctypes.Structure):
    _fields_ = [("kernels", ctypes.c_char_p), ("memory", ctypes.c_void_p)]


class _StartOptions(ctypes.Structure):
    _fields_ = [("threads", ctypes.c_int32), ("batch", ctypes.c_int32), ("profile", ctypes.c_int32)]


class _Facts(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("channels", "height", "width", "classes")),
        ("logit_scale", ctypes.c_double),
        ("kernels", ctypes.c_char_p),
        ("bytes", ctypes.c_size_t),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_char_p) for name in ("layers", "kernel", "choice")),
        ("macs", ctypes.c_int64),
        ("seconds", ctypes.c_double),
        ("parts", ctypes.c_double * 4),
    ]


class _RunnerFacts(ctypes.Structure):
    _fields_ = [
        ("steps", ctypes.c_size_t),
        ("bytes", ctypes.c_size_t),
        ("threads", ctypes.c_int32),
        ("lanes_per_picture", ctypes.c_int32),
        ("pictures", ctypes.c_uint64),
    ]


_POINTER, _OUT = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
_FUNCTIONS = {  # name: result, arguments
    "kernels": (ctypes.c_char_p, ctypes.c_size_t),
    "open": (ctypes.c_int, _POINTER, ctypes.c_size_t, ctypes.POINTER(_OpenOptions), _OUT, ctypes.POINTER(_Error)),
    "open_file": (ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenOptions), _OUT, ctypes.POINTER(_Error)),
    "close": (None, _POINTER),
    "facts_of": (_Facts, _POINTER),
    "class_name": (ctypes.c_char_p, _POINTER, ctypes.c_int32),
    "start": (ctypes.c_int, _POINTER, ctypes.POINTER(_StartOptions), _OUT, ctypes.POINTER(_Error)),
    "stop": (None, _POINTER),
    "run": (ctypes.c_int, _POINTER, _POINTER, ctypes.c_size_t, _POINTER, ctypes.POINTER(_Error)),
    "runner_facts_of": (_RunnerFacts, _POINTER),
    "step_of": (_Step, _POINTER, ctypes.c_size_t),
}
_STATUS = {1: ModelError, 2: UsageError, 3: MemoryError, 4: ModelError, 5: UsageError}  # bitwren_status


@functools.cache
def _library() -> ctypes.CDLL:
    """Return the library, its functions declared. Raises RuntimeMissing."""
    path = FOLDER / ("libbitwren.dylib" if sys.platform == "darwin" else "libbitwren.so")
    if not path.is_file():
        raise RuntimeMissing(
            f"the C runtime is not installed ({path} is missing): install a C compiler, then bitwren once more"
        )
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(library, f"bitwren_{name}")
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise RuntimeMissing(f"the C runtime cannot be loaded: {error}; install bitwren once more") from None
    return library


def _call(name: str, *arguments) -> None:
    """Call a function that ends with a place for its error, and raise what went wrong."""
    error = _Error()
    status = getattr(_library(), f"bitwren_{name}")(*arguments, ctypes.byref(error))
    if status:
        raise _STATUS[status](error.message.decode("utf-8", "replace"))


def kernel_sets() -> tuple[str, ...]:
    """Return the names of the kernel sets that this processor can run, best first. Raises RuntimeMissing."""
    name, names = _library().bitwren_kernels, []
    while (found := name(len(names))) is not None:
        names.append(found.decode())
    return tuple(names)


# -------------------------------------------------------------------- what holds memory


class _Held:
    """Something of the library's, released with the last reference to it; what it needs lives as long.

    At the end of the process nothing is released: another thread may be running it. Nor is it in a forked process: it
    is the parent's, and a runner would wait for ever for threads that only the parent has.
    """

    def __init__(self, pointer: ctypes.c_void_p, release: Callable, needs: object = None):
        self.pointer = pointer
        weakref.finalize(self, _release, release, pointer, needs, os.getpid()).atexit = False


def _release(release: Callable, pointer: ctypes.c_void_p, _needs: object, process: int) -> None:
    if os.getpid() == process:
        release(pointer)


class Runtime:
    """An open network: any number of Python threads may run it at once.

    channels, height, width: of a picture. classes: names, in the order of the logits. logit_scale: real logit =
    logit * logit_scale. kernels: the set in use. bytes: memory that the network holds, runners not counted.
    """

    def __init__(self, source: str | os.PathLike | bytes, kernels: str | None = None):
        """Open a file, or the bytes of one. kernels: a name of kernel_sets, else $BITWREN_KERNELS, else the best.

        Raises ModelError for what is no network, UsageError for kernels that cannot run here, RuntimeMissing.
        """
        network, library = ctypes.c_void_p(), _library()
        options = _OpenOptions(None if kernels is None else os.fsencode(kernels), None)
        out = ctypes.byref(options), ctypes.byref(network)
        if isinstance(source, bytes):
            _call("open", source, len(source), *out)
        else:
            _call("open_file", os.fsencode(source), *out)
        self._network = _Held(network, library.bitwren_close)
        self._idle: dict[tuple[int, ...], deque[_Held]] = defaultdict(deque)
        facts = library.bitwren_facts_of(network)
        self.channels, self.height, self.width = facts.channels, facts.height, facts.width
        self.classes = tuple(library.bitwren_class_name(network, k).decode() for k in range(facts.classes))
        self.logit_scale, self.kernels, self.bytes = facts.logit_scale, facts.kernels.decode(), facts.bytes

    def run(self, pixels: np.ndarray, threads: int = 0) -> np.ndarray:
        """Return the logits, int32 (N, classes), of pictures uint8 (N, channels, height, width), copied if not C order.

        threads: 0 is one for each core that the process may use. Raises ModelError for pictures of another shape or
        type, UsageError for a number of threads that cannot be, ValueError where closed.
        """
        check_pixels(self, pixels)
        logits = np.empty((len(pixels), len(self.classes)), np.int32)
        together = 1 << min(len(pixels), MOST_TOGETHER).bit_length() >> 1 or 1  # a power of two: few kinds of runner
        idle = self._idle[os.getpid(), threads, together]  # after a fork a runner's threads are the parent's
        try:
            runner = idle.pop()
        except IndexError:
            runner = self._start(threads, together)
        done, count = 0, MOST_TOGETHER  # a call takes whole lots for all threads, and more while calls are short
        if len(pixels) > MOST_TOGETHER:
            count *= self._runner_facts(runner).threads
        try:
            while done < len(pixels):
                part, began = np.ascontiguousarray(pixels[done : done + count]), time.perf_counter()
                _call("run", runner.pointer, part.ctypes.data, len(part), logits[done:].ctypes.data)
                done += len(part)
                count *= 2 if time.perf_counter() - began < LONG_CALL / 2 else 1
        finally:
            idle.append(runner)  # nobody's list any more, where the network was closed meanwhile
        return logits

    def steps(self, pixels: np.ndarray | None = None, threads: int = 1) -> tuple[Step, ...]:
        """Return the steps by which one picture runs, in order; with pictures, run them one by one and measure.

        Each part's time is its median over the pictures; the first is run once more before, which is not counted.
        """
        runner, library = self._start(threads, 1, profile=pixels is not None), _library()

        def read():
            return [library.bitwren_step_of(runner.pointer, k) for k in range(self._runner_facts(runner).steps)]

        steps = read()
        parts = np.zeros((len(steps), 4))
        if pixels is not None:
            check_pixels(self, pixels)
            pixels, logits, so_far = np.ascontiguousarray(pixels), np.empty((1, len(self.classes)), np.int32), []
            for one in [*pixels[:1], *pixels]:
                _call("run", runner.pointer, one.ctypes.data, 1, logits.ctypes.data)
                so_far.append([tuple(step.parts) for step in read()])
            parts = np.median(np.diff(so_far, axis=0), axis=0)
        texts = [[text.decode() for text in (step.layers, step.kernel, step.choice)] for step in steps]
        return tuple(
            Step(*text, step.macs, sum(times), tuple(times))
            for text, step, times in zip(texts, steps, parts.tolist(), strict=True)
        )

    def working_bytes(self, threads: int = 1, batch: int = 1) -> int:
        """Return the memory that a runner takes beside the network's, bytes."""
        return self._runner_facts(self._start(threads, batch)).bytes

    def close(self) -> None:
        """Release the memory and the threads; a call in another thread comes to its end first."""
        self._network = None
        self._idle.clear()

    def __enter__(self) -> "Runtime":
        """Return the network itself: `with Runtime(path) as network` closes it."""
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _start(self, threads: int, batch: int, profile: bool = False) -> _Held:
        network, runner = self._network, ctypes.c_void_p()
        if network is None:
            raise ValueError("the network is closed")
        options = _StartOptions(*(min(max(n, -1), 2**31 - 1) for n in (threads, batch)), profile)
        _call("start", network.pointer, ctypes.byref(options), ctypes.byref(runner))
        return _Held(runner, _library().bitwren_stop, network)

    @staticmethod
    def _runner_facts(runner: _Held) -> _RunnerFacts:
        return _library().bitwren_runner_facts_of(runner.pointer)
