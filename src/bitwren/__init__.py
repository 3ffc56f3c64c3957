"""Image networks whose every weight is one bit, without batch normalization, from training to bare metal.

>>> network = bitwren.load("model.bwn")  # or a name from `bitwren zoo`
>>> classes = network.predict(images)  # uint8 (N, channels, height, width) -> int64 (N,)
"""

import importlib

__all__ = ["load"]


def __getattr__(name: str):
    """Return load, imported when it is first asked for, so that `import bitwren` costs nothing."""
    if name == "load":
        return importlib.import_module("bitwren.deploy.model").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
