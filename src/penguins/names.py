"""What a registered model, a version's tag and a run may be called: what every part of MLflow can find again."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from penguins import azure_names
from penguins.errors import ParameterError

LONGEST = 250
"""Characters; less than what MLflow's own databases, Unity Catalog and Azure Machine Learning take at most."""

AZUREML, UNITY_CATALOG = "azureml://", ("databricks-uc", "uc:")
"""How the URIs of registries begin that have rules of their own."""


def require_model(name: str | None, registry_uri: str) -> None:
    """Raise ParameterError when no model can be registered under this name and used; None is no registration.

    MLflow's own rule leaves out / and :, and what means a folder. Of what it takes, @ and ? are read as parts of
    `models:/name@alias`, ' ends the name in a search, and control characters vanish from a URI. The rules of Unity
    Catalog are at https://docs.databricks.com/sql/language-manual/sql-ref-names.
    """
    if name is None:
        return
    if registry_uri.startswith(AZUREML):
        azure_names.require("model", name)
        return
    if registry_uri.startswith(UNITY_CATALOG):
        # On a cluster the name of a model alone is one in the catalog and the schema that are in use.
        fits, rule = re.fullmatch(r"([^./:@?' ]+\.[^./:@?' ]+\.)?[^./:@?' ]+", name), "catalog.schema.model, no blanks"
    else:
        fits, rule = re.fullmatch(r"[^/:@?']+", name), "a name without / : @ ? ' or line breaks"
    if not fits or not name.isprintable() or name != name.strip() or _means_folder(name) or len(name) > LONGEST:
        raise ParameterError(
            f"The registered model's name is {name!r}: give {rule}, not . or .., and no more than {LONGEST} characters."
        )


def require_tags(names: Iterable[str], registry_uri: str) -> None:
    """Raise ParameterError when a version can't have a tag of one of these names.

    Unity Catalog's rule is at https://docs.databricks.com/database-objects/tags.
    """
    in_catalog = registry_uri.startswith(UNITY_CATALOG)
    allowed, rule = (r"[\w ]+", "_") if in_catalog else (r"[/\w.\- :]+", "_ - . : /")
    for name in names:
        if not re.fullmatch(allowed, name) or name != name.strip() or _means_folder(name) or len(name) > LONGEST:
            raise ParameterError(
                f"The tag's name is {name!r}: give letters, digits, blanks and {rule}, no more than {LONGEST} of them."
            )


def require_run(name: str | None) -> None:
    """Raise ParameterError when a run can't have this name; None has MLflow make one up."""
    if name is not None and (len(name) > LONGEST or not name.isprintable()):
        raise ParameterError(
            f"The run's name begins with {name[:20]!r}: give one line of no more than {LONGEST} characters."
        )


def _means_folder(name: str) -> bool:
    return posixpath.normpath(name) != name or name == "." or name.startswith("..")
