"""The layers of a 1-bit network: sign weights, shifted ReLU, pooling that keeps nothing for the backward pass.

One bit per weight (McDonnell, ICLR 2018, arXiv 1802.08530). With a kernel of F x F pixels and C input channels,

    W_hat = s * sign(W),    s = gain / sqrt(F * F * C),    sign(0) = +1,

forward and backward both use W_hat; the optimiser moves the real-valued latent weight W by the straight-through
gradient dL/dW = dL/dW_hat: neither clipped nor multiplied by s. The gain is sqrt(2) in residual networks (He et al.)
and 2 in plain ones. s is a constant, one per layer, inside the weight: scaling the feature maps instead would shrink
the weights' gradients by s and slow learning.

Shifted ReLU (McDonnell et al. 2019, arXiv 1907.06916): srelu(x) = max(x, -1), in place of batch norm and ReLU.
CentredReLU is ours.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitwren.errors import unknown_name

RESIDUAL_GAIN = math.sqrt(2.0)
PLAIN_GAIN = 2.0
LAYER_SCALES = ("he", "pow2")
SIGNS = ("plain", "balanced")
MEAN_MOMENTUM = 0.1
PADDINGS = ("symmetric", "same")


def weight_scale(fan_in: int, gain: float = RESIDUAL_GAIN, layer_scale: str = "he") -> float:
    """Return the constant s of one layer, a positive float.

    fan_in: F * F * C, the number of weights that each output value sums over.
    layer_scale: "he" for gain / sqrt(fan_in) as in the paper, "pow2" for the power of two nearest to it (on the
        logarithmic axis; halfway goes up), with which inference needs shifts only.
    Raises UsageError for another layer_scale.
    """
    scale = gain / math.sqrt(fan_in)
    if layer_scale == "he":
        return scale
    if layer_scale == "pow2":
        # A fan-in that is a power of 4 (a 1x1 head) lies halfway. Halfway goes up: 1e-9 is above any library's rounding
        # of log2 and below the distance from halfway of every other whole fan-in under 10**8.
        return 2.0 ** math.floor(math.log2(scale) + 0.5 + 1e-9)
    raise unknown_name("layer scale", layer_scale, LAYER_SCALES)


class _ScaledSign(torch.autograd.Function):
    """s * sign(W) forward, the identity backward."""

    @staticmethod
    def forward(latent: Tensor, scale: float) -> Tensor:
        # A tensor, not a number: with two numbers, where() would round the scale to float32 in a float64 network.
        positive = torch.full((), scale, dtype=latent.dtype, device=latent.device)
        return torch.where(latent >= 0, positive, -positive)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def scaled_sign(latent: Tensor, scale: float) -> Tensor:
    """Return scale * sign(latent), any shape, with sign(0) = +1 and the straight-through gradient."""
    return _ScaledSign.apply(latent, scale)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros (before, after) that TensorFlow's "same" adds to one axis; the output is ceil(size / stride)."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class FloatConv2d(nn.Conv2d):
    """A convolution of real-valued weights without bias: He-normal weights, symmetric or TensorFlow padding.

    Input (N, in_channels, H, W), output (N, out_channels, H', W'); H' = ceil(H / stride) for an odd kernel.
    padding: "symmetric" pads kernel // 2 on every side, "same" as TensorFlow does, an int that many on every side.
    gain: the weights' initial standard deviation is gain / sqrt(fan_in).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: str | int = "symmetric",
        *,
        gain: float = RESIDUAL_GAIN,
    ):
        if isinstance(padding, str) and padding not in PADDINGS:
            raise unknown_name("padding", padding, PADDINGS)
        self.gain = gain
        self.same = padding == "same"
        around = {"symmetric": kernel_size // 2, "same": 0}.get(padding, padding)
        super().__init__(in_channels, out_channels, kernel_size, stride, around, bias=False)

    @property
    def fan_in(self) -> int:
        """The number of weights that each output value sums over."""
        return self.weight[0].numel()

    def reset_parameters(self) -> None:
        """Draw the weights from a normal distribution of standard deviation gain / sqrt(fan_in)."""
        nn.init.normal_(self.weight, std=self.gain / math.sqrt(self.fan_in))

    def effective_weight(self) -> Tensor:
        """Return the weights that the convolution uses, (out_channels, in_channels, F, F)."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x, (N, in_channels, H, W)."""
        if not self.same:
            return self._conv_forward(x, self.effective_weight(), None)
        top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        if (top, left) == (bottom, right):  # the convolution pads symmetrically by itself, without a copy
            return F.conv2d(x, self.effective_weight(), None, self.stride, (top, left))
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.effective_weight(), None, self.stride)


class BinaryConv2d(FloatConv2d):
    """A convolution of one bit per weight: the arguments of FloatConv2d, and the kind of constant layer scale.

    `weight` holds the latent weights W; the convolution uses weight_scale * sign(W). layer_scale: "he" or "pow2".
    signs: "plain", or "balanced" for weight_scale * sign(W - mean of W over its filter): about as many +1 as -1 in each
        filter, so what all inputs have in common (after a shifted ReLU no batch norm removes it) cancels in the sum.
        The gradient is straight-through as ever: a filter's mean moves no sign.
    Raises UsageError for an unknown padding, layer scale or kind of signs.
    """

    def __init__(self, *args, layer_scale: str = "he", signs: str = "plain", **options):
        super().__init__(*args, **options)
        if signs not in SIGNS:
            raise unknown_name("kind of signs", signs, SIGNS)
        self.layer_scale, self.balanced = layer_scale, signs == "balanced"
        self.weight_scale = weight_scale(self.fan_in, self.gain, layer_scale)

    def effective_weight(self) -> Tensor:
        """Return weight_scale times the signs, (out_channels, in_channels, F, F)."""
        if not self.balanced:
            return scaled_sign(self.weight, self.weight_scale)
        return scaled_sign(self.weight - self.weight.detach().mean((1, 2, 3), keepdim=True), self.weight_scale)

    def extra_repr(self) -> str:
        """Show the layer scale beside the convolution's own fields."""
        signs = "balanced" if self.balanced else "plain"
        shown = f"layer_scale={self.layer_scale!r}, signs={signs!r}, weight_scale={self.weight_scale:.6g}"
        return f"{super().extra_repr()}, {shown}"


class _ShiftedReLU(torch.autograd.Function):
    """max(x, -1). Saves its output, which the following convolution saves anyway: no memory of its own."""

    @staticmethod
    def forward(ctx, x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
            x.clamp_(min=-1.0)
            y = x  # by this name: torch.compile wants the very argument that was marked
        else:
            y = x.clamp(min=-1.0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, y, -1.0), None  # the gradient where y > -1, else 0


class ShiftedReLU(nn.Module):
    """max(x, -1) for any shape; the gradient is 1 where x > -1 and 0 elsewhere.

    inplace: overwrite x. Autograd allows it where nothing else needs x, such as after a convolution.
    """

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Return max(x, -1)."""
        return _ShiftedReLU.apply(x, self.inplace)

    def extra_repr(self) -> str:
        """Show whether the layer overwrites its input."""
        return f"inplace={self.inplace}"


def _channel_means(x: Tensor) -> Tensor:
    """Return the means (C,) of x, (N, C, H, W), summed in single precision at least."""
    return x.mean((0, 2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


def _less(x: Tensor, mean: Tensor) -> Tensor:
    """Return x - mean, for x (N, C, H, W) and mean (C,)."""
    mean = mean.to(x.dtype)
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return x - mean[:, None, None]
    rows = x.permute(0, 2, 3, 1)  # with a whole row of means the inner loop is W * C long, not C
    return (rows.flatten(2) - mean.repeat(x.shape[3])).view(rows.shape).permute(0, 3, 1, 2)


class _CentredReLU(torch.autograd.Function):
    """max(x - mean, -1), mean (C,). moves: the mean is that of x itself, and moves with it. Saves its output alone."""

    @staticmethod
    def forward(ctx, x: Tensor, mean: Tensor, moves: bool) -> Tensor:
        y = _less(x, mean).clamp_(min=-1.0)
        ctx.save_for_backward(y)
        ctx.moves = moves
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, y, -1.0)
        return _less(gradient, _channel_means(gradient)) if ctx.moves else gradient, None, None


class CentredReLU(ShiftedReLU):
    """max(x - m, -1), where m is the mean of x's channel: of the batch in training, a running mean at inference.

    So inference adds a constant to each channel and multiplies nothing. It is the half of batch norm that 1-bit weights
    need: their scale is a constant already, but what all of a filter's inputs have in common moves its sums away from
    the bend. Input and output (N, C, H, W). The mean takes part in the gradient, and nothing is kept for it.
    Buffer mean (C,): each training step moves it MEAN_MOMENTUM of the way to the batch's. Several processes have a mean
    each, as with batch norm.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return max(x - m, -1)."""
        mean = self.mean
        if self.training:
            with torch.no_grad():
                mean = _channel_means(x)
                self.mean.lerp_(mean.to(self.mean.dtype), MEAN_MOMENTUM)
        return _CentredReLU.apply(x, mean, self.training)

    def extra_repr(self) -> str:
        """Show the channels."""
        return f"{len(self.mean)}"


class _AveragePool(torch.autograd.Function):
    """avg_pool2d whose backward pass needs only the input's shape, where autograd's own keeps the whole input."""

    @staticmethod
    def forward(ctx, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
        ctx.shape, ctx.geometry = x.shape, ((kernel, kernel), (stride, stride), (padding, padding))
        return F.avg_pool2d(x, kernel, stride, padding)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        # The operator reads the shape and memory format of its second argument, never the values.
        layout = torch.channels_last if gradient.is_contiguous(memory_format=torch.channels_last) else None
        shaped = torch.empty(
            ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=layout or torch.contiguous_format
        )
        result = torch.ops.aten.avg_pool2d_backward(gradient, shaped, *ctx.geometry, False, True, None)
        return result, None, None, None


def average_pool(x: Tensor, kernel: int, stride: int, padding: int = 0) -> Tensor:
    """Return the mean of each kernel x kernel window of x, (N, C, H, W), zeros of the padding counted."""
    return _AveragePool.apply(x, kernel, stride, padding)


DOWNSAMPLES = ("avg3", "binomial")


class Shortcut(nn.Module):
    """The skip path of a block: halves the resolution (stride 2) and appends zero channels. No parameters.

    Input (N, C, H, W), output (N, C + new_channels, ceil(H / stride), ceil(W / stride)).
    kind: "avg3" is the 3 x 3 mean (the paper): with symmetric padding the zeros count, with "same" the mean is over
        the real pixels. "binomial" weighs the window by [1 2 1] x [1 2 1] / 16: additions and shifts only.
    """

    def __init__(self, stride: int, new_channels: int, kind: str = "avg3", padding: str = "symmetric"):
        super().__init__()
        if kind not in DOWNSAMPLES:
            raise unknown_name("downsample", kind, DOWNSAMPLES)
        if padding not in PADDINGS:
            raise unknown_name("padding", padding, PADDINGS)
        self.stride, self.new_channels, self.kind, self.padding = stride, new_channels, kind, padding

    def forward(self, x: Tensor) -> Tensor:
        """Return what the block adds to its branch."""
        if self.stride != 1:
            x = self._halve(x)
        return F.pad(x, (0, 0, 0, 0, 0, self.new_channels)) if self.new_channels else x

    def _halve(self, x: Tensor) -> Tensor:
        # Binomial: [1 2 1] is [1 1] twice, so two 2 x 2 means make the 3 x 3 window.
        if self.padding == "symmetric":
            if self.kind == "binomial":
                return average_pool(average_pool(x, 2, 1, 1), 2, self.stride)
            return average_pool(x, 3, self.stride, 1)
        height, width = x.shape[2:]
        top, bottom = same_padding(height, 3, self.stride)
        left, right = same_padding(width, 3, self.stride)
        padded = F.pad(x, (left, right, top, bottom))
        if self.kind == "binomial":
            return average_pool(average_pool(padded, 2, 1), 2, self.stride)
        real = F.pad(x.new_ones(1, 1, height, width), (left, right, top, bottom))
        return average_pool(padded, 3, self.stride) / F.avg_pool2d(real, 3, self.stride)

    def extra_repr(self) -> str:
        """Show the geometry."""
        return f"stride={self.stride}, new_channels={self.new_channels}, kind={self.kind!r}, padding={self.padding!r}"


class Standardise(nn.Module):
    """(x - mean) / 2**exponent with one integer mean per channel: exact in integers, no batch norm at the input.

    Input (N, C, H, W) of raw pixels 0..255, uint8 or float; output float.
    Buffers: mean (C,) whole numbers, exponent () a whole number. `fit` sets both from training pictures.
    """

    def __init__(self, channels: int, mean: float = 128.0, exponent: int = 6):
        super().__init__()
        self.register_buffer("mean", torch.full((channels,), float(mean)))
        self.register_buffer("exponent", torch.tensor(float(exponent)))

    def fit(self, mean: Tensor, deviation: float) -> None:
        """Set the rounded means (C,) and the power of two nearest to the pixels' standard deviation (> 0)."""
        self.mean.copy_(torch.as_tensor(mean).round())
        self.exponent.fill_(round(math.log2(max(deviation, 1.0))))

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised pixels."""
        x = x.to(self.mean.dtype, memory_format=torch.channels_last)
        return (x - self.mean[:, None, None]) * torch.exp2(-self.exponent)
