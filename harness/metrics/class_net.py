"""A small convolutional classifier, trained in seconds to a minute on a CPU.

In: uint8 (N, H, W, 3) and labels. Out: its weights, and scores of pictures. Brightness, colour and position are
augmented, because they do not depend on the class.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.images.tensors import pictures_to_tensor

SIDE_PX = 48  # mean of height and width after shrinking
WIDTH, EPOCHS, BATCH, LR, DECAY, SMOOTHING, SHIFT_PX = 16, 6, 64, 3e-3, 0.02, 0.05, 2
MIN_UPDATES = 600
RECIPE = f"{SIDE_PX} {WIDTH} {EPOCHS} {BATCH} {LR} {DECAY} {SMOOTHING} {SHIFT_PX} {MIN_UPDATES}"


class ClassNet(nn.Module):
    """float32 (B, 3, H, W) in [-1, 1] → (B, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = 3
        for outside, stride in ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2)):
            convolution = nn.Conv2d(inside, outside * WIDTH, 3, stride, 1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outside * WIDTH), nn.ReLU()]
            inside = outside * WIDTH
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(inside * 8, classes)

    def forward(self, x: Tensor) -> Tensor:
        cells = F.adaptive_avg_pool2d(self.trunk(x), (2, 4)).flatten(1)
        return self.head(F.dropout(cells, 0.3, self.training))


def train_class_net(pictures: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Trains the network. Returns its weights by name; deterministic for a given number of threads."""
    x, y = _to_input(pictures), torch.from_numpy(labels).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ClassNet(classes).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        steps = max(MIN_UPDATES, EPOCHS * len(x) // BATCH)
        optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
        for _ in range(steps):
            rows = torch.randint(len(x), (BATCH,))
            loss = F.cross_entropy(network(_augmented(x[rows])), y[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return {name: value.detach().contiguous().numpy() for name, value in network.state_dict().items()}


def load_scores(tensors: dict[str, np.ndarray], classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from uint8 (N, H, W, 3) to float32 (N, classes)."""
    with torch.device("meta"):  # does not draw initial weights
        network = ClassNet(classes)
    state = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)

    @torch.no_grad()
    def scores(pictures: np.ndarray) -> np.ndarray:
        parts = [network(_to_input(pictures[k : k + 256])).numpy() for k in range(0, len(pictures), 256)]
        return np.concatenate(parts) if parts else np.zeros((0, classes), np.float32)

    return scores


def _to_input(pictures: np.ndarray) -> Tensor:
    """float32 (N, 3, h, w) in [-1, 1], shrunk to a mean side of at most SIDE_PX."""
    parts = []
    height, width = pictures.shape[1:3]
    scale = min(1.0, SIDE_PX / ((height + width) / 2))
    size = max(8, round(height * scale)), max(8, round(width * scale))
    for start in range(0, len(pictures), 512):
        x = pictures_to_tensor(torch.from_numpy(np.ascontiguousarray(pictures[start : start + 512])))
        parts.append(x if scale == 1 else F.interpolate(x, size, mode="bilinear", antialias=True))
    return torch.cat(parts) if parts else torch.zeros(0, 3, *size)


def _augmented(x: Tensor) -> Tensor:
    """Random contrast and colour cast, and a shift by up to SHIFT_PX, the same for the batch."""
    contrast, cast = torch.empty(len(x), 1, 1, 1).uniform_(0.7, 1.3), torch.empty(len(x), 3, 1, 1).uniform_(-0.2, 0.2)
    down, across = torch.randint(-SHIFT_PX, SHIFT_PX + 1, (2,)).tolist()
    return torch.roll(x * contrast + cast, (down, across), (2, 3))
