"""Tensors and state in one safetensors file, written so that a reader sees the old file or the new one, never half.

The state is JSON in the file's header; nothing is pickled. A checkpoint of training (`last.safetensors`) holds

    network.<name>    every parameter and buffer of the network
    momentum.<name>   the optimiser's momentum of each parameter
    state             epoch, step and what else the loop needs to go on bit-identically

and a network alone (`best.safetensors`) only the first.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bitwren.atomic import write_atomic
from bitwren.atomic import write_json as write_json  # the run's JSON files are written by it too
from bitwren.errors import CheckpointError

NETWORK, MOMENTUM = "network.", "momentum."
_KEY = "bitwren"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], state: Mapping) -> None:
    """Write tensors and JSON state atomically. Raises WriteError where the disk refuses."""
    plain = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    write_atomic(path, save(plain, metadata={_KEY: json.dumps(state)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors and the state of a file. Raises CheckpointError for a missing or broken one."""
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: a safetensors file, but not one that bitwren wrote (no state in its header)")
    return tensors, state


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer under its name in a checkpoint."""
    return {NETWORK + name: tensor for name, tensor in network.state_dict().items()}


def momentum_tensors(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the momentum of each parameter that has one, under its name in a checkpoint."""
    held = {name: optimiser.state.get(p, {}).get("momentum_buffer") for name, p in network.named_parameters()}
    return {MOMENTUM + name: tensor for name, tensor in held.items() if tensor is not None}


def _check(path: Path, kind: str, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name, tensor in wanted.items():
        if name not in tensors:
            raise CheckpointError(f"{path}: {kind} {name!r} is missing")
        got, expected = tuple(tensors[name].shape), tuple(tensor.shape)
        if got != expected or tensors[name].dtype != tensor.dtype:
            raise CheckpointError(
                f"{path}: {name} is {got} {tensors[name].dtype}, expected {expected} {tensor.dtype}: another network?"
            )
    extra = sorted(set(tensors) - set(wanted))
    if extra:
        raise CheckpointError(f"{path}: {kind} {extra[0]!r} is not in this network")


def restore_network(path: Path, tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """Copy the network's tensors in. Raises CheckpointError where a name, shape or type does not match."""
    mine = {k: v for k, v in tensors.items() if k.startswith(NETWORK)}
    _check(path, "tensor", mine, network_tensors(network))
    network.load_state_dict({k.removeprefix(NETWORK): v for k, v in mine.items()})


def restore_momentum(
    path: Path, tensors: Mapping[str, Tensor], network: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Copy the optimiser's momentum in; before the first step there is none."""
    mine = {k: v for k, v in tensors.items() if k.startswith(MOMENTUM)}
    if not mine:
        return
    parameters = dict(network.named_parameters())
    _check(path, "momentum", mine, {MOMENTUM + name: p for name, p in parameters.items()})
    for name, parameter in parameters.items():
        kept = mine[MOMENTUM + name].to(parameter.device)
        optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(kept)
