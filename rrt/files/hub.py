"""Files of the Hugging Face hub, and one line for each way in which it has none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from rrt.errors import InputError


def ask_hub(name: str, fetch: Callable[[Any], str], lacking: str = "") -> str:
    """What ``fetch(huggingface_hub)`` returns, the path of what it fetched.

    name: OWNER/NAME[@REVISION], as the user gave it. lacking: what to say of a model without the file that is asked
    for. Raises InputError; ImportError where huggingface_hub is not installed.
    """
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    try:
        with _without_retries_told(logging):
            return fetch(huggingface_hub)
    except errors.GatedRepoError:
        page = f"https://huggingface.co/{name.partition('@')[0]}"
        remedy = f"accept its licence at {page} and log in with `hf auth login`"
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        remedy = "neither a file, a folder nor a model of the Hugging Face hub; look at the name and the revision"
    except errors.LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError: it is not here, and the net is away
        remedy = _away(error)
    except errors.EntryNotFoundError as error:
        remedy = lacking or _away(error)
    except Exception as error:  # the hub's client raises those of several libraries for a net that is not there
        remedy = _away(error)
    raise InputError(f"{name}: {remedy}")


def _away(error: Exception) -> str:
    return (
        f"no such folder, and the Hugging Face hub cannot be asked ({type(error).__name__}); fetch the model on"
        " another machine and give its folder"
    )


@contextmanager
def _without_retries_told(logging: Any):
    """Without the client's two lines a retry, of which a net that is away makes many."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)
