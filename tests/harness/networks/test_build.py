"""Networks from a config."""

import torch

from harness.networks.build import build_networks
from tests.harness.tiny_runs import tiny_config


def test_initial_weights_do_not_hang_on_the_number_of_threads() -> None:
    """Wide enough for its matrices to be shared among threads; two engines begin alike wherever they are started."""
    config, before, starts = tiny_config(model__g_conv_dim=32, model__d_conv_dim=32), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            starts.append([network.state_dict() for network in build_networks(config, 0, torch.device("cpu"))])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*starts, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
