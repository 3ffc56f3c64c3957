"""What is said of a precision that the processor only imitates."""

import pytest
import torch

from bitwren.recipe import load_recipe
from bitwren.train.start import precision_warning

CPU = torch.device("cpu")


@pytest.fixture
def bf16():
    return load_recipe("digits", ["train.precision=bf16"])


def test_a_processor_without_bf16_is_told(bf16, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert "train.precision is bf16, for which this processor has no instructions" in precision_warning(bf16, CPU)
    assert precision_warning(load_recipe("digits"), CPU) is None
    assert precision_warning(bf16, torch.device("cuda", 0)) is None


def test_a_pytorch_that_cannot_tell_says_nothing(bf16, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.delattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", raising=False)
    assert precision_warning(bf16, CPU) is None


def test_a_processor_with_bf16_is_not(bf16, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert precision_warning(bf16, CPU) is None
