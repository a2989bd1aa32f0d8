"""The default reranking of images described by the shipped model lite0."""

from __future__ import annotations

from typing import Any

# Chosen on held-out landmarks (docs/models.md 5).
METHOD = "maxsim"
SETTINGS: dict[str, dict[str, Any]] = {
    "maxsim": {"weight": 0.2, "symmetric": True, "query_local": 100, "gallery_local": 100}
}
