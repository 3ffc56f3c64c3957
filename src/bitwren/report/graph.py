"""An integer network as a table: each node's shape, range, weights and operations (NumPy alone)."""

import numpy as np

from bitwren.network.graph import Conv, Network, Node, Pool, Requantise, macs
from bitwren.terminal import aligned, byte_count, ruled


def _kind(node: Node) -> str:
    match node:
        case Conv():
            window = node.weights.shape[1]
            return f"conv {window}x{window}" + (f" /{node.stride}" if node.stride > 1 else "")
        case Requantise():
            return f"requantise >>{node.shift}"
        case Pool():
            return f"pool {node.kind}"
    return type(node).__name__.lower()


def describe_network(network: Network, file_bytes: int) -> dict:
    """Return what the table shows, as JSON. file_bytes: of the .bwn file."""
    nodes = []
    for node in network.nodes:
        tensor = network.tensors[node.name]
        row = {
            "name": node.name,
            "kind": _kind(node),
            "shape": list(tensor.shape),
            "range": [tensor.low, tensor.high],
            "multiplications": network.multiplications(node),
        }
        if isinstance(node, Conv):
            row |= {
                "weights": node.weights.size,
                "bits_per_weight": node.weight_bits,
                "additions": macs(node, tensor.shape),
            }
        nodes.append(row)
    return {
        "input": {"shape": [network.channels, network.height, network.width], "zero": network.zero.tolist()},
        "classes": list(network.classes),
        "weights": network.weights,
        "file_bytes": file_bytes,
        "additions": sum(row.get("additions", 0) for row in nodes),
        "multiplications": network.total_multiplications,
        "largest_sum": max(max(-row["range"][0], row["range"][1]) for row in nodes),
        "nodes": nodes,
        "about": dict(network.about),
    }


def format_network(network: Network, file_bytes: int) -> str:
    """Return a table for the terminal: a line per node, the totals below."""
    told = describe_network(network, file_bytes)
    rows = [("node", "kind", "output", "range", "weights", "bits", "additions", "mults")]
    for row in told["nodes"]:
        rows.append(
            (
                row["name"],
                row["kind"],
                "x".join(map(str, row["shape"])),
                f"{row['range'][0]:,}..{row['range'][1]:,}",
                f"{row['weights']:,}" if "weights" in row else "-",
                str(row.get("bits_per_weight", "-")),
                f"{row['additions']:,}" if "additions" in row else "-",
                f"{row['multiplications']:,}",
            )
        )
    classes = ", ".join(network.classes[:10]) + (", ..." if len(network.classes) > 10 else "")
    zero = np.array2string(network.zero, separator=", ")
    totals = [
        ("input", f"{network.channels} x {network.height} x {network.width} raw pixels, zero points {zero}"),
        ("classes", f"{len(network.classes)}: {classes}"),
        ("weights", f"{network.weights:,} in a file of {file_bytes:,} bytes ({byte_count(file_bytes)})"),
        ("additions", f"{told['additions']:,} for a picture, padding included"),
        ("multiplications", f"{told['multiplications']:,} for a picture"),
        ("largest value", f"{told['largest_sum']:,} of {2**31 - 1:,}, whatever the picture"),
    ]
    return f"{ruled(aligned(rows, left=3))}\n\n" + "\n".join(f"{name:<16} {value}" for name, value in totals)
