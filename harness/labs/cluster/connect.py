"""From a kubeconfig file, or from a pod, to an :class:`~harness.labs.cluster.api.Api`."""

from __future__ import annotations

from pathlib import Path

from harness.labs.base import LabError
from harness.labs.cluster.api import Api


def context_name(context: str | None = None, kubeconfig: Path | None = None) -> str:
    """The name of the context that :func:`connect` would take; "" where none is current."""
    from kubernetes.config import list_kube_config_contexts

    if context:
        return context
    try:
        _, current = list_kube_config_contexts(  # type: ignore[no-untyped-call]
            str(kubeconfig) if kubeconfig else None
        )
    except OSError:
        return ""
    except _unfit():
        return ""
    return str((current or {}).get("name", ""))


def connect(kubeconfig: Path | None = None, context: str | None = None) -> Api:
    """The API of a context (the current one if none is named).

    Without a file the usual ones are read ($KUBECONFIG, ~/.kube/config). Raises LabError.
    """
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import load_kube_config

    configuration = Configuration()
    where = str(kubeconfig) if kubeconfig else "the kubeconfig"
    try:
        load_kube_config(  # type: ignore[no-untyped-call]
            str(kubeconfig) if kubeconfig else None,
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except _unfit() as error:
        raise LabError(
            f"{where} cannot be used: {' '.join(str(error).split())}",
            hint="`kubectl config get-contexts` lists what there is; KUBECONFIG names the file",
        ) from None
    except OSError as error:
        raise LabError(f"{where} cannot be read: {error.strerror or error}") from None
    configuration.connection_pool_maxsize = 16
    return Api(ApiClient(configuration))


def _unfit() -> tuple[type[Exception], ...]:
    """What the client raises for a file that is no kubeconfig: it looks at no type before it
    takes the value."""
    from kubernetes.config import ConfigException
    from yaml import YAMLError

    return (ConfigException, YAMLError, ValueError, TypeError, AttributeError, KeyError)


def in_cluster() -> Api:
    """The API as the service account of the pod that this runs in. Raises LabError."""
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import ConfigException, load_incluster_config

    configuration = Configuration()
    try:
        load_incluster_config(  # type: ignore[no-untyped-call]
            client_configuration=configuration
        )
    except (ConfigException, OSError) as error:
        raise LabError(f"this is no pod with a service account: {error}") from None
    return Api(ApiClient(configuration))
