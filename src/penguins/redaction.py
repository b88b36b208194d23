"""Take secrets out of text that leaves the process: errors, tracebacks, tags, reports."""

from __future__ import annotations

import os
import re
from typing import Any, TextIO
from urllib.parse import quote

HIDDEN = "***"

VARIABLES = (
    *("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_PASSWORD", "ARM_CLIENT_SECRET"),
    *("DATABRICKS_TOKEN", "DATABRICKS_PASSWORD", "DATABRICKS_CLIENT_SECRET"),
    *("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)
"""The environment variables that hold a secret; their values are taken out wherever they stand."""

SHORTEST = 8
"""Characters; a shorter value of a variable is a part of ordinary words, too."""

KEY = (
    r"(?<![\w-])[\w-]*?(?:(?<![a-z])sig|secret|password|passwd|(?-i:[pP]wd)|token|assertion|x-amz-signature"
    r"|(?:account|access|api|secret|private|subscription)[_-]?key)"
)
"""What a secret is called: the end of a word such as `client_secret`, `AZURE_CLIENT_SECRET`, `AccountKey`, `sig`."""

QUOTE = r"""\\?["']"""

RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), hidden)
    for pattern, hidden in (
        # Both halves of a connection string's value have a `=`.
        (r"(SharedAccessSignature\s*=\s*)[^;\s'\"]+", rf"\1{HIDDEN}"),
        # A value between quotes ends with its own kind of quote; one without, where a URI's or a string's part does.
        (rf"({KEY}(?:{QUOTE})?\s*[=:]\s*)({QUOTE})(?!\2).*?\2", rf"\1\2{HIDDEN}\2"),
        (rf"({KEY}(?:\s*=\s*|%3D))(?!\\?[\"'])[^&;\s'\")]+", rf"\1{HIDDEN}"),
        # "Bearer token not provided" has none.
        (r"\b(Bearer\s+)(?=\S*[-\d._~+/]|\S{16})[-\w.~+/]+=*", rf"\1{HIDDEN}"),
        (r"\b(Basic\s+)(?-i:(?=\w*[a-z]\w*[A-Z\d]|\w+=))[\w+/]{8,}=*", rf"\1{HIDDEN}"),
        # JSON Web Tokens begin so, because they begin with `{"`.
        (r"(?-i:(?<![a-zA-Z\d])eyJ[\w-]{10,}(?:\.[\w-]*)*)", HIDDEN),
        # A token or a service principal's secret of Databricks; one of Entra ID; a storage account's key.
        (r"(?<![a-z\d])(?:dapi|dose)[0-9a-f]{8,}(?:-\d+)?", HIDDEN),
        (r"(?-i:[\w.~-]{3}\dQ~[\w.~-]{31,34})", HIDDEN),
        (r"(?<![a-z\d+/])[a-z\d+/]{86}==", HIDDEN),
        # What stands before the @ of Azure's storage is the container.
        (r"(?<!abfs)(?<!abfss)(?<!wasb)(?<!wasbs)://[^/?#\s]*@", rf"://{HIDDEN}@"),
    )
)
"""What a secret looks like, and what is shown instead."""


def without_secrets(text: str) -> str:
    """The text, without what in it may be a password, a key, a signature, a token, or the user in a URI."""
    values = {os.environ.get(name, "") for name in VARIABLES}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN).replace(quote(value, safe=""), HIDDEN)
    for pattern, hidden in RULES:
        text = pattern.sub(hidden, text)
    return text


class Redacted:
    """A stream to which others write, such as stderr, that gets their text without secrets."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without secrets; its own length is what the writer hears."""
        self._stream.write(without_secrets(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
