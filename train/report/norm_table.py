"""The norms of a network at a glance: `jaxbn.diagnostics` as a table."""

from collections.abc import Mapping

import numpy as np
from rich.table import Table

from jaxbn import Diagnostics


def norm_table(reports: Mapping[str, Diagnostics]) -> Table:
    """One row a norm: what is furthest from healthy among its channels.

    Args:
        reports: by the norm's name.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> report = jaxbn.diagnostics(*jaxbn.init(2), jnp.array([[1.0, 7.0], [5.0, 7.0]]))
        >>> [list(column.cells) for column in norm_table({"norm1": report}).columns]
        [['norm1'], ['2'], ['7.00 σ'], ['0.00 to 4.00'], ['1'], ['2']]

    """
    table = Table()
    table.add_column("norm")
    for column in ("channels", "largest gap of means", "variance / running", "dead", "effective size"):
        table.add_column(column, justify="right")
    for name, report in reports.items():
        gap, ratio, dead, size = (
            np.asarray(a).ravel() for a in (report.mean_gap, report.variance_ratio, report.dead, report.effective_size)
        )
        table.add_row(
            name,
            f"{gap.size:,}",
            f"{np.abs(gap).max():.2f} σ",
            f"{ratio.min():.2f} to {ratio.max():.2f}",
            f"{dead.sum():,}",
            f"{size.min():,.0f}",
        )
    return table
