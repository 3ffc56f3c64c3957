import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from bitwren.errors import UsageError
from bitwren.train import BinaryConv2d, CentredReLU, FloatConv2d, ShiftedReLU, Shortcut, Standardise, scaled_sign
from bitwren.train.layers import PLAIN_GAIN, RESIDUAL_GAIN, average_pool, same_padding, weight_scale

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def whole_numbers(*shape, seed, low=-50, high=51):
    """float64 whole numbers: sums of their products are exact in any order."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).double()


# --- sign and scale ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sign_of_zero_is_plus_one(dtype):
    latent = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 3.0, -3.0], dtype=dtype)
    weights = scaled_sign(latent, 0.25)
    assert weights.tolist() == [0.25, 0.25, 0.25, -0.25, 0.25, -0.25]
    assert weights.dtype == dtype


def test_scale_he():
    assert weight_scale(27) == math.sqrt(2) / math.sqrt(27)
    assert weight_scale(27, PLAIN_GAIN) == 2 / math.sqrt(27)
    conv = BinaryConv2d(160, 8, 3)
    assert conv.fan_in == 1440
    assert conv.weight_scale == weight_scale(1440, RESIDUAL_GAIN, "he")
    assert set(conv.effective_weight().unique().tolist()) == {
        torch.tensor(s * conv.weight_scale).item() for s in (-1, 1)
    }


@given(st.integers(1, 10**7), st.sampled_from([RESIDUAL_GAIN, PLAIN_GAIN]))
def test_scale_pow2_is_the_nearest_on_the_log_axis(fan_in, gain):
    scale = weight_scale(fan_in, gain, "pow2")
    mantissa, exponent = math.frexp(scale)
    assert mantissa == 0.5
    # Nearest means 2**(e - 1/2) <= gain / sqrt(n) <= 2**(e + 1/2); squared, with gain**2 = 2 or 4, exact in integers.
    squared_gain, doubled = round(gain**2), 2 * (exponent - 1)  # scale**2 = 2**doubled

    def at_most(power, value):  # 2**power <= value / fan_in
        return fan_in * 2 ** max(power, 0) <= value * 2 ** max(-power, 0)

    assert at_most(doubled - 1, squared_gain)
    assert not at_most(doubled + 1, squared_gain)  # strict: halfway goes up


@pytest.mark.parametrize(
    ("fan_in", "gain", "exponent"),
    # sqrt(2 / 4**k) = 2**(1/2 - k) and 2 / sqrt(2 * 4**k) = 2**(1/2 - k) lie halfway between two powers.
    [(4**k, RESIDUAL_GAIN, 1 - k) for k in range(12)] + [(2 * 4**k, PLAIN_GAIN, 1 - k) for k in range(12)],
)
def test_scale_pow2_halfway_goes_up(fan_in, gain, exponent):
    assert weight_scale(fan_in, gain, "pow2") == 2.0**exponent


# --- straight-through gradient ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_scale", ["he", "pow2"])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("stride", [1, 2])
def test_straight_through_gradient_equals_plain_autograd(layer_scale, padding, stride, seed):
    """W - stop(W) + stop(W_hat) has the value of W_hat exactly and the gradient of W: the textbook formulation."""
    torch.manual_seed(seed)
    conv = BinaryConv2d(5, 7, 3, stride, padding, layer_scale=layer_scale).double()
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64, requires_grad=True)
    y = conv(x)
    upstream = torch.randn_like(y)
    got = torch.autograd.grad(y, (conv.weight, x), upstream)

    latent = conv.weight.detach().clone().requires_grad_()
    w_hat = torch.where(latent >= 0, 1.0, -1.0).double() * conv.weight_scale
    through = latent - latent.detach() + w_hat.detach()
    if padding == "same":
        top, bottom = same_padding(9, 3, stride)
        left, right = same_padding(8, 3, stride)
        plain = F.conv2d(F.pad(x, (left, right, top, bottom)), through, None, stride)
    else:
        plain = F.conv2d(x, through, None, stride, 1)
    expected = torch.autograd.grad(plain, (latent, x), upstream)
    # The same sums of at most 2*9*8*7 products: each differs by at most that many roundings of its terms.
    for mine, theirs in zip((y, *got), (plain, *expected), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1008 * 2**-53 * 1008 * 5.0)
    assert not torch.allclose(got[0] * conv.weight_scale, expected[0])


def test_gradient_is_not_clipped_where_the_latent_weight_is_large():
    latent = torch.tensor([-100.0, -1.5, 0.0, 1.5, 100.0], requires_grad=True)
    scaled_sign(latent, 0.01).backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert latent.grad.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


# --- initial weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FloatConv2d, BinaryConv2d])
@pytest.mark.parametrize("gain", [RESIDUAL_GAIN, PLAIN_GAIN])
def test_latent_weights_start_he_normal(kind, gain, seed):
    """Each of the three bounds fails by chance with probability under 2e-9."""
    torch.manual_seed(seed)
    conv = kind(64, 64, 3, gain=gain)
    count, z = conv.weight.numel(), conv.weight.detach().double() * math.sqrt(64 * 9) / gain
    assert conv.bias is None
    assert abs(z.mean()) < 6.1 / math.sqrt(count)  # a normal variable beyond 6.1 deviations: 1.1e-9
    # Laurent and Massart 2000: chi2(n) - n leaves (-2 sqrt(n t), 2 sqrt(n t) + 2 t) with probability at most 2 exp(-t).
    t = math.log(1e9)
    assert -2 * math.sqrt(count * t) < z.square().sum() - count < 2 * math.sqrt(count * t) + 2 * t
    # Hoeffding: the share within one deviation is 0.6827 for a normal variable (0.577 for a uniform one).
    share = (z.abs() < 1).double().mean()
    assert abs(share - math.erf(math.sqrt(0.5))) < math.sqrt(t / (2 * count))


# --- shifted ReLU -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shifted_relu_against_where(inplace, layout, seed):
    x = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(seed)).mul(2).to(memory_format=layout)
    x[0, 0, 0, 0], x[0, 0, 0, 2] = -1.0, -1.0 - 2**-23
    x[1, 0, 0, 0], x[1, 0, 0, 1], x[1, 0, 0, 2] = math.inf, -math.inf, -0.0
    x[0, 0, 0, 1] = torch.nextafter(torch.tensor(-1.0), torch.tensor(0.0))
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = ShiftedReLU(inplace)(a + 0)
    expected = torch.where(b > -1, b, -1.0)
    assert torch.equal(y, expected)
    y.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(a.grad, b.grad)
    assert a.grad[0, 0, 0, 0] == 0 and a.grad[0, 0, 0, 1] == upstream[0, 0, 0, 1]


def test_shifted_relu_in_place_or_not():
    x = torch.tensor([-3.0, 2.0])
    assert ShiftedReLU(inplace=False)(x).tolist() == [-1.0, 2.0] and x.tolist() == [-3.0, 2.0]
    y = ShiftedReLU(inplace=True)(x)
    assert y.data_ptr() == x.data_ptr() and x.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize("inplace", [False, True])
def test_shifted_relu_gradcheck(inplace, seed):
    x = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
    x[(x + 1).abs() < 0.01] = 0.5  # finite differences mean nothing across the corner
    torch.autograd.gradcheck(lambda v: ShiftedReLU(inplace)(v * 1.0), (x.requires_grad_(),))


def saved_bytes(run):
    """Return the bytes of all distinct storages that autograd saves during run()."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # kept, so that no address is used twice
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_centred_relu_subtracts_the_mean_of_the_batch_and_then_a_running_one(layout, seed):
    x = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(seed)).mul(2).add(3).to(memory_format=layout)
    layer, given = CentredReLU(6), x.clone()
    mean = x.double().mean((0, 2, 3))
    y = layer(x)
    # 60 values below 2**4 in magnitude are summed in single precision: an addition rounds by at most 2**-24 of the sum.
    bound = 60 * 2**-24 * 16
    assert torch.allclose(y.double(), (x - mean[:, None, None]).clamp(min=-1), rtol=0, atol=2 * bound)
    assert torch.equal(x, given)  # a skip path reads it
    assert torch.allclose(layer.mean.double(), 0.1 * mean, rtol=0, atol=bound)
    layer.eval()
    kept = layer.mean.clone()
    assert torch.equal(layer(x), (x - kept[:, None, None]).clamp(min=-1)) and torch.equal(layer.mean, kept)


def test_centred_relu_gradcheck(seed):
    x = torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
    layer = CentredReLU(2).double()
    exceeds = x - x.mean((0, 2, 3), keepdim=True)
    x[(exceeds + 1).abs() < 0.01] += 0.1  # finite differences mean nothing across the corner
    torch.autograd.gradcheck(layer, (x.requires_grad_(),))


def test_centred_relu_saves_what_the_shifted_relu_saves():
    x = torch.randn(2, 3, 10, 7)
    nets = [nn.Sequential(BinaryConv2d(3, 8), act, BinaryConv2d(8, 5)) for act in (ShiftedReLU(True), CentredReLU(8))]
    assert saved_bytes(lambda: nets[0](x)) == saved_bytes(lambda: nets[1](x))


@pytest.mark.parametrize("inplace", [False, True])
def test_shifted_relu_saves_only_what_the_convolutions_save(inplace):
    net = nn.Sequential(BinaryConv2d(3, 8), ShiftedReLU(inplace), BinaryConv2d(8, 5))
    x = torch.randn(2, 3, 10, 7)
    picture, features = 2 * 3 * 10 * 7, 2 * 8 * 10 * 7
    weights = 3 * 8 * 9 + 8 * 5 * 9
    assert saved_bytes(lambda: net(x)) == 4 * (picture + features + weights)


# --- convolution ------------------------------------------------------------------------------------------------------


def test_binary_convolution_in_a_network_of_ones_own(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(BinaryConv2d(1, 4, 3, padding=0), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    before = [p.detach().clone() for p in net.parameters()]
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    net(torch.randn(3, 1, 8, 8)).square().sum().backward()
    optimiser.step()
    assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert list(net.state_dict()) == ["0.weight", "3.weight", "3.bias"]
    assert "layer_scale='he'" in repr(net)


def plain_convolution(x, weight, stride, before, out_shape):
    """Convolve (C, H, W) with (K, C, F, F) by definition; `before`: zeros above and left; what is outside is zero."""
    result = np.zeros((len(weight), *out_shape))
    kernel = weight.shape[2]
    for i, j in np.ndindex(*out_shape):
        for u, v in np.ndindex(kernel, kernel):
            row, column = i * stride - before[0] + u, j * stride - before[1] + v
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                result[:, i, j] += weight[:, :, u, v] @ x[:, row, column]
    return result


def tensorflow_before(size, kernel, stride):
    """Zeros before, as TensorFlow's documentation has it: the total by the remainder of size / stride, halved."""
    total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    return total // 2


@settings(max_examples=80)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 3, 7]),
    st.sampled_from([1, 2]),
    st.sampled_from(["same", "symmetric"]),
    st.sampled_from(LAYOUTS),
    st.integers(0, 2**31),
)
def test_padding_against_the_definition(height, width, kernel, stride, padding, layout, draw):
    conv = FloatConv2d(2, 3, kernel, stride, padding).double()
    conv.weight.data = whole_numbers(3, 2, kernel, kernel, seed=draw)
    x = whole_numbers(1, 2, height, width, seed=draw + 1)
    y = conv(x.to(memory_format=layout))
    out_shape = (math.ceil(height / stride), math.ceil(width / stride))
    if padding == "same":
        before = (tensorflow_before(height, kernel, stride), tensorflow_before(width, kernel, stride))
    else:
        before = (kernel // 2, kernel // 2)
    expected = plain_convolution(x[0].numpy(), conv.weight.detach().numpy(), stride, before, out_shape)
    assert np.array_equal(y[0].detach().numpy(), expected)


def test_same_padding_of_the_paper():
    assert same_padding(32, 3, 2) == (0, 1)  # even, stride 2: bottom and right only
    assert same_padding(31, 3, 2) == (1, 1)
    assert same_padding(32, 3, 1) == (1, 1)
    assert same_padding(224, 7, 2) == (2, 3)
    assert same_padding(32, 1, 2) == (0, 0)


# --- the skip path and its pooling ------------------------------------------------------------------------------------


def windows(x, before):
    """Yield (i, j, values (9,), weights (9,)) of each 3 x 3 window at stride 2; outside pixels have weight 0."""
    height, width = x.shape
    for i, j in np.ndindex(math.ceil(height / 2), math.ceil(width / 2)):
        values, real = np.zeros(9), np.zeros(9)
        for place, (u, v) in enumerate(np.ndindex(3, 3)):
            row, column = 2 * i - before[0] + u, 2 * j - before[1] + v
            if 0 <= row < height and 0 <= column < width:
                values[place], real[place] = x[row, column], 1
        yield i, j, values, real


BINOMIAL = np.outer([1, 2, 1], [1, 2, 1]).reshape(9)


@settings(max_examples=60)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(["avg3", "binomial"]),
    st.sampled_from(["symmetric", "same"]),
    st.integers(0, 2**31),
)
def test_shortcut_against_the_definition(height, width, kind, padding, draw):
    x = whole_numbers(2, 2, height, width, seed=draw)
    y = Shortcut(2, 3, kind, padding)(x)
    assert y.shape == (2, 5, math.ceil(height / 2), math.ceil(width / 2))
    assert not y[:, 2:].any()  # the new channels are zero and come last
    before = (1, 1) if padding == "symmetric" else tuple(tensorflow_before(n, 3, 2) for n in (height, width))
    for image, channel in np.ndindex(2, 2):
        for i, j, values, real in windows(x[image, channel].numpy(), before):
            got = y[image, channel, i, j].item()
            if kind == "binomial":
                assert got == (BINOMIAL * values).sum() / 16  # exact: whole numbers and a power of two
            elif padding == "symmetric":
                assert got == pytest.approx(values.sum() / 9, rel=2**-51)  # the zeros count
            else:  # over the real pixels: at most four roundings
                assert got == pytest.approx(values.sum() / real.sum(), rel=2**-50)


def test_binomial_is_a_depthwise_convolution(seed):
    x = whole_numbers(3, 4, 12, 9, seed=seed)
    kernel = torch.from_numpy(BINOMIAL.reshape(3, 3) / 16.0).repeat(4, 1, 1, 1)
    expected = F.conv2d(x, kernel, stride=2, padding=1, groups=4)
    assert torch.equal(Shortcut(2, 0, "binomial")(x), expected)


def test_shortcut_without_stride_is_the_identity_and_zero_channels():
    x = torch.randn(2, 3, 5, 4)
    assert Shortcut(1, 0)(x) is x
    assert torch.equal(Shortcut(1, 2)(x), torch.cat([x, torch.zeros(2, 2, 5, 4)], 1))
    assert not list(Shortcut(2, 3).parameters())


@settings(max_examples=40)
@given(
    st.sampled_from([(3, 2, 1), (2, 1, 0), (2, 2, 0), (3, 1, 1)]),
    st.integers(2, 9),
    st.integers(2, 9),
    st.sampled_from(LAYOUTS),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_average_pool_and_its_gradient_equal_pytorchs(geometry, height, width, layout, expanded, draw):
    torch.manual_seed(draw)
    x = torch.randn(2, 3, height, width).to(memory_format=layout)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    kernel, stride, padding = geometry
    if height + 2 * padding < kernel or width + 2 * padding < kernel:
        return
    a, b = average_pool(mine, kernel, stride, padding), F.avg_pool2d(theirs, kernel, stride, padding)
    assert torch.equal(a, b)
    upstream = torch.ones(()).expand(a.shape) if expanded else torch.randn(a.shape).to(memory_format=layout)
    a.backward(upstream)
    b.backward(upstream)
    assert torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize(("kind", "padding"), [("avg3", "symmetric"), ("avg3", "same"), ("binomial", "symmetric")])
def test_shortcut_saves_no_picture(kind, padding):
    x = torch.randn(2, 4, 16, 16, requires_grad=True)
    shortcut = Shortcut(2, 4, kind, padding)
    # "same" keeps the (1, 1, 8, 8) counts that it divides by; the others keep nothing at all.
    assert saved_bytes(lambda: shortcut(x)) <= (4 * 8 * 8 if padding == "same" else 0)


# --- the input --------------------------------------------------------------------------------------------------------


def test_standardise_is_exact_in_integers():
    layer = Standardise(3)
    layer.fit(torch.tensor([125.31, 122.95, 113.5]), 64.0)
    mean, exponent = layer.mean.tolist(), int(layer.exponent)
    assert mean == [125.0, 123.0, 114.0] and exponent == 6
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    y = layer(x)
    assert y.dtype == torch.float32
    assert torch.equal(y.double() * 2**exponent, x.double() - torch.tensor(mean).double()[:, None, None])
    assert torch.equal(y, layer(x.float()))


@pytest.mark.parametrize(("deviation", "exponent"), [(0.0, 0), (1.4, 0), (1.5, 1), (50.0, 6), (45.0, 5), (127.5, 7)])
def test_standardise_divides_by_the_nearest_power_of_two(deviation, exponent):
    layer = Standardise(1)
    layer.fit(torch.tensor([10.0]), deviation)
    assert layer.exponent.item() == exponent


# --- wrong names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FloatConv2d(1, 1, padding="symetric"), "unknown padding 'symetric'; did you mean 'symmetric'?"),
        (lambda: BinaryConv2d(1, 1, padding="Same"), "unknown padding 'Same'; did you mean 'same'?"),
        (lambda: BinaryConv2d(1, 1, layer_scale="pow3"), "unknown layer scale 'pow3'; did you mean 'pow2'?"),
        (lambda: Shortcut(2, 0, "avg"), "unknown downsample 'avg'; did you mean 'avg3'?"),
        (lambda: Shortcut(2, 0, "avg3", "sane"), "unknown padding 'sane'; did you mean 'same'?"),
        (lambda: weight_scale(9, layer_scale="xyz"), "unknown layer scale 'xyz'; known: he, pow2"),
    ],
)
def test_unknown_names(make, message):
    with pytest.raises(UsageError) as caught:
        make()
    assert str(caught.value) == message


def test_balanced_signs_are_those_of_what_exceeds_the_filters_mean():
    conv = BinaryConv2d(5, 7, 3, signs="balanced", layer_scale="pow2")
    with torch.no_grad():
        conv.weight += torch.arange(7.0)[:, None, None, None]  # filters of one sign each, if it were not for the mean
    weight = conv.effective_weight()
    expected = torch.where(conv.weight >= conv.weight.mean((1, 2, 3), keepdim=True), 1, -1) * conv.weight_scale
    assert torch.equal(weight, expected)
    assert (weight > 0).flatten(1).sum(1).sub(22.5).abs().max() < 15  # of 45, about half
    upstream = torch.randn_like(weight)
    (weight * upstream).sum().backward()
    assert torch.equal(conv.weight.grad, upstream)  # straight-through, as for plain signs


def test_unknown_kind_of_signs_is_refused():
    with pytest.raises(UsageError, match="unknown kind of signs 'balancd'; did you mean 'balanced'"):
        BinaryConv2d(5, 7, 3, signs="balancd")
