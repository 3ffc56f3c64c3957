import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from bitwren.errors import UsageError
from bitwren.train import BinaryConv2d, CentredReLU, FloatConv2d, ResNet18, ShiftedReLU, Standardise, WideResNet


def raw(*shape, seed=0):
    """Random pictures 0..255 of that shape, uint8."""
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def convolutions(net):
    return [m for m in net.modules() if isinstance(m, FloatConv2d)]


def batch_norms(net):
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "width", "count"),
    [
        (20, 1, 268_336),
        (20, 4, 4_280_512),  # the papers' 4.3 M
        (20, 10, 26_737_120),
        # D-K has n = (D - 2) / 6 blocks a stage, so 26-10 is 20-10 with one block more in each: two 3 x 3 convolutions
        # of equal width, 26,737,120 + 2 * 9 * (160**2 + 320**2 + 640**2). The papers print 35.6 M.
        (26, 10, 26_737_120 + 2 * 9 * (160**2 + 320**2 + 640**2)),
    ],
)
@pytest.mark.parametrize("weight_bits", [1, 32])
def test_published_weight_counts(depth, width, count, weight_bits):
    with torch.device("meta"):
        net = WideResNet(depth, width, weight_bits=weight_bits)
    assert net.conv_weights() == count == sum(c.weight.numel() for c in convolutions(net))
    assert len(convolutions(net)) == depth
    assert {type(c) for c in convolutions(net)} == {BinaryConv2d if weight_bits == 1 else FloatConv2d}
    assert [c.stride for c in convolutions(net)].count((2, 2)) == 2


def test_26_10_has_36_413_920_weights():
    with torch.device("meta"):
        assert WideResNet(26, 10).conv_weights() == 36_413_920


@pytest.mark.parametrize("depth", [8, 14, 20, 26, 32, 62, 110])
@pytest.mark.parametrize("width", [0.01, 0.25, 0.5, 1, 2.5, 3.3])
def test_any_depth_and_width(depth, width):
    with torch.device("meta"):
        net = WideResNet(depth, width)
    shapes = [tuple(c.weight.shape) for c in convolutions(net)]
    assert len(shapes) == depth
    stages = [max(1, round(16 * width * 2**s)) for s in range(3)]
    assert shapes[0] == (stages[0], 3, 3, 3) and shapes[-1] == (10, stages[2], 1, 1)
    outputs = [shape[0] for shape in shapes[1:-1]]
    assert outputs == [w for w in stages for _ in range((depth - 2) // 3)]


@pytest.mark.parametrize("bn_affine", [False, True])
def test_batch_norms_and_what_they_learn(bn_affine):
    net = WideResNet(20, 0.25, 7, activation="bn", bn_affine=bn_affine)
    norms = batch_norms(net)
    assert len(norms) == 1 + (20 - 1) + 1  # input, before every convolution but the first, after the last
    assert all(norm.eps == 1e-5 for norm in norms)
    assert [norm.affine for norm in norms] == [True] + [bn_affine] * 20
    assert sum(isinstance(m, nn.ReLU) for m in net.modules()) == 19
    assert not any(isinstance(m, ShiftedReLU) for m in net.modules())
    assert net.temperature == 1.0
    learned = [name for name, _ in net.named_parameters() if "input" not in name]
    assert len(learned) == 20 + (2 * 20 if bn_affine else 0)


@pytest.mark.parametrize("make", [WideResNet, ResNet18])
def test_a_shifted_relu_network_has_no_batch_norm(make):
    net = make(width=0.25)
    assert not batch_norms(net) and isinstance(net.input, Standardise)
    assert not any(isinstance(m, nn.ReLU) for m in net.modules())
    convs = convolutions(net)
    assert sum(isinstance(m, ShiftedReLU) for m in net.modules()) == len(convs) - 1
    assert {id(p) for p in net.parameters()} == {id(c.weight) for c in convs}
    assert net.temperature == 40.0


def test_centred_relus_stand_where_shifted_ones_did():
    net, plain = WideResNet(8, 0.25, centre=True), WideResNet(8, 0.25)
    where = {name for name, m in plain.named_modules() if isinstance(m, ShiftedReLU)}
    assert {name for name, m in net.named_modules() if isinstance(m, CentredReLU)} == where
    assert net.load_state_dict(plain.state_dict(), strict=False).missing_keys == [
        name for name, _ in net.named_buffers() if name.endswith(".mean") and not name.startswith("input")
    ]
    with pytest.raises(UsageError, match="centre is true, expected false beside batch norm"):
        WideResNet(8, 0.25, activation="bn", centre=True)


def test_input_batch_norm_of_the_reference():
    net = WideResNet(8, 0.25, input="batchnorm")
    (norm,) = batch_norms(net)
    assert norm is net.input and norm.affine and norm.num_features == 3
    assert isinstance(WideResNet(8, 0.25, activation="bn", input="standardise").input, Standardise)


def test_plain_network():
    net = WideResNet(8, 1, skip=False, layer_scale="he")
    for conv in convolutions(net):
        assert conv.weight_scale == 2 / math.sqrt(conv.fan_in)
    assert all(block.shortcut is None for block in net.blocks)
    assert net.conv_weights() == WideResNet(8, 1).conv_weights()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 21}, "depth is 21, expected 6n + 2: 8, 14, 20, 26, ..."),
        ({"depth": 2}, "depth is 2, expected 6n + 2: 8, 14, 20, 26, ..."),
        ({"depth": -4}, "depth is -4, expected 6n + 2: 8, 14, 20, 26, ..."),
        ({"width": 0}, "width is 0, expected a positive number"),
        ({"width": -1.5}, "width is -1.5, expected a positive number"),
        ({"width": math.nan}, "width is nan, expected a positive number"),
        ({"width": math.inf}, "width is inf, expected a positive number"),
        ({"weight_bits": 2}, "weight_bits is 2, expected 1 or 32"),
        ({"activation": "relu"}, "unknown activation 'relu'; did you mean 'srelu'?"),
        ({"padding": "symmetrical"}, "unknown padding 'symmetrical'; did you mean 'symmetric'?"),
        ({"layer_scale": "pow"}, "unknown layer scale 'pow'; did you mean 'pow2'?"),
        ({"downsample": "binomail"}, "unknown downsample 'binomail'; did you mean 'binomial'?"),
        ({"input": "batch_norm"}, "unknown input 'batch_norm'; did you mean 'batchnorm'?"),
        ({"temperature": 0.0}, "temperature is 0.0, expected a positive number"),
        ({"temperature": math.nan}, "temperature is nan, expected a positive number"),
        ({"num_classes": 0}, "num_classes is 0 and channels 3, expected at least 1 each"),
        ({"channels": 0}, "num_classes is 10 and channels 0, expected at least 1 each"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError) as caught:
        WideResNet(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "options", [{"layer_scale": "pow"}, {"padding": "bottom"}, {"downsample": "avg4"}, {"input": "none"}]
)
@pytest.mark.parametrize("other", [{"weight_bits": 32}, {"skip": False}])
def test_wrong_names_are_refused_where_they_would_not_matter(options, other):
    with pytest.raises(UsageError):
        WideResNet(8, 0.25, **options, **other)


def test_resnet18_refuses_another_depth():
    with pytest.raises(UsageError, match="depth is 20, expected 18 for the resnet18 family"):
        ResNet18(depth=20)


# --- forward and backward, whatever the options -----------------------------------------------------------------------


@settings(max_examples=100)
@given(
    st.sampled_from(["srelu", "bn"]),
    st.sampled_from([1, 32]),
    st.sampled_from(["he", "pow2"]),
    st.sampled_from(["symmetric", "same"]),
    st.sampled_from(["avg3", "binomial"]),
    st.booleans(),
    st.sampled_from(["auto", "standardise", "batchnorm"]),
    st.booleans(),
    st.sampled_from([1, 3, 4]),
    st.integers(1, 20),
    st.integers(1, 13),
    st.integers(1, 12),
    st.sampled_from([(8, 0.25), (14, 0.1), (8, 1)]),
)
def test_every_option_runs(
    activation, bits, scale, padding, downsample, skip, entry, affine, channels, height, width, classes, dk
):
    torch.manual_seed(0)
    net = WideResNet(
        *dk, classes, activation, bits, channels=channels, layer_scale=scale, padding=padding, downsample=downsample,
        skip=skip, input=entry, bn_affine=affine,
    )  # fmt: skip
    x = raw(3, channels, height, width)
    logits = net(x)
    assert logits.shape == (3, classes) and logits.dtype == torch.float32
    F.cross_entropy(logits, torch.arange(3) % classes).backward()
    assert logits.isfinite().all()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    net.eval()
    with torch.no_grad():
        one = net(x)
        assert torch.equal(one, net(x))  # evaluation changes nothing
        # Whole numbers 0..255 are the same in uint8 and in float; only the memory format may differ.
        torch.testing.assert_close(net(x.float()), one, rtol=1e-4, atol=1e-4)
        # A picture's logits do not depend on its neighbours.
        torch.testing.assert_close(net(x[1:2]), one[1:2], rtol=1e-4, atol=1e-4)


def test_uint8_and_float_agree_exactly_in_the_same_layout():
    net = WideResNet(8, 0.5).eval()
    x = raw(2, 3, 16, 16).to(memory_format=torch.channels_last)
    assert torch.equal(net(x), net(x.float()))


# --- the structure, written out a second time -------------------------------------------------------------------------


def written_out(net, x, depth, *, binomial, padding="symmetric"):
    """Section by section as the method describes it, with nothing but torch.nn.functional. x: standardised float64."""
    convs, norms = iter(convolutions(net)), iter(batch_norms(net))
    with_bn = isinstance(net.input, nn.BatchNorm2d)

    def normalise(x):
        norm = next(norms)
        mean, variance = norm.running_mean, norm.running_var
        if net.training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        y = (x - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        return y * norm.weight[:, None, None] + norm.bias[:, None, None] if norm.affine else y

    def act(x):
        return F.relu(normalise(x)) if with_bn else torch.where(x > -1, x, -1.0)

    def conv(x, stride=1):
        layer = next(convs)
        size, fan_in = layer.weight.shape[2], layer.weight[0].numel()
        scale = math.sqrt(2 / fan_in)
        if layer.layer_scale == "pow2":
            scale = 2.0 ** math.floor(math.log2(scale) + 0.5 + 1e-9)
        weight = torch.where(layer.weight < 0, -1.0, 1.0) * scale
        if padding == "same" and stride == 2 and size == 3:  # even sizes: bottom and right
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, stride=2)
        return F.conv2d(x, weight, stride=stride, padding=size // 2)

    def smaller(x):
        channels = x.shape[1]
        if binomial:
            kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
            y = F.conv2d(x, kernel.repeat(channels, 1, 1, 1), stride=2, padding=1, groups=channels)
        elif padding == "same":
            kernel = torch.ones(channels, 1, 3, 3)
            total = F.conv2d(F.pad(x, (0, 1, 0, 1)), kernel, stride=2, groups=channels)
            real = F.conv2d(F.pad(torch.ones_like(x), (0, 1, 0, 1)), kernel, stride=2, groups=channels)
            y = total / real
        else:
            y = F.conv2d(x, torch.ones(channels, 1, 3, 3), stride=2, padding=1, groups=channels) / 9
        return torch.cat([y, torch.zeros_like(y)], 1)

    x = conv(normalise(x) if with_bn else x)
    for stage in range(3):
        for block in range((depth - 2) // 6):
            halve = stage > 0 and block == 0
            branch = conv(act(conv(act(x), stride=2 if halve else 1)))
            x = branch + (smaller(x) if halve else x)
    scores = conv(act(x))
    scores = normalise(scores) if with_bn else scores / net.temperature
    assert next(convs, None) is None and next(norms, None) is None  # every layer was used once
    return scores.mean((2, 3))


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_structure_exactly_in_dyadic_numbers(float64, seed):
    """With power-of-two scales and binomial pooling every value is a whole number over a power of two: no rounding.

    Bits below the point: 6 of the pixels; the scales 1/4 (4 times), 1/8 (3 times) and 1/2 bring 8 + 9 + 1 on the
    longest path, more than the 4 of each pooling on the skip path; the mean of 8 positions and the temperature bring
    3 + 5: 32 in all. float64 has 53, so 21 are left above the point; values stay far below 2**10, and no sum in a
    convolution of n terms exceeds n / 8 <= 18 times its largest input.
    """
    torch.manual_seed(seed)
    net = WideResNet(8, 0.25, layer_scale="pow2", downsample="binomial", temperature=32.0)
    net.input.fit(torch.tensor([125.0, 123.0, 114.0]), 64.0)
    x = raw(3, 3, 16, 8, seed=seed)
    entry = (x.double() - torch.tensor([125.0, 123.0, 114.0])[:, None, None]) / 64
    assert torch.equal(net(x), written_out(net, entry, 8, binomial=True))


@pytest.mark.parametrize(("padding", "binomial"), [("symmetric", False), ("symmetric", True), ("same", False)])
def test_structure_of_a_shifted_relu_network(float64, padding, binomial, seed):
    torch.manual_seed(seed)
    net = WideResNet(14, 0.5, 7, padding=padding, downsample="binomial" if binomial else "avg3", temperature=25.0)
    x = raw(2, 3, 16, 24, seed=seed)
    got, expected = net(x), written_out(net, (x.double() - 128) / 64, 14, binomial=binomial, padding=padding)
    # max(x, -1) and the pooling do not enlarge a difference, a convolution of n terms enlarges it at most sqrt(2 n)
    # times and adds n roundings of 2**-53; random signs make it about sqrt(2). 1e-10 is 1e4 above what that gives.
    assert (got - expected).abs().max() < 1e-10 * expected.abs().max()
    target = torch.tensor([1, 5])
    mine = torch.autograd.grad(F.cross_entropy(got, target), [c.weight for c in convolutions(net)])
    assert all(gradient.abs().max() > 0 for gradient in mine)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [False, True])
def test_structure_of_a_batch_norm_network(float64, training, affine, seed):
    torch.manual_seed(seed)
    net = WideResNet(8, 0.5, activation="bn", bn_affine=affine).train(training)
    for norm in batch_norms(net):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        if norm.affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    x = raw(4, 3, 16, 16, seed=seed)
    expected = written_out(copy.deepcopy(net), x.double(), 8, binomial=False)
    # As above; batch norm divides by a deviation, which for these random values is not small.
    assert (net(x) - expected).abs().max() < 1e-9 * max(1.0, expected.abs().max().item())


def test_temperature_divides_the_logits(float64):
    torch.manual_seed(0)
    net = WideResNet(8, 0.25, temperature=25.0)
    x = raw(2, 3, 8, 8)
    logits = net(x)
    net.temperature = 1.0
    torch.testing.assert_close(logits * 25, net(x), rtol=1e-14, atol=0)


def test_blocks_leave_the_skip_path_as_it_is():
    """The first activation of a block must not overwrite x, which the skip path reads."""
    net = WideResNet(14, 0.25)
    x = torch.randn(2, 4, 6, 6) * 3
    before = x.clone()
    net.blocks[0](x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("downsample", ["avg3", "binomial"])
def test_training_saves_only_the_convolutions_inputs_and_weights(downsample):
    net = WideResNet(14, 0.5, downsample=downsample)
    inputs, handles = [], []
    for conv in convolutions(net):
        handles.append(conv.register_forward_pre_hook(lambda module, args: inputs.append(args[0].numel())))
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        net(raw(2, 3, 32, 32))
    saved = sum(storage.nbytes() for storage in storages.values())
    assert saved == 4 * (sum(inputs) + net.conv_weights())


# --- ImageNet ---------------------------------------------------------------------------------------------------------


def test_resnet18_shapes_at_224():
    with torch.device("meta"):
        net = ResNet18(width=2.5, activation="bn", bn_affine=True)
        shapes = []
        net.stem.register_forward_hook(lambda m, args, out: shapes.append(tuple(out.shape[1:])))
        for block in net.blocks:
            block.register_forward_hook(lambda m, args, out: shapes.append(tuple(out.shape[1:])))
        logits = net(torch.empty(2, 3, 224, 224))
    assert logits.shape == (2, 1000)
    assert shapes[0] == (160, 56, 56)
    assert shapes[1:] == [(160, 56, 56)] * 2 + [(320, 28, 28)] * 2 + [(640, 14, 14)] * 2 + [(1280, 7, 7)] * 2
    assert len(convolutions(net)) == 18
    stages = [160, 320, 640, 1280]
    body = sum(9 * (w * w * (4 if s == 0 else 3) + (w * w // 2 if s else 0)) for s, w in enumerate(stages))
    assert net.conv_weights() == 3 * 49 * 160 + body + 1280 * 1000


@pytest.mark.parametrize("size", [(1, 1), (33, 20), (64, 64)])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_resnet18_runs_on_any_size(size, padding):
    net = ResNet18(width=0.1, num_classes=5, padding=padding)
    logits = net(raw(2, 3, *size))
    logits.sum().backward()
    assert logits.shape == (2, 5) and logits.isfinite().all()


# --- an ordinary module -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["srelu", "bn"])
def test_state_dict_and_deep_copy(activation):
    torch.manual_seed(1)
    net = WideResNet(8, 0.5, activation=activation)
    x = raw(4, 3, 8, 8)
    net(x)  # moves the moments of batch norm
    if activation == "srelu":
        net.input.fit(torch.tensor([100.0, 90.0, 80.0]), 30.0)
    other, twin = WideResNet(8, 0.5, activation=activation), copy.deepcopy(net)
    assert not torch.equal(other.eval()(x), net.eval()(x))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), net(x)) and torch.equal(twin.eval()(x), net(x))
    with torch.no_grad():
        next(twin.parameters()).neg_()
    assert not torch.equal(twin(x), net(x))  # a copy shares nothing


def test_it_learns(seed):
    """A step of the optimiser flips signs and lowers the loss on its own batch."""
    torch.manual_seed(seed)
    net = WideResNet(8, 0.5, temperature=8.0)
    x, y = raw(16, 3, 8, 8, seed=seed), torch.arange(16) % 10
    optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < losses[0]


def test_compiles_into_one_graph():
    """The graph that torch.compile traces, without the slow code generation behind it."""
    net = WideResNet(8, 0.25)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = raw(2, 3, 8, 8)
    loss, expected = compiled(x).square().sum(), net(x).square().sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    (mine,), (theirs,) = (torch.autograd.grad(v, [net.head.weight]) for v in (loss, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
