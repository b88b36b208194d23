"""What can go wrong, each told to the user in one sentence."""

import contextlib
import re
from collections.abc import Iterable

from penguins.redaction import without_secrets


class PenguinsError(Exception):
    """The base of every error that a user can do something about; its text is one sentence, without secrets."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(without_secrets(sentence)))


class DataError(PenguinsError):
    """The observations can't be read, or can't serve for training."""


class ParameterError(PenguinsError):
    """A parameter has a value outside of what it allows."""


class ModelError(PenguinsError):
    """A model can't be built, saved, found or loaded, or doesn't answer as its Spark original does."""


class StoreError(PenguinsError):
    """The tracking server or the model registry can't be used."""


class StoppedError(PenguinsError):
    """A person stopped the work before it had a result."""


class ServerError(PenguinsError):
    """A server can't be started, can't be reached, or refuses what it is asked."""


class JavaError(PenguinsError):
    """No Java that Spark can run on was found."""


EMPTY = re.compile(
    r"(\(None\)|INTERNAL_ERROR:|Message:)\s*|([\w.]*(Error|Exception):|InnerException|ErrorResponse|Response: \{\})\s*$"
)
"""What tells nothing at the beginning of a line: titles, classes, and the codes of errors that have none."""


def first_sentence(error: BaseException) -> str:
    """What went wrong, in one line that fits into a sentence of our own.

    It is the first line that tells something in the error's text, or in that of the one that caused it; where none
    does, the kind of the error.
    """
    one: BaseException | None = error
    while one is not None:
        lines = [line.strip() for line in _said(one).splitlines() if line.strip()]
        for number, line in enumerate(lines, 1):
            while found := EMPTY.match(line):
                line = line[found.end() :]
            if line:
                # One that ends with a colon says nothing without the next one.
                return without_secrets(" ".join([line, *lines[number : number + 1]]) if line.endswith(":") else line)
        one = getattr(one, "inner_exception", None) or one.__cause__
    return type(error).__name__


def _said(error: BaseException) -> str:
    """The error's text; of one from the JVM its first cause's, of an answer in Azure's form the message in it."""
    if (thrown := getattr(error, "java_exception", None)) is not None:
        # Of a JVM that has gone nothing more can be asked.
        with contextlib.suppress(Exception):
            while (cause := thrown.getCause()) is not None:
                thrown = cause
            return str(thrown.getMessage() or thrown.getClass().getSimpleName())
    # MLflow shows Azure's answers as they are.
    answer = getattr(error, "json", None)
    inner = (answer.get("error") or answer.get("Error")) if isinstance(answer, dict) else None
    message = (inner.get("message") or inner.get("Message")) if isinstance(inner, dict) else None
    # The text of what its plugin for Azure raises has titles around the message.
    if message is None and hasattr(error, "inner_exception"):
        message = getattr(error, "message", None) or " "
    return str(message or error)


def listed(values: Iterable[object], most: int = 5, *, quoted: bool = False) -> str:
    """The values as a list in a sentence, each cut at 60 characters; of more than `most`, five and how many more."""
    texts = [str(value) for value in values]
    shown = texts if len(texts) <= most else texts[:5]
    cut = [text if len(text) <= 60 else f"{text[:60]}…" for text in shown]
    more = f" and {len(texts) - len(shown):,} more" if len(texts) > len(shown) else ""
    return ", ".join(map(repr, cut) if quoted else cut) + more


def printable(text: str, *, but: str = "") -> str:
    r"""The text with a code such as `\x1b` for each character that a terminal would obey and not show.

    These are the control characters, a line break among them, and those that turn the direction of writing; `but` has
    those that may stay.
    """
    return re.sub(
        "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]",
        lambda found: found[0] if found[0] in but else found[0].encode("unicode_escape").decode(),
        text,
    )
