"""The training loop: which network it keeps, when it stops, what it writes; and the moments, the decay, the input."""

import functools
import json
import math
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from train_runs import TINY, contents

from bitwren.errors import BitwrenError, DataError, TrainingError, UsageError, WriteError
from bitwren.pictures import Pictures, streamed
from bitwren.recipe import load_recipe
from bitwren.train import loop, start
from bitwren.train.distributed import World
from bitwren.train.measure import fit_input, measure
from bitwren.train.networks import WideResNet
from bitwren.train.run import open_run

ALONE = World(0, 1, torch.device("cpu"))
STEPS = 6  # of an epoch


def trainer(photos, out, *settings, resume=False):
    recipe = load_recipe("folder", [*TINY, "train.epochs=3", *settings])
    return start.make_trainer(recipe, Path(out), ALONE, data_dir=photos, resume=resume, progress=False)


def finite(path):
    return all(torch.isfinite(t).all() for t in load_file(path).values())


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A run of 3 epochs: its trainer, its folder."""
    out = tmp_path_factory.mktemp("finished") / "run"
    made = trainer(photos, out)
    made.train(show=False)
    return made


# ---------------------------------------------------------------- what stops it


@pytest.fixture
def diverging(monkeypatch):
    """Set the learning rate to `rate` in one step of epoch 2, counted from 0."""

    def arrange(step, rate=1e30):
        def learning_rate(options, epochs_done):
            return rate if abs(epochs_done - (1 + step / STEPS)) < 1e-9 else 0.1

        monkeypatch.setattr(loop, "learning_rate", learning_rate)

    return arrange


ONE_BIT, FLOATS, BATCH_NORM = (), ("network.weight_bits=32",), ("network.activation='bn'",)
LAST = STEPS - 1


@pytest.mark.parametrize("held_out", [("data.validation=0", "train.batch=12"), ("data.validation=12",)])
@pytest.mark.parametrize(
    ("network", "step", "rate"),
    [
        (FLOATS, 1, 1e30),  # the loss turns infinite or NaN within the epoch
        (FLOATS, LAST, math.inf),  # after the last loss of the epoch, which is finite, as all are
        (ONE_BIT, 1, math.nan),  # the sign of a NaN is -1: no loss ever shows it
        (ONE_BIT, LAST, math.inf),
        (BATCH_NORM, LAST, math.nan),
    ],
)
@pytest.mark.parametrize("checked", [1, 10**9])  # after every step, or only where something is written
def test_what_is_not_finite_stops_it_and_the_last_good_network_stays(
    diverging, monkeypatch, photos, tmp_path, held_out, network, step, rate, checked
):
    monkeypatch.setattr(loop, "LOSS_CHECK_STEPS", checked)
    diverging(step, rate)
    made = trainer(photos, tmp_path / "run", *network, *held_out)
    with pytest.raises(TrainingError, match=r"^epoch 2, step \d: .*; the last good checkpoint is kept in .*/run; "):
        made.train(show=False)
    run = open_run(tmp_path / "run")
    assert finite(run.folder / "best.safetensors")
    assert finite(run.folder / "last.safetensors")
    run.network()
    again = trainer(photos, tmp_path / "run", *network, *held_out, resume=True)
    assert (again.progress.epoch, again.progress.best_epoch) == (1, 1)
    assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_checkpoint_within_an_epoch_is_not_written_either(diverging, monkeypatch, photos, tmp_path):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    diverging(2, math.nan)
    with pytest.raises(TrainingError, match=r"^epoch 2, step 3: network\.\S+ is not finite; "):
        trainer(photos, tmp_path / "run").train(show=False)
    assert finite(tmp_path / "run" / "last.safetensors")
    resumed = trainer(photos, tmp_path / "run", resume=True)
    assert (resumed.progress.epoch, resumed.progress.step) == (1, 2)


def test_divergence_before_the_first_checkpoint_says_so(monkeypatch, photos, tmp_path):
    monkeypatch.setattr(loop, "learning_rate", lambda *_: 1e30)
    with pytest.raises(TrainingError, match="no checkpoint was written yet; try train.clip=0.1, a lower"):
        trainer(photos, tmp_path / "run", *FLOATS).train(show=False)


@pytest.mark.parametrize(("loss", "said"), [(22.9, 0), (23.1, 1), (7.02e6, 1)])
def test_a_loss_far_above_a_guess_is_told(capfd, loss, said):
    """A shifted-ReLU network that diverges has finite numbers for a long time: nothing else would say so."""
    record = {"epoch": 4, "learning_rate": 0.1, "train_loss": loss, "train_accuracy": 0.1, "seconds": 1.0}
    loop._say(record, 24, math.log(10))
    message = f"bitwren: the loss is {loss:.3g}, where a guess has 2.3: training has diverged; try train.clip=0.1"
    assert capfd.readouterr().err.count(message) == said


@pytest.mark.parametrize("size", [4_000, 30_000])
def test_a_full_disk_keeps_the_old_checkpoint(photos, tmp_path, size, finished, capfd):
    """The kernel refuses to let a file grow beyond `size` bytes: less than a network, or than network and momentum."""
    folder = shutil.copytree(finished.run.folder, tmp_path / "run")
    made = trainer(photos, folder, resume=True)
    made.progress.epoch = 2
    before = contents(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with capfd.disabled():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(WriteError, match=r"safetensors: cannot be written: .*; the previous one is kept$"):
                made.train(show=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(folder.glob("*.partial"))
    assert (folder / "last.safetensors").read_bytes() == (finished.run.folder / "last.safetensors").read_bytes()
    assert contents(folder)["last.safetensors"] == before["last.safetensors"]


@pytest.mark.parametrize("where", ["file/run", "file"])
def test_a_run_folder_that_cannot_be_made(photos, tmp_path, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=rf"^{tmp_path}/{where}: cannot be made: "):
        trainer(photos, tmp_path / where)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.batch=61", "train.batch is 61, expected at most the 60 training pictures"),
        ("network.depth=9", "depth is 9, expected 6n"),
        ("augment.crop=true", "augment.crop is true, expected false"),
        ("data.validation=72", "data.validation is 72, expected fewer than the 72 training pictures"),
        ("data.training=61", "data.training is 61, expected at most 60 pictures"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(photos, tmp_path, setting, message):
    with pytest.raises(UsageError, match=message):
        trainer(photos, tmp_path / "run", setting)
    assert not (tmp_path / "run").exists()


def test_a_few_training_pictures_of_each_class_and_the_validation_pictures_as_ever(photos, tmp_path):
    few = trainer(photos, tmp_path / "few", "data.training=30").sources
    every = trainer(photos, tmp_path / "every").sources
    assert few.training.count == 30 and every.training.count == 60
    assert np.array_equal(np.bincount(few.fit.labels), np.bincount(every.fit.labels) // 2)
    assert {image.tobytes() for image in few.fit.images} < {image.tobytes() for image in every.fit.images}
    assert np.array_equal(few.validation.images, every.validation.images)


# ---------------------------------------------------------------- what it keeps


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_best_network_is_the_one_of_the_best_validation_accuracy(monkeypatch, photos, tmp_path):
    measured = iter([0.5, 0.75, 0.75, 0.25, 0.125])  # the last is the test
    networks = []

    def measure_next(network, *_):
        networks.append({k: v.clone() for k, v in network.state_dict().items()})
        return {"loss": 1.0, "accuracy": next(measured), "top5": 1.0, "count": 24}

    monkeypatch.setattr(loop, "measure", measure_next)
    result = trainer(photos, tmp_path / "run", "train.epochs=4").train(show=False)
    assert (result["epoch"], result["validation_accuracy"], result["test_accuracy"]) == (3, 0.75, 0.125)
    assert result["chosen_by"] == "validation accuracy"
    best = load_file(tmp_path / "run" / "best.safetensors")
    for name, expected in networks[2].items():  # of equals the later one
        assert torch.equal(best[f"network.{name}"], expected)
        assert torch.equal(networks[4][name], expected)  # the test is of that network
    assert not torch.equal(networks[1]["head.weight"], networks[2]["head.weight"])


def test_accuracies_in_the_files_are_those_of_the_networks_in_the_files(finished, photos):
    run, sources = open_run(finished.run.folder), finished.sources
    result = json.loads((run.folder / "result.json").read_text())
    record = records(run.folder)[result["epoch"] - 1]
    again = measure(run.network(), sources.validation, ALONE)
    assert (record["validation_accuracy"], record["validation_loss"]) == (again["accuracy"], again["loss"])
    logits = run.network()(torch.from_numpy(sources.test.images)).argmax(1).numpy()
    assert result["test_accuracy"] == (logits == sources.test.labels).mean()
    assert result["test_pictures"] == 24


def test_without_validation_the_last_network_is_kept(photos, tmp_path):
    result = trainer(photos, tmp_path / "run", "data.validation=0").train(show=False)
    assert (result["epoch"], result["chosen_by"], result["validation_accuracy"]) == (3, "last epoch", None)
    best, last = (load_file(tmp_path / "run" / f"{name}.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in best)
    assert "validation_accuracy" not in records(tmp_path / "run")[0]


def test_reestimated_moments_are_the_means_over_the_augmented_pictures(photos, tmp_path):
    settings = (*BATCH_NORM, "train.reestimate_bn=true", "train.epochs=1", "augment.cutout=3")
    made = trainer(photos, tmp_path / "run", *settings)
    made.train(show=False)
    network = open_run(tmp_path / "run").network()
    norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    seen = {name: [] for name in norms}
    for name, norm in norms.items():
        norm.register_forward_hook(lambda _, given, __, name=name: seen[name].append(given[0].detach().double()))
    network.train()
    kept = {name: (m.running_mean.clone(), m.running_var.clone()) for name, m in norms.items()}
    for images, _, _ in made.sources.training.epoch(1):
        network(images)
    assert len(norms) == 9  # the input's, 2 in each of 3 blocks, the last activation's and the head's
    for name, (mean, variance) in kept.items():
        assert len(seen[name]) == STEPS
        means = torch.stack([x.mean((0, 2, 3)) for x in seen[name]]).mean(0)
        variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen[name]]).mean(0)
        # float32 sums of at most 640 values: far more exact than 1e-4 of the spread.
        spread = variances.sqrt()
        assert ((mean - means).abs() <= 1e-4 * spread).all()
        assert ((variance - variances).abs() <= 1e-4 * variances).all()


# ---------------------------------------------------------------- what it computes


def test_only_convolutions_decay():
    network = WideResNet(8, 0.25, 3, "bn", bn_affine=True)
    recipe = load_recipe("folder", ["train.weight_decay=0.5", "train.momentum=0.0", "train.learning_rate=0.25"])
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    loop.make_optimiser(network, recipe).step()
    for name, parameter in network.named_parameters():
        factor = 1 - 0.25 * 0.5 if parameter.dim() == 4 else 1
        assert torch.equal(parameter, before[name] * factor), name
    assert {p.dim() for p in network.parameters()} == {1, 4}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_is_standardised_by_the_training_pictures(seed, channels):
    generator = np.random.default_rng(seed)
    # Far apart and narrow, so that the deviation about one common mean would give another power of two.
    images = generator.integers(0, 30, (50, channels, 5, 6)) + [[[7]], [[100]], [[220]]][:channels]
    images = images.astype(np.uint8)
    network = WideResNet(8, 0.25, 3, channels=channels)
    fit_input(network, Pictures(images, np.zeros(50, np.int64), ("a", "b", "c")))
    means = images.mean((0, 2, 3), dtype=np.float64)
    deviation = math.sqrt(((images - means[:, None, None]) ** 2).mean())
    assert network.input.mean.tolist() == np.round(means).tolist()
    assert network.input.exponent.item() == round(math.log2(deviation))


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_other_precisions(photos, tmp_path, precision):
    made = trainer(photos, tmp_path / "run", f"train.precision='{precision}'", "train.epochs=1")
    result = made.train(show=False)
    tensors = load_file(tmp_path / "run" / "last.safetensors")
    expected = torch.float64 if precision == "fp64" else torch.float32  # bf16 is for the passes alone
    assert {t.dtype for t in tensors.values()} == {expected}
    run = open_run(tmp_path / "run")
    assert measure(run.network(), made.sources.test, ALONE)["accuracy"] == result["test_accuracy"]


def test_streamed_pictures_train_like_pictures_in_memory(finished, monkeypatch, photos, tmp_path):
    monkeypatch.setattr(start, "streamed", functools.partial(streamed, limit=0))
    made = trainer(photos, tmp_path / "run", "data.workers=1")
    assert type(made.sources.training).__name__ == "StreamedBatches"
    made.train(show=False)
    assert contents(tmp_path / "run") == contents(finished.run.folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_streamed_picture_that_breaks_during_training(monkeypatch, photos, tmp_path, workers):
    folder = shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.setattr(start, "streamed", functools.partial(streamed, limit=0))
    made = trainer(folder, tmp_path / "run", f"data.workers={workers}")
    broken = made.sources.training.files.files[7]
    Path(broken).write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        made.train(show=False)
    assert str(caught.value).startswith(f"{broken}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("network", [ONE_BIT, BATCH_NORM])
def test_compiled_network_trains_alike(monkeypatch, photos, tmp_path, network):
    """The compiler's tracing and its own backward pass, without generating C++, which takes minutes.

    In float64 another order of sums is far too small to flip a sign within 3 steps.
    """
    settings = (*network, "train.precision='fp64'", "train.batch=20", "train.epochs=1")
    trainer(photos, tmp_path / "eager", *settings).train(show=False)
    calls = []

    def compile_without_code(network, compile=torch.compile):
        calls.append(network)
        return compile(network, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", compile_without_code)
    trainer(photos, tmp_path / "compiled", *settings, "train.compile=true").train(show=False)
    assert len(calls) == 1
    eager, compiled = (load_file(tmp_path / name / "last.safetensors") for name in ("eager", "compiled"))
    for name, tensor in eager.items():
        assert torch.allclose(tensor, compiled[name], rtol=1e-9, atol=1e-12), name


def test_a_network_that_cannot_be_compiled_is_one_line(monkeypatch, photos, tmp_path):
    from torch._dynamo.exc import BackendCompilerFailed

    def compile_badly(network):
        def forward(images):
            raise BackendCompilerFailed(compile_badly, RuntimeError("no compiler\nfound"), None)

        return forward

    monkeypatch.setattr(torch, "compile", compile_badly)
    with pytest.raises(TrainingError, match=r"^train.compile is true, but the network cannot be compiled: [^\n]*$"):
        trainer(photos, tmp_path / "run", "train.compile=true").train(show=False)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
    ],
)
def test_out_of_memory_is_one_line(monkeypatch, photos, tmp_path, error):
    made = trainer(photos, tmp_path / "run")

    def forward(_):
        raise error

    monkeypatch.setattr(made.network, "forward", forward)
    with pytest.raises(TrainingError, match=r"^out of memory at train.batch 10; try a smaller one \([^\n]*\)$"):
        made.train(show=False)


# ---------------------------------------------------------------- what it writes


def test_metrics_are_one_json_object_for_each_epoch(finished):
    made = records(finished.run.folder)
    assert [r["epoch"] for r in made] == [1, 2, 3]
    keys = ["epoch", "learning_rate", "train_loss", "train_accuracy", "seconds"]
    keys += ["validation_loss", "validation_accuracy"]
    for record in made:
        assert list(record) == keys
        assert all(math.isfinite(value) for value in record.values())
    rates = [1e-5 + (0.1 - 1e-5) * (1 + math.cos(math.pi * (e - 1 / STEPS) / 3)) / 2 for e in (1, 2, 3)]
    assert [r["learning_rate"] for r in made] == pytest.approx(rates, rel=1e-12)


def test_the_run_records_what_made_it(finished):
    about = json.loads((finished.run.folder / "run.json").read_text())
    assert (about["recipe"], about["data"], about["classes"]) == ("folder", "folder", ["cold", "cool", "warm"])
    assert (about["size"], about["channels"]) == ([8, 8], 3)
    assert (about["training_pictures"], about["validation_pictures"], about["test_pictures"]) == (60, 12, 24)
    assert about["versions"].keys() == {"python", "bitwren", "torch", "numpy", "pillow"}
    assert about["versions"]["torch"] == torch.__version__
    assert {"commit", "processor", "cores", "threads", "command", "device", "processes"} <= about.keys()
    assert open_run(finished.run.folder).recipe == finished.recipe
    assert load_recipe(finished.run.folder / "recipe.toml").train.seed == 0


def test_tensorboard_has_each_epoch_once_after_resuming(finished, photos, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars(folder):
        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    expected = {
        key: [(r["epoch"], np.float32(r[key])) for r in records(finished.run.folder)]
        for key in records(finished.run.folder)[0]
    }
    assert scalars(finished.run.folder) == expected
    # Killed after the second epoch was shown, before its checkpoint: that epoch comes again.
    folder, saves = tmp_path / "run", []

    def save():
        saves.append(1)
        if len(saves) == 2:
            raise BitwrenError("killed")
        loop.Trainer.save(killed)

    killed = trainer(photos, folder)
    killed.save = save
    with pytest.raises(BitwrenError, match="killed"):
        killed.train(show=False)
    trainer(photos, folder, resume=True).train(show=False)
    made = scalars(folder)
    made.pop("seconds"), expected.pop("seconds")
    assert made == expected
    assert contents(folder) == contents(finished.run.folder)
