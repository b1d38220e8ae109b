"""The dropout contract in plain torch."""

import pytest
import torch

from stlora_kernels.ops import philox

M32 = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known-answer vectors of Random123, the authors' own library, for philox4x32-10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((M32, M32, M32, M32), (M32, M32), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers(counter, key, words):
    def signed(low, high):
        value = low | high << 32
        return value - 2**64 if value >= 2**63 else value

    seed, block = torch.tensor(signed(*key)), torch.tensor([signed(*counter[:2])])
    assert philox.philox4x32(seed, block, counter[2], counter[3]).tolist() == [list(words)]


def test_the_share_of_kept_elements_is_one_minus_p():
    keep = philox.keep_mask((1000, 100), 0.3, torch.tensor(1))
    assert abs(keep.double().mean().item() - 0.7) < 0.005


def test_streams_and_layers_draw_different_masks():
    masks = [philox.keep_mask((64,), 0.5, torch.tensor(1), s, layer) for s in (0, 1) for layer in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


def test_a_mask_does_not_depend_on_what_follows():
    assert torch.equal(
        philox.keep_mask((10, 3, 7), 0.5, torch.tensor(1))[:4], philox.keep_mask((4, 3, 7), 0.5, torch.tensor(1))
    )


def test_dropout_keeps_the_mean():
    x = torch.ones(200, 200)
    assert abs(philox.dropout(x, 0.4, torch.tensor(2)).mean().item() - 1) < 0.02
    assert philox.dropout(x, 1.0, torch.tensor(2)).abs().sum() == 0
