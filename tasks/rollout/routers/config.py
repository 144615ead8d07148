"""Which router makes production serve: the section ``router`` of the rollout file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from tasks.policy import Strict


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("write an http(s) address without a user and password")
    return text


HttpUrl = Annotated[str, AfterValidator(_http_url)]
#: Seconds for one request or command to a router.
Timeout = Annotated[float, Field(gt=0, le=60)]
#: Seconds until a router that took a change serves by it.
Settle = Annotated[float, Field(gt=0, le=600)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
ProductName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,80}$")]


class FileRouterConfig(Strict):
    """Applications read a JSON file; see :mod:`tasks.rollout.routers.file`."""

    kind: Literal["file"] = "file"
    #: The file; ``IMAGEGATE_ROUTING_FILE`` when not given.
    path: Path | None = None


class HaproxyInstance(Strict):
    """One HAProxy process: its Runtime API, and the map that its configuration looks up."""

    #: ``/run/haproxy/admin.sock`` or ``host:port``, with ``level admin``.
    socket: str = Field(min_length=1, max_length=200, pattern=r"^[^\s;]+$")
    #: The map as HAProxy's configuration names it.
    map_file: str = Field(pattern=r"^/[^\s;#|<>]+$", max_length=200)
    #: The same file as this machine sees it; ``map_file`` when not given.
    local_file: Path | None = None

    @property
    def path(self) -> Path:
        """The map's file on this machine."""
        return self.local_file or Path(self.map_file)


class Backend(Strict):
    """A backend or upstream of the router's configuration that may serve a mix."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")
    #: Answers with the digest of the mix that this backend serves, in the header
    #: ``X-Imagegate-Mix``. Not given: its application serves the mix that the request's own
    #: ``X-Imagegate-Mix`` names.
    identity_url: HttpUrl | None = None


class Product(Strict):
    """A product behind a router that splits requests by their key."""

    #: At least two: production and a candidate never share one.
    backends: tuple[Backend, ...] = Field(min_length=2, max_length=20)
    #: An address that this product's requests go to at the router. After a change, requests with
    #: keys on either side of the cut go there, and the answer's ``X-Imagegate-Mix`` must be right.
    probe_url: HttpUrl | None = None

    @model_validator(mode="after")
    def _told_apart(self) -> Product:
        names = [backend.name for backend in self.backends]
        if len(set(names)) < len(names):
            raise ValueError(f"a backend stands twice: {', '.join(names)}")
        if len({backend.identity_url is None for backend in self.backends}) > 1:
            raise ValueError("give every backend an identity_url, or none of them")
        return self


class HaproxyRouterConfig(Strict):
    """HAProxy, changed by its Runtime API; see :mod:`tasks.rollout.routers.haproxy`."""

    kind: Literal["haproxy"]
    instances: tuple[HaproxyInstance, ...] = Field(min_length=1, max_length=16)
    products: Mapping[ProductName, Product] = Field(min_length=1)
    #: The header whose value keeps a request with its mix; as in HAProxy's configuration.
    key_header: HeaderName = "X-Request-Key"
    timeout_s: Timeout = 2.0
    #: A command that fails when HAProxy could not start again with its configuration, run before
    #: a change, e.g. ``[haproxy, -c, -f, /etc/haproxy/haproxy.cfg]``.
    check_command: tuple[str, ...] = ()


class NginxProduct(Product):
    """A product behind nginx; its backends are ``upstream`` blocks."""

    #: Answers with ``$imagegate_<product>_state $pid``, see ``deployments/nginx-canary.conf``.
    status_url: HttpUrl


class NginxRouterConfig(Strict):
    """nginx, changed by an include file and a reload; see :mod:`tasks.rollout.routers.nginx`."""

    kind: Literal["nginx"]
    #: Folder that nginx's configuration includes ``*.conf`` of, inside ``http``.
    include_dir: Path
    products: Mapping[ProductName, NginxProduct] = Field(min_length=1)
    key_header: HeaderName = "X-Request-Key"
    #: Checks the configuration and prints all of it.
    test_command: tuple[str, ...] = Field(default=("nginx", "-T"), min_length=1)
    reload_command: tuple[str, ...] = Field(default=("nginx", "-s", "reload"), min_length=1)
    timeout_s: Timeout = 2.0
    settle_s: Settle = 10.0

    @model_validator(mode="after")
    def _own_variables(self) -> NginxRouterConfig:
        names = {variable_name(product) for product in self.products}
        if len(names) < len(self.products):
            raise ValueError(
                "two products give nginx variables of one name; only letters, digits and _ count"
            )
        return self


def variable_name(product: str) -> str:
    """Return a product's name as it stands in the names of nginx's variables."""
    return "".join(sign if sign.isalnum() else "_" for sign in product)


class GatewayBackend(Backend):
    """A Service in the route's namespace that may serve a mix."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    port: int = Field(ge=1, le=65_535)


class GatewayProduct(Product):
    """A product behind one rule of an HTTPRoute."""

    backends: tuple[GatewayBackend, ...] = Field(min_length=2, max_length=16)
    route: KubernetesName
    #: Which of the route's rules splits the traffic, counted from 0.
    rule: int = Field(default=0, ge=0, le=15)


class GatewayRouterConfig(Strict):
    """Kubernetes HTTPRoutes; see :mod:`tasks.rollout.routers.gateway_api`."""

    kind: Literal["gateway-api"]
    namespace: KubernetesName
    products: Mapping[ProductName, GatewayProduct] = Field(min_length=1)
    server: HttpUrl = "https://kubernetes.default.svc"
    #: Read anew for every request: Kubernetes changes it every hour.
    token_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    ca_file: Path | None = Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
    #: Take the rules over from another field manager, e.g. from `kubectl apply` or Argo CD, which
    #: must then leave ``spec.rules`` alone.
    take_over: bool = False
    #: Give each backend's requests the header ``X-Imagegate-Mix``. A filter of a backend is
    #: "extended" in the Gateway API: not every implementation has it.
    mix_header: bool = True
    timeout_s: Timeout = 5.0
    settle_s: Settle = 30.0


class LitellmProduct(Product):
    """A product that is one model group of LiteLLM; its backends are deployments, by their id.

    A deployment says in ``model_info.imagegate_serves`` which mix's digest it serves.
    """


class LitellmRouterConfig(Strict):
    """Deployments of a LiteLLM proxy; see :mod:`tasks.rollout.routers.litellm`."""

    kind: Literal["litellm"]
    url: HttpUrl
    #: Environment variable that holds a key of a proxy admin, never the key.
    key_env: EnvName
    products: Mapping[ProductName, LitellmProduct] = Field(min_length=1)
    ca_file: Path | None = None
    timeout_s: Timeout = 10.0
    settle_s: Settle = 30.0


class WebhookRouterConfig(Strict):
    """A service of one's own; see :mod:`tasks.rollout.routers.webhook` for what it must do."""

    kind: Literal["webhook"]
    url: HttpUrl
    #: Environment variable that holds the key for the signatures, never the key.
    key_env: EnvName
    #: An address that traffic goes through; any answer will do.
    probe_url: HttpUrl | None = None
    #: Certificates to trust instead of the usual ones.
    ca_file: Path | None = None
    timeout_s: Timeout = 5.0
    #: Seconds that the service may take until it serves by a routing that it accepted.
    settle_s: Settle = 10.0


RouterConfig = Annotated[
    FileRouterConfig
    | HaproxyRouterConfig
    | NginxRouterConfig
    | GatewayRouterConfig
    | LitellmRouterConfig
    | WebhookRouterConfig,
    Field(discriminator="kind"),
]
