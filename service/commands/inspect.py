"""`anypool inspect`"""

import argparse
import sys
from pathlib import Path

from models.card import Card, CardError, Mixed, Preprocessing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument("artifact", type=Path, help="artifact folder: the one with card.json in it")
    parser.add_argument("--json", action="store_true", help="the whole card, labels too")


def run(options: argparse.Namespace) -> int:
    """Print the card."""
    try:
        card = Card.load(options.artifact / "card.json")
    except CardError as exc:
        print(f"anypool inspect: {exc}", file=sys.stderr)
        return 1
    print(card.model_dump_json(indent=1) if options.json else _summary(card))
    return 0


def _summary(card: Card) -> str:
    p, limits, parity = card.preprocessing, card.limits, card.parity
    rows = {
        "model": f"{card.name}, version {card.version}",
        "classes": f"{len(card.labels)}: {', '.join(label.name for label in card.labels[:3])}, …",
        "channels": f"{p.channels}, mean {p.mean}, std {p.std}",
        "resize": _resize(p),
        "smallest": f"{limits.min_width}×{limits.min_height}, multiple of {limits.multiple}",
        "pooling": card.pooling,
        "activation": card.activation,
        "outputs": ", ".join(card.outputs),
        "parity": "not verified" if parity is None else
        f"{parity.worst:.1e} at {parity.worst_case}, the worst of {parity.cases} sizes, "
        f"{parity.provider} against {parity.reference}",
        "precision": _precision(card),
        "mixed": _mixed(card.mixed),
        "made by": ", ".join(f"{name} {version}" for name, version in card.exporter.items()),
        "licence": f"{card.licence.name}. {card.licence.notice}",
    }  # fmt: skip
    return "\n".join(f"{name:10} {value}" for name, value in rows.items())


def _precision(card: Card) -> str:
    if (drift := card.drift) is None:
        return card.precision
    told = [
        f"{card.precision}; of {drift.photos} photos {drift.agreement:.1%} get the class of fp32, "
        f"probabilities differ by up to {drift.worst:.1e} ({drift.worst_photo}), weights rounded"
    ]
    if drift.peak is not None:
        told.append(f"numbers between layers reach {drift.peak:.4g} of 65504")
    if drift.rounded is not None:
        told.append(f"these rounded too, logits differ by {drift.rounded:.1e} of the largest")
    if drift.unmeasured is not None:
        told.append(f"what rounding these changes is not known: {drift.unmeasured}")
    return "; ".join(told)


def _resize(p: Preprocessing) -> str:
    if p.size is None:
        return p.policy
    to = p.size if p.crop is None else f"{p.crop} of {p.size}"
    return f"{p.policy} to {to}, {p.filter}"


def _mixed(mixed: Mixed) -> str:
    if not mixed.supported:
        return f"equal sizes only: {mixed.reason}"
    if mixed.parity is None:
        return "not verified"
    worst = f"{mixed.parity.worst:.1e} at {mixed.parity.worst_case}"
    return f"any sizes in one run; {worst}, the worst of {mixed.parity.cases} batches"
