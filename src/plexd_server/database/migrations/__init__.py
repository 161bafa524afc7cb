"""The schema's history: one file a step, numbered 0001, 0002 ... and applied in that order.

A step names its number, its predecessor and ``upgrade()``; it never imports ``tables.py``, which
describes what all steps together make. Foreign keys are not enforced meanwhile: SQLite rewrites
a table (``op.batch_alter_table``) by dropping it, which would delete the rows that refer to it.
"""

__all__: list[str] = []
