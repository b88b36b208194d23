"""What can go wrong, each told to the user in one sentence."""

import contextlib

from penguins.redaction import without_secrets


class PenguinsError(Exception):
    """The base of every error that a user can do something about; its text is one sentence, without secrets."""

    def __init__(self, sentence: str) -> None:
        super().__init__(without_secrets(sentence))


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


def first_sentence(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none: what fits into a sentence of our own."""
    lines = [line.strip() for line in _said(error).splitlines() if line.strip()]
    return without_secrets(lines[0]) if lines else type(error).__name__


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
    return str(message or error)
