"""Initial weights depend on the seed alone."""

import torch

from harness.networks.build import build_networks
from tests.harness.tiny_runs import assert_same_state, tiny_config


def test_initial_weights_do_not_depend_on_the_number_of_threads() -> None:
    """Wide enough for its matrices to be shared among threads; two engines begin alike wherever they are started."""
    config, starts = tiny_config(model__g_conv_dim=32, model__d_conv_dim=32), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        starts.append([network.state_dict() for network in build_networks(config, 0, torch.device("cpu"))])
        assert torch.get_num_threads() == threads
    assert_same_state(*starts)
