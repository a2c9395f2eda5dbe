"""Downstream tasks for private tuning: texts with a class, from the generator, from files, from a hub."""

from smd_research.data.tasks.base import Example, Task

__all__ = ["Example", "Task"]
