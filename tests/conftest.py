"""Shared by all levels: the contract tests get pytest's explanations like any test module."""

import pytest

pytest.register_assert_rewrite("fakes.store_contract")
