import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bitwren.pictures import Pictures
from bitwren.recipe import AugmentOptions
from bitwren.train.batches import Files, MemoryBatches, StreamedBatches, epoch_order, evaluation_batches
from bitwren.train.distributed import World

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
PLAIN = AugmentOptions()
RANDOM = AugmentOptions(flip=True, shift=2, cutout=3)
CLASSES = tuple("abcdefg")


def numbered(count):
    """Return pictures whose every pixel is their number (under 256), labelled number % 7."""
    images = np.arange(count, dtype=np.uint8).repeat(3 * 5 * 6).reshape(count, 3, 5, 6)
    return Pictures(images, np.arange(count, dtype=np.int64) % 7, CLASSES)


def memory(count=23, batch=5, seed=1, options=PLAIN, world=ALONE):
    return MemoryBatches.of(numbered(count), batch, seed, options, world)


def assert_same(some, others):
    for (images, labels, answers), (other_images, other_labels, other_answers) in zip(some, others, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)
        assert answers is other_answers is None


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32 - 1), st.integers(0, 10**6))
def test_an_epoch_visits_each_picture_at_most_once(count, batch, seed, epoch):
    source = memory(count, batch, seed)
    batches = list(source.epoch(epoch))
    assert len(batches) == source.steps == count // batch
    seen = [number for images, _, _ in batches for number in images[:, 0, 0, 0].tolist()]
    assert len(set(seen)) == len(seen) == source.steps * batch  # so all of them, where batch divides count
    for images, labels, _ in batches:
        assert images.shape == (batch, 3, 5, 6) and images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert torch.equal(labels, images[:, 0, 0, 0].long() % 7)  # the label goes with its picture


def test_what_one_epoch_leaves_out_another_takes():
    source = memory(count=9, batch=4)
    seen = {n for epoch in range(40) for images, _, _ in source.epoch(epoch) for n in images[:, 0, 0, 0].tolist()}
    assert seen == set(range(9))  # one stays out of all 40 with probability 9 * 9**-40


def test_a_batch_is_a_function_of_seed_epoch_and_step():
    first = list(memory(options=RANDOM).epoch(3))
    assert_same(first, memory(options=RANDOM).epoch(3))
    source = memory(options=RANDOM)
    list(source.epoch(2))  # what was read before does not matter
    assert_same(first, source.epoch(3))
    assert_same(first, source.epoch(3))


@settings(max_examples=20)
@given(st.integers(0, 4), st.integers(0, 1000))
def test_starting_later_gives_the_tail(first_step, epoch):
    source = memory(options=RANDOM)
    assert_same(list(source.epoch(epoch))[first_step:], source.epoch(epoch, first_step))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_share_the_same_batch(size):
    whole = list(memory(count=50, batch=8, options=RANDOM).epoch(1))
    parts = [list(memory(50, 8, options=RANDOM, world=World(rank, size, CPU)).epoch(1)) for rank in range(size)]
    for step, (images, labels, _) in enumerate(whole):
        mine = [part[step] for part in parts]
        assert all(len(part) == 8 // size for part, _, _ in mine)
        assert torch.equal(torch.cat([part for part, _, _ in mine]), images)
        assert torch.equal(torch.cat([part for _, part, _ in mine]), labels)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_teachers_answers_go_with_their_pictures(rank, files):
    world = World(rank, 2, CPU)
    answers = torch.arange(33.0).view(11, 3)  # of picture n: 3n, 3n + 1, 3n + 2
    for source in (memory(11, 4, world=world), StreamedBatches(4, 1, RANDOM, world, files, 0)):
        plain, taught = (dataclasses.replace(source, options=AugmentOptions(), answers=a) for a in (None, answers))
        for (images, labels, _), (same, same_labels, found) in zip(plain.epoch(2, 1), taught.epoch(2, 1), strict=True):
            assert torch.equal(images, same) and torch.equal(labels, same_labels)
            assert torch.equal(found, answers[images[:, 0, 0, 0].long()]) and len(found) == 2


def test_epochs_and_seeds_differ():
    orders = [tuple(epoch_order(200, seed, epoch).tolist()) for seed in (0, 1, 2) for epoch in range(5)]
    assert len(set(orders)) == 15
    assert all(sorted(order) == list(range(200)) for order in orders)
    # The augmentation differs between steps of an epoch too: blank pictures get different random pixels.
    blank = Pictures(np.zeros((40, 3, 5, 6), np.uint8), np.zeros(40, np.int64), ("a",))
    batches = [
        images.numpy().tobytes()
        for seed in (0, 1)
        for epoch in (0, 1)
        for images, _, _ in MemoryBatches.of(blank, 10, seed, RANDOM, ALONE).epoch(epoch)
    ]
    assert len(set(batches)) == len(batches) == 16


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    pictures = numbered(11)
    paths = []
    for number, image in enumerate(pictures.images):
        paths.append(tmp_path / f"{number:02}.png")
        Image.fromarray(image.transpose(1, 2, 0)).save(paths[-1])
    return Files(tuple(paths), pictures.labels, (5, 6), 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_files_equal_the_same_pictures_in_memory(files, workers):
    streamed = StreamedBatches(3, 1, RANDOM, ALONE, files, workers)
    assert streamed.steps == 3
    assert_same(memory(11, 3, options=RANDOM).epoch(4), streamed.epoch(4))
    assert_same(list(streamed.epoch(4))[2:], streamed.epoch(4, 2))


def test_crops_are_random_but_reproducible(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "one.png")
    files = Files((tmp_path / "one.png",) * 4, np.zeros(4, np.int64), (8, 8), 3)
    streamed = StreamedBatches(4, 1, AugmentOptions(crop=True), ALONE, files, 0)
    (images, *_), (again, *_), (later, *_) = (next(streamed.epoch(epoch)) for epoch in (0, 0, 1))
    assert images.shape == (4, 3, 8, 8)
    assert torch.equal(images, again)
    assert len({image.numpy().tobytes() for image in torch.cat([images, later])}) == 8
    other = dataclasses.replace(streamed, seed=2)
    assert not torch.equal(next(other.epoch(0))[0], images)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", ["memory", "files"])
def test_evaluation_sees_every_picture_once(files, kind, size):
    source = numbered(11) if kind == "memory" else files
    seen = []
    for rank in range(size):
        for images, labels in evaluation_batches(source, World(rank, size, CPU), batch=4):
            assert len(images) <= 4 and images.dtype == torch.uint8
            assert torch.equal(labels, images[:, 0, 0, 0].long() % 7)
            seen += images[:, 0, 0, 0].tolist()
    assert sorted(seen) == list(range(11))
