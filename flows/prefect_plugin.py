"""A Prefect plugin: `prefect deployment run train-alexnet` names a deployment without its flow, when both have one name.

Prefect itself asks for FLOW/DEPLOYMENT, and `train-alexnet/train-alexnet` works without this module. Prefect loads it by the
entry point `prefect.plugins` where `plugins.enabled` is set, as `[tool.prefect]` in pyproject.toml does, and runs its hook on
import. If a later Prefect has no such hook or method, Prefect logs that and goes on with its own rule.
"""

import functools
from collections.abc import Callable
from typing import Any

from prefect.plugins import HookContext, register_hook

_METHOD = "read_deployment_by_name"


@register_hook
def setup_environment(*, ctx: HookContext) -> None:  # noqa: ARG001 - Prefect passes it by name
    """Lets both of Prefect's clients read a deployment by a name without a flow."""
    from prefect.client.orchestration import PrefectClient, SyncPrefectClient

    for client in (PrefectClient, SyncPrefectClient):
        method = getattr(client, _METHOD)
        if not hasattr(method, "__wrapped__"):
            setattr(client, _METHOD, _complete_name(method))


def _complete_name(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with NAME read as NAME/NAME."""

    @functools.wraps(method)
    def read(self: object, name: str, *args: Any, **kwargs: Any) -> Any:
        return method(self, name if "/" in name else f"{name}/{name}", *args, **kwargs)

    return read
