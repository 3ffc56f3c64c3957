"""The learning rate at any moment of training: a cosine from high to low, once or with warm restarts."""

import math

from bitwren.recipe import TrainOptions


def learning_rate(options: TrainOptions, epochs_done: float) -> float:
    """Return the learning rate after epochs_done epochs (fractions count steps), 0 <= epochs_done <= options.epochs.

    "cosine": one half-cosine over all epochs. "restarts": cycles of first_cycle, twice that, four times that, ...
    epochs (Loshchilov and Hutter 2017), each a half-cosine from learning_rate to final_learning_rate.
    """
    start, length = 0.0, float(options.epochs)
    if options.schedule == "restarts":
        length = float(options.first_cycle)
        while epochs_done >= start + length:
            start, length = start + length, 2 * length
    swing = 0.5 * (1 + math.cos(math.pi * (epochs_done - start) / length))
    return options.final_learning_rate + (options.learning_rate - options.final_learning_rate) * swing
