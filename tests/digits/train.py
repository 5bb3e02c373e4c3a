"""Training at another size each step, so that a network learns digits and not a size."""

import torch
from torch import nn
from tqdm import tqdm

from models.classifier import PoolingClassifier
from models.weights import seeded
from tests.digits.cnn import classifier, normalised
from tests.digits.data import Digits

SMALLEST, LARGEST = 14, 48
_BATCH = 32
_RATE = 3e-3  # the highest: it rises, then falls


def train(pool: str, digits: Digits, epochs: int) -> PoolingClassifier:
    """A network that ends in that pooling and knows digits; the same for the same `epochs`.

    The pooling draws at random where it does so in training. The bar on standard error shows the
    loss of the last step, and is not there where no terminal is.
    """
    network = classifier(pool)
    with seeded(1):
        orders = [torch.randperm(len(digits)) for _ in range(epochs)]
        batches = [batch for order in orders for batch in torch.split(order, _BATCH)]
        optimiser = torch.optim.Adam(network.parameters())
        rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, len(batches))
        network.train()
        bar = tqdm(batches, f"{pool:<18}", disable=None, leave=False)
        for batch in bar:
            some = Digits(digits.images[batch], digits.labels[batch]).at(*_random_size())
            logits = network(normalised(some.images))  # (n, 10)
            loss = nn.functional.cross_entropy(logits, some.labels)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            rates.step()
            bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
    return network.eval()


def _random_size() -> tuple[int, int]:
    """Height and width: small images as often as large ones, one side at most twice the other.

    What is drawn too small or too large counts as the smallest or largest, so that these, which
    are hardest, come often.
    """
    size, shape = torch.rand(2).tolist()
    side, ratio = 12 * 4.5**size, 2 ** (shape - 0.5)  # 12 to 54; 0.7 to 1.4
    height, width = (min(max(round(x), SMALLEST), LARGEST) for x in (side * ratio, side / ratio))
    return height, width
