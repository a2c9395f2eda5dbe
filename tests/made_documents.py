"""Documents made by hand, for tests of somebody's own data."""

import json
from collections.abc import Sequence
from pathlib import Path


def write_documents(path: Path, texts: Sequence[tuple[str, str, str]]) -> Path:
    """A JSONL file of texts, each with one secret: the text, the secret in it and its type."""
    lines = []
    for text, secret, kind in texts:
        start = text.index(secret)
        spans = [{"start": start, "end": start + len(secret), "type": kind}]
        lines.append(json.dumps({"text": text, "spans": spans}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
