"""Azure Resource Manager: name data to it, wait for what takes long, and say in one sentence what it refuses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penguins.errors import DataError, ServerError, first_sentence
from penguins.redaction import without_secrets

if TYPE_CHECKING:
    from azure.ai.ml import Input, MLClient
    from azure.core.polling import LROPoller

MADE_BY = {"made_by": "penguins"}
"""The tag of all that this package makes; clean-up finds it by that, and touches nothing else."""

LOOK_EVERY = 0.5
"""Seconds between two looks at whether an operation has ended; the client asks Azure less often, as Azure tells it."""

ASK_EVERY = 2.0
"""Seconds between two looks at what Azure does without an operation that one could wait for."""

REMOTE = re.compile(r"[a-z][a-z0-9+.-]*:(//)?.+")
"""What names data that is in Azure already: `azureml:birds:1`, `azureml://…`, `https://…`."""

ADVICE = {
    400: "look at what was asked for",
    401: "sign in again (`az login`), or renew the service principal's secret",
    403: "ask for a role that allows it, such as AzureML Data Scientist on the workspace",
    404: "check the subscription, the resource group, the workspace and the name",
    409: "another change is under way, or the name is taken: wait until it is done, or give another name",
    429: "Azure is busy: try again in some minutes",
}
"""What to do about an answer, by its status."""

LIMITS = ("quota", "capacity", "limit of")
"""Words by which Azure says that there is no more to be had."""

ELSEWHERE = (*LIMITS, "not available in", "not available for resource type", "region", "location")
"""Words by which Azure says that another region may have it."""


def finish(poller: LROPoller[Any], what: str, timeout: float) -> Any:
    """What a long-running operation results in, once it has ended.

    Raises ServerError when it failed, with Azure's reason, or when `timeout` seconds have passed.
    """
    deadline = time.monotonic() + timeout
    with told(what):
        while not poller.done():
            if time.monotonic() > deadline:
                raise ServerError(f"{what} was not ready within {timeout:g} seconds{_status(poller)}.")
            poller.wait(LOOK_EVERY)
        return poller.result()


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what Azure's clients raise within the block into one sentence about `what`, a ServerError."""
    from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError

    try:
        yield
    except HttpResponseError as error:
        raise ServerError(_sentence(what, error)) from error
    except (ServiceRequestError, ServiceResponseError) as error:
        raise ServerError(
            f"{what}: Azure can't be asked ({type(error).__name__}): check the network, try again."
        ) from error
    except AzureError as error:
        # The base of the others, and of what the clients refuse by themselves.
        raise ServerError(f"{what}: {_one_line(error).rstrip('.')}; look at what was asked for.") from error


def word(value: Any) -> str:
    """A state as one word; Azure's clients give text in one place and an enumeration in another."""
    return str(getattr(value, "value", value))


def is_ours(tags: Mapping[str, str] | None) -> bool:
    """Whether what has these tags was made by this package."""
    return MADE_BY.items() <= dict(tags or {}).items()


def is_missing(error: BaseException) -> bool:
    """Whether Azure said that there is no such thing, in a workspace that is there."""
    from azure.core.exceptions import ResourceNotFoundError

    # The path of a thing goes on behind the workspace's name; the path of a workspace ends there.
    is_workspace = re.search(r"workspaces/[^/']+'", said(error))
    return isinstance(error, ResourceNotFoundError) and is_in_group(error) and not is_workspace


def is_in_group(error: Any) -> bool:
    """Whether what Azure didn't find would be in a resource group and a subscription that are there."""
    return getattr(getattr(error, "error", None), "code", None) not in {"ResourceGroupNotFound", "SubscriptionNotFound"}


def said(error: Any) -> str:
    """Azure's own words in one line, without codes, traces and secrets."""
    inner: Any = getattr(error, "error", None)
    # A deployment that failed says only that it did; why, its details say.
    while inner is not None and getattr(inner, "details", None):
        inner = inner.details[0]
    message = getattr(inner, "message", None)
    return _clean(message) if message else _one_line(error)


def data(client: MLClient, source: str) -> Input:
    """A job's input: a file or a folder here, which is uploaded, or data in Azure.

    Raises DataError when there is no such file, ServerError when there is no such data.
    """
    from azure.ai.ml import Input

    path = Path(source)
    if path.exists():
        return Input(type="uri_folder" if path.is_dir() else "uri_file", path=str(path.resolve()))
    if not REMOTE.fullmatch(source):
        raise DataError(f"There is no {source} here: give a file, a folder, or data in Azure such as azureml:birds:1.")
    return Input(type=_type_in_azure(client, source), path=source)


def _type_in_azure(client: MLClient, source: str) -> str:
    """`uri_file`, `uri_folder` or `mltable`: as registered data says, and as a path looks."""
    if (named := re.fullmatch(r"azureml:([^:@/]+)(?::([^:@/]+)|@([^:@/]+))", source)) is None:
        return "uri_file" if Path(source).suffix else "uri_folder"
    name, version, label = named.groups()
    with told(source):
        return word(client.data.get(name, version=version, label=label).type)


def is_limit(error: BaseException) -> bool:
    """Whether Azure said that there is no more to be had."""
    return any(word in said(error).lower() for word in LIMITS)


def is_about_region(error: BaseException | None) -> bool:
    """Whether Azure said that there is none, or no more, to be had in this region."""
    from azure.core.exceptions import HttpResponseError

    if not isinstance(error, HttpResponseError):
        return False
    words = said(error).lower()
    return "already exists" not in words and any(word in words for word in ELSEWHERE)


def _status(poller: LROPoller[Any]) -> str:
    # The one that makes a workspace of Azure Machine Learning doesn't tell.
    with suppress(NotImplementedError):
        return f" ({poller.status()})"
    return ""


def _sentence(what: str, error: Any) -> str:
    from azure.core.exceptions import ClientAuthenticationError

    words = said(error).rstrip(".") or f"{type(error).__name__} without a reason"
    # One that stands for a token that there is none of has no status.
    status = 401 if error.status_code is None and isinstance(error, ClientAuthenticationError) else error.status_code
    if is_limit(error) and error.status_code != 429:
        return f"{what}: {words}; free some of the quota, ask for more, or take another size or region."
    if error.status_code is not None and error.status_code >= 500:
        return f"{what}: {words}; Azure failed: try again, and look at the platform's status page."
    return f"{what}: {words}; {ADVICE.get(status, 'look at it in the studio')}."


def _one_line(error: BaseException) -> str:
    return _clean(str(getattr(error, "message", "")) or first_sentence(error))


def _clean(text: str) -> str:
    """The first paragraph of a message, as one line without the code that stands before it."""
    paragraph = re.split(r"\n\s*(?:Code|Message|Content|Exception Details|Target)\s*:", text)[0]
    line = " ".join(re.sub(r"^\(\w+\)\s*", "", paragraph.strip()).split())
    return without_secrets(line)
