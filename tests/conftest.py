"""What holds for tests of every level: those that need another kernel are run in a guest."""

from bed.pytest_guest import pytest_collection_finish, pytest_runtest_logreport, pytest_runtest_protocol

__all__ = ["pytest_collection_finish", "pytest_runtest_logreport", "pytest_runtest_protocol"]
