"""The integer network that a recipe will make, before anything is trained: its shapes, random weights."""

import numpy as np

from bitwren.network.convert import convert
from bitwren.network.graph import Network
from bitwren.recipe import Recipe
from bitwren.train.run import build_network

PICTURES = 4  # of random bytes, to choose scales on


def untrained(recipe: Recipe, channels: int, classes: int, size: tuple[int, int]) -> Network:
    """Return the integer network of a recipe whose weights are those that training begins with, drawn from its seed.

    size: (height, width) of the pictures. Raises UsageError for a network that the recipe cannot make, ModelError for
    one whose sums pass int32.
    """
    images = np.random.default_rng(recipe.train.seed).integers(0, 256, (PICTURES, channels, *size), dtype=np.uint8)
    names = tuple(f"class {k}" for k in range(classes))
    about = {"recipe": recipe.name, "settings": recipe.changed()}
    return convert(build_network(recipe, channels, classes), images, names, about=about)
