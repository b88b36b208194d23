"""The findings of a comparison as one HTML page that needs nothing from anywhere else."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from penguins.findings import Findings

if TYPE_CHECKING:
    import pandas as pd

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse } th, td { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } img { max-width: 100% } li { color: #a22 }
"""


def render(findings: Findings, facts: Mapping[str, str], picture: bytes) -> str:
    """The page: the verdict, each breach, tables of columns and windows, and the picture (a PNG) inside.

    `facts` are shown at the end as they are: where the rows come from, which model was asked, and the like.
    """
    verdict = "A threshold is broken" if findings.drifted else "No threshold is broken"
    advice = "advised" if findings.retrain else "not advised"
    breaches = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings.breaches)
    tables = [f"<h2>Columns</h2>{_html(columns_table(findings))}"]
    if findings.settings.windows is not None and findings.windows:
        tables.append(f"<h2>Windows</h2>{_html(windows_table(findings))}")
    shown = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())
    image = base64.b64encode(picture).decode()
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{verdict}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{verdict}</h1>\n<ul>{breaches}</ul>\n"
        f"<p>Retraining is {advice} (rule: {findings.settings.rule} windows).</p>\n"
        f'<img alt="Distributions side by side" src="data:image/png;base64,{image}">\n'
        f"{''.join(tables)}\n<h2>Looked at</h2><table>{shown}</table>\n</body></html>\n"
    )


def columns_table(findings: Findings) -> pd.DataFrame:
    """A row for each column, in the order of the findings: PSI, by chance, JS, shares of the current rows, verdict."""
    import pandas as pd

    found = findings.whole.as_dict(findings.settings.thresholds)["columns"]
    measures = ["psi", "psi_by_chance", "js", "missing", "out_of_range", "new", "verdict"]
    return pd.DataFrame.from_dict(found, orient="index")[measures].rename_axis("column").reset_index()


def windows_table(findings: Findings) -> pd.DataFrame:
    """A row for each window, the oldest first: start and end in UTC, rows, quality, PSI of each column, breaches."""
    import pandas as pd

    return pd.DataFrame(
        {
            "from": _minute(window.start),
            "to": _minute(window.end),
            "rows": window.rows,
            **{name: window.metrics[name] for name in window.metrics if name.startswith(("accuracy", "recall_"))},
            **{f"PSI of {found.column}": found.psi for found in window.drifts},
            "breaches": len(window.breaches),
        }
        for window in findings.windows
    )


def _minute(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _html(table: pd.DataFrame) -> str:
    return str(table.to_html(index=False, border=0, float_format="{:.3f}".format, na_rep="—"))
