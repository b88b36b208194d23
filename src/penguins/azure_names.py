"""What Azure lets things be called: one rule for each kind of name that a person gives here."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from penguins.errors import ParameterError


@dataclass(frozen=True)
class Rule:
    """How the names of one kind of thing are made."""

    what: str
    pattern: str
    words: str
    longest: int

    def fits(self, name: str) -> bool:
        """Whether Azure takes the name."""
        return len(name) <= self.longest and re.fullmatch(self.pattern, name, re.ASCII) is not None


_ENDPOINT = (
    "[a-zA-Z][a-zA-Z0-9-]+[a-zA-Z0-9]",
    "3 to 32 letters from a to z, digits and hyphens, the first one a letter, the last one no hyphen",
    32,
)

# Models, endpoints, deployments: the patterns of Microsoft's client azure-ai-ml. Workspaces, schedules:
# https://learn.microsoft.com/rest/api/azureml. Experiments: what the service says of a refused one. Databricks:
# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules.
RULES = {
    "model": Rule(
        "a registered model of Azure Machine Learning",
        r"(?![-_.])[\w.-]+(?<!\.)",
        "1 to 255 letters from a to z, digits, hyphens, underscores and dots, the first one a letter or a digit, the "
        "last one no dot",
        255,
    ),
    "endpoint": Rule("an endpoint of Azure Machine Learning", *_ENDPOINT),
    "deployment": Rule("a deployment of Azure Machine Learning", *_ENDPOINT),
    "experiment": Rule(
        "an experiment of Azure Machine Learning",
        r"[a-zA-Z0-9][\w-]*",
        "1 to 256 letters from a to z, digits, hyphens and underscores, the first one a letter or a digit",
        256,
    ),
    "schedule": Rule(
        "a schedule of Azure Machine Learning",
        r"[a-zA-Z0-9][\w-]*",
        "1 to 255 letters from a to z, digits, hyphens and underscores, the first one a letter or a digit",
        255,
    ),
    "workspace": Rule(
        "a workspace of Azure Machine Learning",
        r"[a-zA-Z0-9][\w-]{2,}",
        "3 to 33 letters from a to z, digits, hyphens and underscores, the first one a letter or a digit",
        33,
    ),
    "databricks-workspace": Rule(
        "a workspace of Azure Databricks",
        r"[\w-]{3,}",
        "3 to 64 letters from a to z, digits, hyphens and underscores",
        64,
    ),
}


def require(kind: str, name: str) -> None:
    """Raise ParameterError, with a name that would do, when Azure takes this one for no thing of a kind in RULES."""
    rule = RULES[kind]
    if not rule.fits(name):
        such = f", such as {like}" if (like := _alike(rule, name)) else ""
        raise ParameterError(f"{name!r} can't be the name of {rule.what}: give {rule.words}{such}.")


def alike(kind: str, name: str) -> str:
    """The name itself where Azure takes it for this kind of thing, or one that is like it.

    Raises ParameterError when there is nothing in it that could be kept.
    """
    rule = RULES[kind]
    found = name if rule.fits(name) else _alike(rule, name)
    if found is None:
        require(kind, name)
    return str(found)


def _alike(rule: Rule, name: str) -> str | None:
    """A name that fits, made of the letters and digits that stand in the name, without their accents."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^a-zA-Z0-9]+", "-", plain).strip("-")
    tried = (like[: rule.longest].rstrip("-") for like in (kept, f"m-{kept}") if kept)
    return next((like for like in tried if rule.fits(like)), None)
