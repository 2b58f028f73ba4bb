"""The cache is given by the name that a model's `forward` has for it, in every version."""

from typing import Any

import pytest

from infra.cache_argument import cache_argument


class Newer:
    """As models of transformers since 5.24."""

    def forward(self, input_ids: Any, cache: Any = None, **others: Any) -> None:
        """Nothing."""


class Older:
    """As models before, and those of others."""

    def forward(self, input_ids: Any, past_key_values: Any = None, **others: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize(("model", "name"), [(Newer(), "cache"), (Older(), "past_key_values")])
def test_the_cache_has_the_name_of_the_models_own_argument(model: Any, name: str) -> None:
    assert cache_argument(model) == name
