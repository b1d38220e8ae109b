"""Eq. (5), step by step, and its gradient."""

import math

import pytest
import torch

from stlora_kernels.training.loss import forecast_loss, masked_huber, masked_mae


def test_masked_mae_equals_the_formula_written_out():
    target = torch.tensor([[0.0, 10.0, math.nan], [20.0, 30.0, 0.0]])
    prediction = torch.tensor([[5.0, 12.0, 7.0], [19.0, 36.0, 50.0]])
    # Measured: 10, 20, 30; errors 2, 1, 6.
    assert masked_mae(prediction, target, 0.0).item() == pytest.approx((2 + 1 + 6) / 3)
    # With zeros as measurements: 0 and 0 as well; errors 5 and 50.
    assert masked_mae(prediction, target, None).item() == pytest.approx((5 + 2 + 1 + 6 + 50) / 5)


def test_gradient_is_the_sign_over_the_count_and_zero_where_missing():
    target = torch.tensor([0.0, 10.0, math.nan, 20.0])
    prediction = torch.tensor([5.0, 12.0, 7.0, 19.0], requires_grad=True)
    masked_mae(prediction, target, 0.0).backward()
    torch.testing.assert_close(prediction.grad, torch.tensor([0.0, 0.5, 0.0, -0.5]))


def test_masked_huber_equals_the_formula_written_out():
    target = torch.tensor([0.0, 10.0, math.nan, 20.0, 30.0])
    prediction = torch.tensor([5.0, 10.5, 7.0, 19.0, 36.0], requires_grad=True)
    loss = masked_huber(prediction, target, 0.0)
    assert loss.item() == pytest.approx((0.5**2 / 2 + 1 / 2 + (6 - 1 / 2)) / 3)
    loss.backward()
    torch.testing.assert_close(prediction.grad, torch.tensor([0.0, 0.5, 0.0, -1.0, 1.0]) / 3)
    assert forecast_loss(prediction, target, 0.0, loss="huber") == loss


@pytest.mark.parametrize("masked", [masked_mae, masked_huber])
def test_batch_without_any_measurement_changes_nothing(masked):
    prediction = torch.randn(2, 3, requires_grad=True)
    loss = masked(prediction, torch.zeros(2, 3), 0.0)
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad.abs().sum() == 0


def test_penalty_is_the_mean_square_of_the_gate():
    target, prediction = torch.full((2, 3, 4, 1), 10.0), torch.full((2, 3, 4, 1), 11.0)
    gate = torch.tensor([0.5, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 1)
    assert forecast_loss(prediction, target, 0.0, gate, 0.1).item() == pytest.approx(1 + 0.1 * (0.25 + 1) / 2)
    assert forecast_loss(prediction, target, 0.0, gate, 0.0).item() == pytest.approx(1)
    assert forecast_loss(prediction, target, 0.0, None, 0.1).item() == pytest.approx(1)


def test_missing_targets_do_not_enter_whatever_is_predicted_there():
    target = torch.tensor([10.0, 0.0])
    near = masked_mae(torch.tensor([11.0, 1e-6]), target, 0.0)
    far = masked_mae(torch.tensor([11.0, 1e6]), target, 0.0)
    assert near == far
