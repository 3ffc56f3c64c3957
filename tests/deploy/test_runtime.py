"""The C runtime through its binding: the reference's integers, however many ask at once; and every refusal."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from network.broken import BASE, DESCRIPTION, GOOD, assembled, header_text, partly_shortened, put
from network.examples import conv, network, pictures, requantise, wide_resnet
from network.strategies import networks_and_pictures
from runtime.program import EXPECTED

import bitwren
from bitwren.deploy import runtime as module
from bitwren.deploy.model import Model, Reference
from bitwren.deploy.runtime import Runtime, RuntimeMissing, kernel_sets
from bitwren.errors import ModelError, UsageError
from bitwren.network import reference
from bitwren.network.graph import PIXELS
from bitwren.network.pack import decode, encode, write_bwn

SETS = kernel_sets()
BATCHES, THREADS = (0, 1, 2, 3, 17), (1, 2, 3)
NET = wide_resnet(8, 0.25, size=8)
CONTENT, PICTURES = encode(NET), pictures(NET, 17, 1)
LOGITS = reference.run(NET, PICTURES)


@pytest.fixture
def path(tmp_path):
    write_bwn(tmp_path / "model.bwn", NET)
    return tmp_path / "model.bwn"


# ---------------------------------------------------------------- the same integers


def test_the_sets_are_those_of_the_build():
    """The list is printed; a set of this architecture that CI expects must be in it."""
    print("kernel sets that run here:", *SETS)
    assert SETS[-1] == "portable" and len(set(SETS)) == len(SETS)
    foreign = {"neon"} if platform.machine() in ("x86_64", "AMD64") else {"avx2", "avx512"}
    assert {*EXPECTED} - foreign <= {*SETS}


@pytest.mark.skipif(not {"avx2", "avx512"} <= {*SETS}, reason=f"needs AVX2 and AVX-512, here are {', '.join(SETS)}")
def test_avx512_comes_after_avx2_on_intels_processors_and_before_it_on_others():
    intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    wide = SETS[:-1]
    assert wide == (("avx2", "avx512") if intel else ("avx512", "avx2"))


@settings(max_examples=25)
@given(networks_and_pictures())
def test_every_set_batch_and_number_of_threads_gives_the_references_integers(given):
    network, pixels = given
    pixels = np.resize(pixels, (max(BATCHES), *pixels.shape[1:]))
    expected, content = reference.run(network, pixels), encode(network)
    for kernels in SETS:
        with Runtime(content, kernels) as runtime:
            assert (runtime.kernels, runtime.classes, runtime.logit_scale) == (kernels, network.classes, 0.25)
            assert (runtime.channels, runtime.height, runtime.width) == network.tensors[PIXELS].shape
            for threads in THREADS:
                for batch in BATCHES:
                    got = runtime.run(pixels[:batch], threads)
                    assert got.dtype == np.int32
                    np.testing.assert_array_equal(got, expected[:batch], f"{kernels}, {threads} threads, {batch}")


def test_nodes_with_and_without_their_usual_numbers():
    images = pictures(BASE, 5, seed=0)
    expected = reference.run(BASE, images)
    for data in (GOOD, *partly_shortened()):
        assert np.array_equal(Runtime(data).run(images), expected)


@pytest.mark.parametrize(
    ("node", "numbers", "message"),
    [("stem", [0, 0, 3], "conv1: 3 numbers, expected 4 to 10"), ("add", [2, 6], "add7: 2 numbers, expected 3")],
)
def test_nodes_of_too_few_numbers(node, numbers, message):
    with pytest.raises(ModelError, match=f"^{message}$"):
        Runtime(assembled(header_text(put(DESCRIPTION, f"nodes/{node}", numbers))))


@pytest.mark.parametrize("last", [32767, -32768, 32768, -32769, 2**30, -(2**30)])
def test_offsets_of_two_and_of_four_bytes(last):
    nodes = (
        conv("stem", PIXELS, np.reshape([1, -1, 1], (3, 1, 1, 1))),
        requantise("logits", "stem", 1, [0, -1, last], 0, -(2**31), 2**31 - 1),
    )
    net = network((1, 1, 1), *nodes, classes=3)
    images = pictures(net, 5, seed=0)
    assert np.array_equal(Runtime(encode(net)).run(images), reference.run(net, images))


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize("batch", [16, 33, 100])
def test_larger_batches(kernels, batch):
    pixels = np.resize(PICTURES, (batch, *PICTURES.shape[1:]))
    with Runtime(CONTENT, kernels) as runtime:
        for threads in (0, *THREADS):
            assert np.array_equal(runtime.run(pixels, threads), np.resize(LOGITS, (batch, 10)))


def test_views_are_read_in_their_own_order():
    with Runtime(CONTENT) as runtime:
        assert np.array_equal(runtime.run(PICTURES[::-2]), LOGITS[::-2])
        assert np.array_equal(runtime.run(np.asfortranarray(PICTURES)), LOGITS)
        last = PICTURES.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)  # as decoders give them
        assert np.array_equal(runtime.run(last), LOGITS)


def test_contiguous_pictures_are_not_copied_and_not_changed(monkeypatch):
    seen, call = [], module._call
    monkeypatch.setattr(module, "_call", lambda *words: (seen.append(words), call(*words)))
    pixels = PICTURES.copy()
    pixels.flags.writeable = False
    with Runtime(CONTENT) as runtime:
        logits = runtime.run(pixels)
    first = next(words for words in seen if words[0] == "run")  # on one core a second call follows
    assert first[2] == pixels.ctypes.data and first[4] == logits.ctypes.data
    assert np.array_equal(pixels, PICTURES)


def test_many_pictures_are_handed_over_in_parts_between_which_an_interrupt_is_answered(monkeypatch):
    parts, call = [], module._call

    def watched(name, *arguments):
        call(name, *arguments)
        if name == "run":
            parts.append(arguments[2])
            if len(parts) == stop_after:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(module, "_call", watched)
    pixels, stop_after = np.resize(PICTURES, (200, *PICTURES.shape[1:]))[:, ::-1][:, ::-1], 0
    with Runtime(CONTENT) as runtime:
        for long_call, expected in ((0, [32, 32, 32, 32, 32, 32, 8]), (1e9, [32, 64, 104])):  # all are long; none is
            monkeypatch.setattr(module, "LONG_CALL", long_call)
            parts.clear()
            assert np.array_equal(runtime.run(pixels, 2), np.resize(LOGITS, (200, 10)))
            assert parts == expected
        parts.clear()
        stop_after = 2
        with pytest.raises(KeyboardInterrupt):
            runtime.run(pixels, 2)
        assert parts == [32, 64]
        assert np.array_equal(runtime.run(pixels, 2), np.resize(LOGITS, (200, 10)))


# ---------------------------------------------------------------- many at once


@pytest.mark.parametrize("kernels", SETS)
def test_many_python_threads_share_a_network(kernels, seed):
    rng, wrong = np.random.default_rng(seed), []
    jobs = [[(int(rng.integers(0, 18)), int(rng.integers(1, 4))) for _ in range(40)] for _ in range(6)]
    with Runtime(CONTENT, kernels) as runtime:

        def work(calls):
            for batch, threads in calls:
                if not np.array_equal(runtime.run(PICTURES[:batch], threads), LOGITS[:batch]):
                    wrong.append((batch, threads))

        workers = [threading.Thread(target=work, args=(calls,)) for calls in jobs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


def test_a_call_lets_other_python_threads_run():
    """While one thread is inside the library, this one counts: with the lock held it would not get a turn."""
    pixels, inside, turns = np.resize(PICTURES, (20000, *PICTURES.shape[1:])), threading.Event(), 0
    with Runtime(CONTENT, "portable") as runtime:
        runtime.run(pixels[:16], 1)

        def work():
            inside.set()
            runtime.run(pixels, 1)

        switch = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # seconds: a turn comes only where the lock is given away
        try:
            worker = threading.Thread(target=work)
            worker.start()
            inside.wait()
            while worker.is_alive():
                time.sleep(0.001)
                turns += worker.is_alive()
        finally:
            sys.setswitchinterval(switch)
        worker.join()
    assert turns > 1


def test_closing_while_another_thread_runs(monkeypatch):
    released, release = [], module._release
    monkeypatch.setattr(module, "_release", lambda what, *rest: (released.append(what.__name__), release(what, *rest)))
    pixels, got, began = np.resize(PICTURES, (20000, *PICTURES.shape[1:])), [], 0
    while began < 3:  # times that the close came first, as it nearly always does
        runtime = Runtime(CONTENT)
        worker = threading.Thread(target=lambda r=runtime: got.append(r.run(pixels, 2)))
        worker.start()
        while not runtime._idle:  # until the call is about to take a runner
            time.sleep(0)
        time.sleep(0.002)
        runtime.close()
        began += worker.is_alive() and released == []
        worker.join()
        del worker
        assert released == ["bitwren_stop", "bitwren_close"]
        released.clear()
        with pytest.raises(ValueError, match="closed"):
            runtime.run(PICTURES)
    assert all(np.array_equal(logits, np.resize(LOGITS, (20000, 10))) for logits in got)


def test_closing_twice_and_forgetting_to():
    runtime = Runtime(CONTENT)
    runtime.run(PICTURES, 3)
    runtime.close()
    runtime.close()
    before = threads_of_the_process()
    for _ in range(20):
        Runtime(CONTENT).run(PICTURES, 3)
    for _ in range(500):  # a thread that has ended stays in the system's list for a moment
        if threads_of_the_process() <= before:
            return
        time.sleep(0.01)
    pytest.fail(f"{threads_of_the_process()} threads, expected {before}")


def threads_of_the_process():
    return len(os.listdir("/proc/self/task"))


def test_a_forked_process_starts_runners_of_its_own(path):
    program = (
        "import os, sys, numpy as np\n"
        "from bitwren.deploy.runtime import Runtime\n"
        "runtime, pixels = Runtime(sys.argv[1]), np.zeros((64, 3, 8, 8), np.uint8)\n"
        "expected = runtime.run(pixels, 2)\n"
        "child = os.fork()\n"
        "assert np.array_equal(runtime.run(pixels, 2), expected)\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = run_python(program, path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("end", ["runtime.close()", "del runtime; gc.collect()", "sys.exit()"])
def test_a_forked_process_may_close_what_its_parent_ran(path, end):
    """The runner's threads are the parent's: a child that waited for them to end would wait for ever."""
    program = (
        "import gc, os, signal, sys, numpy as np\n"
        "from bitwren.deploy.runtime import Runtime\n"
        "runtime, pixels = Runtime(sys.argv[1]), np.zeros((17, 3, 8, 8), np.uint8)\n"
        "expected = runtime.run(pixels, 2)\n"
        "if child := os.fork():\n"
        "    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "    assert np.array_equal(runtime.run(pixels, 2), expected)\n"
        "    sys.exit(status)\n"
        "signal.alarm(60)\n"  # ends the child where it hangs
        "assert np.array_equal(runtime.run(pixels, 2), expected)\n"
        f"{end}\n"
    )
    done = run_python(program, path)
    assert done.returncode == 0, done.stderr or f"the child ended with {done.returncode}"


def run_python(program, *words, **environment):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


# ---------------------------------------------------------------- the plan


def test_steps_name_every_node_once_and_measure_when_asked():
    with Runtime(CONTENT) as runtime:
        plain, measured = runtime.steps(), runtime.steps(PICTURES)
        assert runtime.bytes > 0 and runtime.working_bytes(2, 16) > runtime.working_bytes() > 0
    layers = [name for step in plain for name in step.layers.split("+")]
    assert sorted(set(layers) - {"(layout)", PIXELS}) == sorted(node.name for node in decode(CONTENT, "").nodes)
    assert all(step.seconds == 0 and step.parts == (0, 0, 0, 0) for step in plain)
    assert all(step.seconds > 0 for step in measured)
    assert all(step.seconds == pytest.approx(sum(step.parts)) for step in measured)
    assert sum(step.macs for step in plain) == sum(macs_of(NET))
    assert [step.choice for step in plain] == [step.choice for step in measured]


def macs_of(network):
    for node in network.nodes:
        if hasattr(node, "weights"):
            yield node.weights.size * int(np.prod(network.tensors[node.name].shape[1:]))


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (PICTURES[0], r"pixels uint8 \(3, 8, 8\), expected uint8 \(N, 3, 8, 8\)"),
        (PICTURES[:, :, :7], r"pixels uint8 \(17, 3, 7, 8\), expected uint8 \(N, 3, 8, 8\)"),
        (PICTURES.astype(np.float32), r"pixels float32 \(17, 3, 8, 8\), expected uint8"),
        (PICTURES.tolist(), r"pixels list, expected uint8 \(N, 3, 8, 8\)"),
        (PICTURES.view(np.int8), r"pixels int8 \(17, 3, 8, 8\), expected uint8"),
    ],
)
def test_other_pictures(pixels, message):
    with Runtime(CONTENT) as runtime:
        for call in (runtime.run, runtime.steps):
            with pytest.raises(ModelError, match=message):
                call(pixels)


@pytest.mark.parametrize("threads", [-1, 1025, 2**31, 2**40, -(2**40)])
def test_other_numbers_of_threads(threads):
    with Runtime(CONTENT) as runtime, pytest.raises(UsageError, match=r"threads: .*, expected 0 to 1024"):
        runtime.run(PICTURES, threads)


BROKEN = [b"", b"not a network", CONTENT[:-1], CONTENT[:100], CONTENT + b"\0", assembled("{}")]


@pytest.mark.parametrize("content", BROKEN)
def test_broken_files(tmp_path, content):
    with pytest.raises(ModelError) as expected:
        Runtime(content)
    (tmp_path / "m.bwn").write_bytes(content)
    with pytest.raises(ModelError, match=r"^\S*m\.bwn: ") as got:
        Runtime(tmp_path / "m.bwn")
    assert str(got.value)[:90] in f"{tmp_path / 'm.bwn'}: {expected.value}"


def test_files_that_are_none(tmp_path):
    with pytest.raises(ModelError, match=r"none\.bwn: cannot be opened: No such file"):
        Runtime(tmp_path / "none.bwn")
    with pytest.raises(ModelError, match="not a regular file"):
        Runtime(tmp_path)


def test_a_large_file_that_is_no_network_is_not_read(tmp_path):
    """A sparse file: 8 GB that take no room on the disk, and would not fit the memory that the process may take."""
    (tmp_path / "large.bwn").touch()
    os.truncate(tmp_path / "large.bwn", 2**33)
    program = (
        "import resource, sys; from bitwren.deploy.runtime import Runtime, kernel_sets\n"
        "kernel_sets(); resource.setrlimit(resource.RLIMIT_DATA, (2**32, 2**32))\n"
        "Runtime(sys.argv[1])"
    )
    done = run_python(program, tmp_path / "large.bwn")
    assert done.stderr.endswith('large.bwn: the header does not begin {"__metadata__":: not a .bwn file\n'), done.stderr


@pytest.mark.parametrize("content", [None, b"", CONTENT[:-1]])
def test_of_a_long_path_the_end_is_named(tmp_path, content):
    """The message has 256 bytes; what is cut is the beginning of the path, between two characters."""
    for shift in range(3):
        folder = tmp_path / ("x" * shift + "\N{EURO SIGN}" * 60) / ("\N{EURO SIGN}" * 60)
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "model.bwn").write_bytes(content)
        with pytest.raises(ModelError) as error:
            Runtime(folder / "model.bwn")
        beginning, end = str(error.value).split("/model.bwn: ")
        assert beginning.startswith("...") and set(beginning) <= {*"./", "\N{EURO SIGN}"}
        assert end.startswith(("cannot be opened", "0 bytes, expected at least 50: not a .bwn file", "checksum "))


# ---------------------------------------------------------------- kernels by name


def test_kernels_by_name_and_by_the_environment(path):
    program = "import sys; from bitwren.deploy.runtime import Runtime; print(Runtime(*sys.argv[1:]).kernels)"
    for kernels in SETS:
        assert run_python(program, path, BITWREN_KERNELS=kernels).stdout == f"{kernels}\n"
        assert run_python(program, path, kernels, BITWREN_KERNELS="nonsense").stdout == f"{kernels}\n"
    assert run_python(program, path, BITWREN_KERNELS="").stdout == f"{SETS[0]}\n"


def test_kernels_that_are_not_there(path):
    with pytest.raises(UsageError, match=f"kernels: sse2 cannot run here, expected one of: {', '.join(SETS)}$"):
        Runtime(path, "sse2")
    done = subprocess.run(
        [sys.executable, "-m", "bitwren", "predict", str(path), "x.png"],
        env={**os.environ, "BITWREN_KERNELS": "mmx"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stderr.startswith("bitwren: kernels: mmx cannot run here")
    assert done.stderr.count("\n") == 1


# ---------------------------------------------------------------- bitwren.load


def test_load(path):
    network = bitwren.load(path)
    assert isinstance(network.engine, Runtime) and isinstance(bitwren.load(path, "reference").engine, Reference)
    assert np.array_equal(network.logits(PICTURES), LOGITS)
    assert np.array_equal(network.predict(PICTURES), LOGITS.argmax(1))
    assert network.predict(PICTURES[:0]).shape == (0,)
    probabilities = bitwren.load(str(path), "reference").probabilities(PICTURES)
    assert np.array_equal(network.probabilities(PICTURES), probabilities)
    with pytest.raises(UsageError, match="unknown engine 'refrence'; did you mean 'reference'"):
        bitwren.load(path, "refrence")
    with pytest.raises(UsageError, match="threads is -1"):
        bitwren.load(path, threads=-1)


@pytest.mark.parametrize("engine", ["runtime", "reference"])
def test_load_from_bytes(engine):
    assert np.array_equal(bitwren.load(CONTENT, engine).logits(PICTURES), LOGITS)
    with pytest.raises(ModelError, match=r"6 bytes, expected at least \d+: not a \.bwn file"):
        bitwren.load(CONTENT[:6], engine)


def test_import_bitwren_imports_nothing_else():
    done = run_python("import sys, bitwren; print([m for m in sys.modules if 'numpy' in m or 'bitwren.' in m])")
    assert done.stdout == "[]\n"
    assert not hasattr(bitwren, "laod")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Look for the library in another folder."""
    monkeypatch.setattr(module, "FOLDER", tmp_path / "lib")
    module._library.cache_clear()
    yield tmp_path / "lib"
    module._library.cache_clear()


def test_a_missing_library_is_named_and_the_reference_serves(path, elsewhere):
    with pytest.raises(RuntimeMissing, match=r"C runtime is not installed .*: install a C compiler"):
        Runtime(path)
    with pytest.raises(RuntimeMissing):
        bitwren.load(path, "runtime")
    with pytest.warns(UserWarning, match=r"install a C compiler.*; the slow reference runs instead") as told:
        model = bitwren.load(path)
    assert told[0].filename == __file__ and isinstance(model, Model)
    assert np.array_equal(model.logits(PICTURES), LOGITS)


def test_a_library_that_is_none(path, elsewhere):
    elsewhere.mkdir()
    (elsewhere / "libbitwren.so").write_bytes(b"not a library")
    with pytest.raises(RuntimeMissing, match=r"cannot be loaded: .*; install bitwren once more"):
        Runtime(path)
