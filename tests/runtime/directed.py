"""Directed networks by group, as (name, network, pictures). scale multiplies what is drawn at random."""

from runtime import convolutions, graphs

GROUPS = {
    "convolutions": lambda scale: convolutions.convolutions(100 * scale, 11),
    "1x1": lambda scale: convolutions.convolutions(24 * scale, 12, windows=(1,)),
    "3x3": lambda scale: convolutions.convolutions(60 * scale, 13, windows=(3,)),
    # More than are read of the weights at once: 57.
    "many channels": lambda scale: convolutions.convolutions(
        12 * scale, 16, windows=(1, 2, 3), channels=(57, 61, 63, 127)
    ),
    "8-bit": lambda scale: convolutions.convolutions(30 * scale, 14, bits=8),
    "large windows": lambda scale: convolutions.convolutions(
        8 * scale, 15, windows=(11, 16, 17, 18), channels=(1, 2, 5)
    ),
    "int16 boundaries": lambda _: convolutions.int16_boundaries(),
    "negatives": lambda _: convolutions.negatives(),
    "zeros out of reach": lambda _: convolutions.zeros_out_of_reach(),
    "full codes": lambda _: convolutions.full_codes(),
    "int32 sums": convolutions.int32_sums,
    "requantisers": lambda _: graphs.requantisers(21),
    "splits": lambda _: graphs.splits(),
    "fractions": lambda _: graphs.fractions(26),
    "codes": lambda _: graphs.codes(25),
    "pools": lambda _: graphs.pools(22),
    "sums": lambda _: graphs.sums(23),
    "no convolutions": lambda _: graphs.without_convolutions(),
    "many readers": lambda _: graphs.many_readers(24),
    "in place": lambda _: graphs.in_place(),
    "whole networks": lambda _: graphs.whole_networks(),
    "shared": lambda _: graphs.shared(),
}
