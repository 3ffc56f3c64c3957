"""A network as the steps of a C program: each reads tensors in the arena, row by row, and leaves one there.

A step is as many nodes as can be done in one pass over the rows, so that what lies between them is never stored:

    Convolve    [requantise] conv [requantise conv] [requantise [add]]: each row of the input once
    Window      the same, row after row of the result, each with all rows of its window: slower, in less memory
    Halve       requantise and pool of one stream, which is written over
    Score       [requantise] conv 1x1, sum     (the sum over the picture is taken first: the two commute)
    Multiply    conv with 8-bit weights or with a large window, the plain way; [requantise [add]] as above
    Requantise, Add, Pool, Sum    one node each
"""

import dataclasses
from collections.abc import Iterable, Mapping

from bitwren.deploy.generate_c.lookup import LARGEST_WINDOW
from bitwren.network import graph
from bitwren.network.graph import INT16, PIXELS, Conv, Network, Node, Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """A tensor in the arena: row after row, a row channel after channel. ctype: of a value.

    channels: those that are stored; zero channels that a pool appends need not be. tensor: range and zero points.
    """

    name: str
    channels: int
    height: int
    width: int
    ctype: str
    tensor: Tensor

    @property
    def size(self) -> int:
        """Bytes of a value."""
        return {"uint8_t": 1, "int16_t": 2, "int32_t": 4}[self.ctype]

    @property
    def row(self) -> int:
        """Values of a row."""
        return self.channels * self.width

    @property
    def bytes(self) -> int:
        """Bytes of the whole tensor, a multiple of 4."""
        return -(-self.row * self.height * self.size // 4) * 4


def stored(name: str, tensor: Tensor, channels: int | None = None) -> Stored:
    """Return how a tensor is stored, in the narrowest type that holds its range."""
    if tensor.low >= 0 and tensor.high <= 255:
        ctype = "uint8_t"
    else:
        ctype = "int16_t" if INT16[0] <= tensor.low and tensor.high <= INT16[1] else "int32_t"
    return Stored(name, channels or tensor.shape[0], *tensor.shape[1:], ctype, tensor)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One pass. nodes: those it does, in the graph's order. reads: what it needs in the arena. writes: what it leaves.

    source: the requantise between what is read and the convolution. middle: between two convolutions. sink: after the
    last. add: the node that adds `other` to the sink's result, `adjust` the requantise of other before that.
    window: whether a Convolve step is a Window step. also: the second tensor that a Halve step leaves, the pool's.
    """

    nodes: tuple[Node, ...]
    input: Stored
    writes: Stored
    source: graph.Requantise | None = None
    convs: tuple[Conv, ...] = ()
    middle: graph.Requantise | None = None
    sink: graph.Requantise | None = None
    add: graph.Add | None = None
    other: Stored | None = None
    adjust: graph.Requantise | None = None
    window: bool = False
    also: Stored | None = None

    @property
    def kind(self) -> str:
        """The kind of step, one of those at the top of this file."""
        if self.also is not None:
            return "Halve"
        if not self.convs:
            return type(self.nodes[0]).__name__
        if isinstance(self.nodes[-1], graph.Sum):
            return "Score"
        if not all(map(is_lookup, self.convs)):
            return "Multiply"
        return "Window" if self.window else "Convolve"

    @property
    def reads(self) -> tuple[Stored, ...]:
        """The tensors that the step reads."""
        return (self.input,) if self.other is None else (self.input, self.other)

    @property
    def name(self) -> str:
        """The step's name: its first and its last node's."""
        first, last = (self.convs or self.nodes)[0].name, (self.convs or self.nodes)[-1].name
        return first if first == last else f"{first} to {last}"


def is_lookup(node: Conv) -> bool:
    """Return whether a convolution is done by lookup of sums."""
    return node.weight_bits == 1 and node.weights.shape[1] <= LARGEST_WINDOW


def steps_of(network: Network) -> list[Step]:
    """Return the steps of a network, no two convolutions in one, in an order in which they can run."""
    return _Lowering(network).steps()


class _Lowering:
    def __init__(self, network: Network):
        self.network, self.tensors = network, network.tensors
        self.order = {node.name: k for k, node in enumerate(network.nodes)}
        self.made = {node.name: node for node in network.nodes}
        self.readers: dict[str, list[Node]] = {name: [] for name in self.tensors}
        for node in network.nodes:
            for name in graph.inputs_of(node):
                self.readers[name].append(node)
        self.taken: set[str] = set()  # nodes that a convolution's step does too
        self.kept: dict[str, Stored] = {}

    def steps(self) -> list[Step]:
        convs = [node for node in self.network.nodes if isinstance(node, Conv)]
        plans = [self.around(conv) for conv in reversed(convs)]  # the last first: an add goes with its later branch
        for conv, plan in zip(reversed(convs), plans, strict=True):
            plan["source"] = self.source(conv)
        made = [self.conv_step(conv, **plan) for conv, plan in zip(reversed(convs), plans, strict=True)]
        made += [self.plain_step(n) for n in self.network.nodes if n.name not in self.taken and not isinstance(n, Conv)]
        return sorted(made, key=lambda step: max(self.order[node.name] for node in step.nodes))

    def only_reader(self, name: str, kind: type) -> Node | None:
        reader = self.readers[name][0] if len(self.readers[name]) == 1 else None
        return reader if isinstance(reader, kind) and reader.name not in self.taken else None

    def around(self, conv: Conv) -> dict:
        """Return what follows a convolution in its step, and mark it as taken."""
        last = {}
        if total := self.only_reader(conv.name, graph.Sum):
            if conv.weights.shape[1] == conv.stride == 1 and not any(conv.padding):
                last = {"total": total}
        elif sink := self.only_reader(conv.name, graph.Requantise):
            last = {"sink": sink}
            if add := self.only_reader(sink.name, graph.Add):
                other = next(name for name in add.inputs if name != sink.name)
                last |= {"add": add, "other": other}
                adjust = self.made.get(other)
                alone = isinstance(adjust, graph.Requantise) and self.readers[other] == [add]
                if alone and not isinstance(self.made.get(adjust.input), Conv):
                    last |= {"adjust": adjust, "other": adjust.input}
        self.taken |= {node.name for node in last.values() if not isinstance(node, str)}
        return last

    def source(self, conv: Conv) -> graph.Requantise | None:
        """Return the requantise of a convolution's input where nothing else reads its result; mark it as taken."""
        node = self.made.get(conv.input)
        if not isinstance(node, graph.Requantise) or node.name in self.taken or len(self.readers[node.name]) > 1:
            return None
        if not is_lookup(conv):
            return None  # each code is read many times there
        self.taken.add(node.name)
        return node

    def tensor(self, name: str) -> Stored:
        if name not in self.kept:
            channels, node = None, self.made.get(name)
            readers = self.readers[name]
            if isinstance(node, graph.Pool) and readers and all(self.adds_to_zero(name, r) for r in readers):
                channels = self.tensors[node.input].shape[0]
            self.kept[name] = stored(name, self.tensors[name], channels)
        return self.kept[name]

    def adds_to_zero(self, name: str, reader: Node) -> bool:
        """Return whether a convolution's step adds this tensor, and so knows which channels are 0 without reading."""
        if isinstance(reader, graph.Requantise) and reader.name in self.taken:
            return [type(r) for r in self.readers[reader.name]] == [graph.Add]
        return isinstance(reader, graph.Add) and reader.name in self.taken

    def conv_step(self, conv: Conv, source, sink=None, add=None, other=None, adjust=None, total=None) -> Step:
        around = [node for node in (source, conv, sink, adjust, add, total) if node is not None]
        last = next(node for node in (total, add, sink, conv) if node is not None)
        return Step(
            tuple(sorted(around, key=lambda node: self.order[node.name])),
            self.tensor(conv.input if source is None else source.input),
            self.tensor(last.name),
            source,
            (conv,),
            sink=sink,
            add=add,
            other=None if other is None else self.tensor(other),
            adjust=adjust,
        )

    def plain_step(self, node: Node) -> Step:
        first, *second = graph.inputs_of(node)
        other = self.tensor(second[0]) if second else None
        return Step((node,), self.tensor(first), self.tensor(node.name), other=other)


def joined(first: Step, second: Step) -> Step:
    """Return one step of two convolutions whose inner tensor is never stored."""
    return dataclasses.replace(
        second,
        nodes=first.nodes + second.nodes,
        input=first.input,
        source=first.source,
        convs=first.convs + second.convs,
        middle=first.sink,
    )


def joinable(first: Step, second: Step, readers: Mapping[str, int]) -> bool:
    """Return whether two steps can be one: nothing else reads what lies between, and its words suit both."""
    if first.kind != "Convolve" or second.kind != "Convolve" or first.sink is None or first.add is not None:
        return False
    if second.input is not first.writes or second.source is not None or readers[first.writes.name] != 1:
        return False
    conv, width = second.convs[0], first.writes.width
    columns = width + conv.padding[1] + conv.padding[3] - conv.weights.shape[1] + 1
    return conv.stride == 1 and -(-columns // 2) == -(-width // 2)


def halvable(pool: Step, both: Step, codes: Stored) -> bool:
    """Return whether a pool and the codes of the same stream can be made in one pass, over the stream.

    both: the step that reads the codes, and what the pool gives as its `other`. See `halve.c.in`: rows of codes and of
    pooled values are packed behind the rows that are still to be read.
    """
    if pool.kind != "Pool" or pool.input is not both.input or both.other is not pool.writes:
        return False
    x, y = pool.input, pool.writes
    node = pool.nodes[0]
    if node.padding[0] != 1 or codes.ctype != "uint8_t" or x.ctype != "int16_t" or y.ctype != "int16_t" or x.row % 2:
        return False
    done, at = 0, 0  # rows of the stream turned into codes; where the next packed row begins
    for r in range(y.height):
        while done < min(2 * r + 1, x.height):
            if at > done * x.row * 2:
                return False
            at, done = at + codes.row, done + 1
        at += 2 * y.row
        if done < x.height and at > done * x.row * 2:
            return False
    return True


def halved_bytes(step: Step) -> int:
    """Return where in the stream that a Halve step reads its pooled rows go: behind the packed rows."""
    return step.writes.bytes + step.also.bytes


def reader_counts(steps: Iterable[Step]) -> dict[str, int]:
    """Return how many steps read each tensor."""
    counts: dict[str, int] = {}
    for step in steps:
        counts.setdefault(step.writes.name, 0)
        for tensor in step.reads:
            counts[tensor.name] = counts.get(tensor.name, 0) + 1
    return counts


def inner_of(step: Step, network: Network) -> Stored:
    """Return what lies between the two convolutions of a step, as it is stored row by row in a Window step."""
    return stored(step.middle.name, network.tensors[step.middle.name])


def is_pixels(tensor: Stored) -> bool:
    """Return whether a tensor is the network's input."""
    return tensor.name == PIXELS
