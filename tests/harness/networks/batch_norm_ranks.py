"""One rank of `test_layers.test_two_ranks_...`: half of a batch through synchronised batch norm.

python -m tests.harness.networks.batch_norm_ranks FOLDER RANK
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from harness.networks.layers import BatchNorm2d, synchronise_batch_norm


def evaluate(dtype: torch.dtype, part: slice) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    far = 0.0 if dtype == torch.float64 else 3000.0
    x = (torch.randn(6, 4, 5, 5, generator=generator, dtype=torch.float64) + far).to(dtype)
    weights = torch.randn(6, 4, 5, 5, generator=generator, dtype=torch.float64).to(dtype)
    norm = BatchNorm2d(4).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1, 5))
    synchronise_batch_norm(norm)
    own = x[part].clone().requires_grad_(True)
    out = norm(own)
    (out * out * weights[part]).sum().backward()
    statistics = {name: value.clone() for name, value in norm.state_dict().items() if name.startswith("running")}
    assert own.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    gradients = {"grad_x": own.grad, "grad_weight": norm.weight.grad, "grad_bias": norm.bias.grad}
    norm.frozen = True
    norm(own.detach() * 3)
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in statistics.items())
    return {"out": out.detach(), **gradients, **statistics}


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    part = slice(3 * rank, 3 * rank + 3)
    torch.save({dtype: evaluate(dtype, part) for dtype in (torch.float64, torch.float32)}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
