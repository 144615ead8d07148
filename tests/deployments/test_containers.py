"""Compose file, manifests, Dockerfile: valid by schema, and true by the code that they name."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.settings import DEPLOYMENTS, PROJECT_ROOT, load_settings

COMPOSE_FILE = DEPLOYMENTS / "compose.yaml"
KUBERNETES = DEPLOYMENTS / "kubernetes"
MANIFESTS = sorted(p for p in KUBERNETES.glob("*.yaml") if p.name != "kustomization.yaml")
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
#: Services of other people's images; the rest run ours.
FOREIGN = {"postgres", "redis", "prefect", "s3", "prometheus", "grafana"}
OURS = sorted(set(SERVICES) - FOREIGN)
#: What no one of us reads: the images' own variables, and the shell's.
OTHERS = re.compile(
    r"HOME|DO_NOT_TRACK|AWS_[A-Z_]+|POSTGRES_PASSWORD|PGDATA|REDIS_PASSWORD|ROOT_(ACCESS|SECRET)_KEY"
    r"|GF_[A-Z_]+|(PREFECT|IMAGEGATE)_DB_PASSWORD"
)


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def workloads() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pod of every Deployment and Job."""
    for path in MANIFESTS:
        for one in documents(path):
            if one["kind"] in ("Deployment", "Job"):
                yield one["metadata"]["name"], one["spec"]["template"]["spec"]


PODS = dict(workloads())
CONTAINERS = [(name, pod["containers"][0]) for name, pod in PODS.items()]


# --- by schema -----------------------------------------------------------------------------


def tool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_compose_file_is_valid_by_its_schema(tmp_path: Path) -> None:
    arguments = ("check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    done = tool(*arguments, COMPOSE_FILE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE_FILE.read_text().replace("    restart:", "    restrat:"))
    assert tool(*arguments, wrong).returncode == 1, "the schema sees a wrong word"


def test_the_manifests_are_valid_by_schema(tmp_path: Path) -> None:
    assert len(MANIFESTS) == 8
    done = tool("kubernetes_validate", "--strict", *MANIFESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "worker.yaml"
    wrong.write_text((KUBERNETES / "worker.yaml").read_text().replace("replicas:", "replica:"))
    assert tool("kubernetes_validate", "--strict", wrong).returncode != 0


def test_haproxy_accepts_its_configuration() -> None:
    haproxy = shutil.which("haproxy") or "/usr/sbin/haproxy"
    if not Path(haproxy).exists():
        pytest.skip("needs haproxy (Debian: haproxy)")
    done = subprocess.run(
        [haproxy, "-c", "-f", DEPLOYMENTS / "haproxy.cfg"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    text = (DEPLOYMENTS / "haproxy.cfg").read_text()
    for host in re.findall(r"^  server \S+ ([\w-]+):4200", text, re.MULTILINE):
        assert host in SERVICES


# --- commands ------------------------------------------------------------------------------


def understood(command: list[str]) -> None:
    """Parse a command line by the program that it names; raise what that program raises."""
    program, *rest = command
    if program == "imagegate":
        import typer
        from typer.core import TyperGroup

        from flows.cli import app

        # Typer brings a Click of its own, whose classes are not those of the package click.
        node: Any = typer.main.get_command(app)
        context = None
        while True:
            context = node.make_context(node.name or "imagegate", list(rest), parent=context)
            if not isinstance(node, TyperGroup):
                return
            left = [*context._protected_args, *context.args]
            name, found, rest = node.resolve_command(context, left)
            assert found is not None, name
            node = found
    elif program == "prefect":
        from prefect.cli._app import _app

        _app.parse_args(rest, exit_on_error=False, print_error=False)
    elif command[:3] == ["python", "-m", "deployments.health"]:
        assert command[3] in ("http", "stores", "beat", "bucket"), command
    else:
        assert command == ["true"], command


def commands() -> dict[str, list[str]]:
    found = {f"compose {name}": SERVICES[name]["command"] for name in OURS}
    for name in OURS:
        test = SERVICES[name]["healthcheck"].get("test")
        if test:
            assert test[0] == "CMD"
            found[f"compose {name} health"] = test[1:]
    for name, container in CONTAINERS:
        found[f"kubernetes {name}"] = container["command"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if "exec" in container.get(probe, {}):
                found[f"kubernetes {name} {probe}"] = container[probe]["exec"]["command"]
    text = (DEPLOYMENTS / "Dockerfile").read_text()
    (health,) = re.findall(r"HEALTHCHECK [^\[]*CMD (\[.*\])", text)
    found["Dockerfile"] = yaml.safe_load(health)
    return found


@pytest.mark.parametrize("where", sorted(commands()))
def test_every_command_is_one_that_its_program_knows(where: str) -> None:
    understood([str(part) for part in commands()[where]])


def test_a_command_that_does_not_exist_is_seen() -> None:
    from cyclopts.exceptions import UnknownOptionError
    from typer.exceptions import TyperException

    with pytest.raises(TyperException, match="watchdogs"):
        understood(["imagegate", "watchdogs"])
    with pytest.raises(TyperException, match="--pools"):
        understood(["imagegate", "deploy", "--pools", "gates"])
    with pytest.raises(UnknownOptionError):
        understood(["prefect", "worker", "start", "--nope"])


# --- environment ---------------------------------------------------------------------------


def named_settings() -> set[str]:
    """Return every variable that imagegate or the installed Prefect reads."""
    import prefect_redis.client as redis_client
    from prefect.settings.legacy import _get_settings_fields
    from prefect.settings.models.root import Settings

    source = (PROJECT_ROOT / "tasks" / "settings.py").read_text()
    ours = set(re.findall(r'"((?:IMAGEGATE|SLACK)_[A-Z0-9_]+)"', source))
    prefects = {name for name in _get_settings_fields(Settings) if name.isupper()}
    redis = {
        f"PREFECT_REDIS_MESSAGING_{name.upper()}"
        for name in redis_client.RedisMessagingSettings.model_fields
    }
    return ours | prefects | redis


def variables() -> dict[str, set[str]]:
    """Return every variable that a file sets, by where."""
    found = {f"compose {n}": set(s.get("environment", {})) for n, s in SERVICES.items()}
    for generator in KUSTOMIZATION["configMapGenerator"]:
        found[f"map {generator['name']}"] = {
            literal.partition("=")[0] for literal in generator.get("literals", ())
        }
    for one in documents(KUBERNETES / "secret.example.yaml"):
        found[f"secret {one['metadata']['name']}"] = set(one["stringData"])
    for name, container in CONTAINERS:
        found[f"kubernetes {name}"] = {entry["name"] for entry in container.get("env", ())}
    text = (DEPLOYMENTS / "Dockerfile").read_text()
    found["Dockerfile"] = set(re.findall(r"\b((?:IMAGEGATE|PREFECT)_[A-Z_]+)=/", text))
    return found


@pytest.mark.parametrize("where", sorted(variables()))
def test_every_variable_is_read_by_somebody(where: str) -> None:
    unknown = {v for v in variables()[where] if not OTHERS.fullmatch(v)} - named_settings()
    assert unknown == set()


def test_what_compose_asks_for_is_in_the_example() -> None:
    asked = set(re.findall(r"(?<!\$)\$\{([A-Z_0-9]+)", COMPOSE_FILE.read_text()))
    example = (DEPLOYMENTS / "env.example").read_text()
    offered = set(re.findall(r"^#?([A-Z_0-9]+)=", example, re.MULTILINE))
    images = {name for name in asked if name.endswith("_IMAGE")}
    assert asked - images - offered == {"PREFECT_LISTEN", "AWS_DEFAULT_REGION"}
    assert offered <= asked
    required = set(re.findall(r"\$\{([A-Z_0-9]+):\?", COMPOSE_FILE.read_text()))
    assert set(re.findall(r"^([A-Z_0-9]+)=$", example, re.MULTILINE)) == required


@pytest.mark.parametrize("source", ["compose", "kubernetes"])
def test_prefects_redis_parts_exist_in_the_installed_packages(source: str) -> None:
    if source == "compose":
        settings = dict(SERVICES["prefect-server-1"]["environment"])
    else:
        (generator,) = (
            g for g in KUSTOMIZATION["configMapGenerator"] if g["name"] == "prefect-settings"
        )
        settings = dict(literal.split("=", 1) for literal in generator["literals"])
    wanted = {
        "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": ("Publisher", "Consumer"),
        "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": ("Cache",),
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": ("CausalOrdering",),
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": ("ConcurrencyLeaseStorage",),
    }
    for name, classes in wanted.items():
        assert settings[name].startswith("prefect_redis."), name
        module = importlib.import_module(settings[name])
        assert all(hasattr(module, one) for one in classes), name
    assert settings["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] == "false"


def test_the_settings_of_a_worker_are_what_they_look_like(tmp_path: Path) -> None:
    raw = SERVICES["worker-1"]["environment"]
    env = {k: re.sub(r"\$\{[A-Z_0-9]+(?::-([^}]*)|:\?[^}]*)\}", r"\1", v) for k, v in raw.items()}
    settings = load_settings(env)
    assert settings.home == Path("/var/lib/imagegate")
    assert settings.evidence_url == "file:///var/lib/imagegate-evidence"
    assert settings.s3_endpoint is None
    assert settings.slack_token is None
    assert settings.state_url.get_secret_value().startswith("postgresql+psycopg://imagegate:@")
    mounted = {volume.partition(":")[2] for volume in SERVICES["worker-1"]["volumes"]}
    assert {str(settings.home), str(settings.routing_file.parent)} <= mounted
    assert settings.evidence_url.removeprefix("file://") in mounted
    targets = {entry["target"] for entry in SERVICES["worker-1"]["configs"]}
    assert {
        str(settings.alerts_file),
        str(settings.budgets_file),
        str(settings.schedules_file),
    } == targets


# --- what a careful operator looks for -----------------------------------------------------


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_hardened_limited_and_watched(name: str) -> None:
    service = SERVICES[name]
    uid = str(service["user"]).partition(":")[0]
    assert uid.isdigit()
    assert int(uid) > 0, "not root"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert service["logging"]["options"]["max-size"]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= set(limits)
    once = service["healthcheck"].get("disable")
    if once:
        assert service["restart"] in ("no", "on-failure:5"), "a job ends"
    else:
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"
    for needed, how in service.get("depends_on", {}).items():
        target = SERVICES[needed]
        ends = target["healthcheck"].get("disable", False)
        expected = "service_completed_successfully" if ends else "service_healthy"
        assert how["condition"] in (expected, "service_started"), needed
    for volume in service.get("volumes", ()):
        source, _, rest = volume.partition(":")
        if source.startswith("."):
            assert (DEPLOYMENTS / source).exists(), source
            assert rest.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]
    assert not any("docker.sock" in str(v) for v in service.get("volumes", ()))


def test_only_the_ui_is_published_and_only_on_this_machine() -> None:
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert set(published) == {"prefect", "grafana"}
    assert published["prefect"] == ["${PREFECT_LISTEN:-127.0.0.1:4200}:4200"]
    assert COMPOSE["networks"]["data"] == {"internal": True}
    for name in ("postgres", "redis", "prefect-server-1", "prefect-server-2"):
        assert SERVICES[name]["networks"] == ["data"]
    for name in ("worker-1", "worker-2", "watchdog", "register", "slack"):
        assert SERVICES[name]["networks"] == ["data", "edge"]


def test_files_of_compose_are_there() -> None:
    for entry in COMPOSE["configs"].values():
        assert (DEPLOYMENTS / entry["file"]).is_file(), entry


def images() -> list[str]:
    found = [re.sub(r"\$\{[A-Z_]+:-(.*)\}", r"\1", s["image"]) for s in SERVICES.values()]
    found += re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (DEPLOYMENTS / "Dockerfile").read_text(), re.M)
    return found + [f"{i['newName']}:{i['newTag']}" for i in KUSTOMIZATION["images"]]


@pytest.mark.parametrize("image", sorted(set(images())))
def test_images_have_a_version(image: str) -> None:
    tag = image.rpartition(":")[2]
    assert re.match(r"(v|RELEASE\.)?\d+\.\d+", tag), image
    assert "latest" not in image


SECRET = re.compile(r"(?i)password|secret|token|auth_string|access_key|connection_url|docket_url")


def test_no_secret_stands_in_a_file() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) or "@" in str(value):
                assert re.search(r"\$\{[A-Z_]+:[?-]", str(value)), (name, variable)
                assert not re.search(r"\$\{[A-Z_]+:-[^}]+\}", str(value)), "no default secret"
    for generator in KUSTOMIZATION["configMapGenerator"]:
        for literal in generator.get("literals", ()):
            assert not SECRET.search(literal.partition("=")[0]), literal
            assert "@" not in literal
    for one in documents(KUBERNETES / "secret.example.yaml"):
        # A name that Kubernetes refuses: nobody applies placeholders by accident.
        assert not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", one["metadata"]["name"])
        assert all(value.startswith("<") for value in one["stringData"].values())
    assert "secret.example.yaml" not in KUSTOMIZATION["resources"]
    everything = "".join(
        p.read_text() for p in DEPLOYMENTS.rglob("*") if p.suffix in (".yaml", ".cfg", ".sh")
    )
    assert not re.search(r"xox[bap]-\d|AKIA[A-Z0-9]{16}|-----BEGIN", everything)
    ignored = (PROJECT_ROOT / ".gitignore").read_text().splitlines()
    assert {"deployments/.env", "deployments/providers.env"} <= set(ignored)


@pytest.mark.parametrize("name", sorted(PODS))
def test_a_pod_is_restricted_limited_and_probed(name: str) -> None:
    pod = PODS[name]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["image"] == "imagegate"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for part in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(container["resources"][part])
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    if pod.get("restartPolicy") != "OnFailure":
        assert "startupProbe" in container
        assert {"readinessProbe", "livenessProbe"} & set(container)
        assert pod["topologySpreadConstraints"]
    for source in container["envFrom"]:
        ((kind, reference),) = source.items()
        if kind == "configMapRef":
            assert reference["name"] in {g["name"] for g in KUSTOMIZATION["configMapGenerator"]}
        else:
            assert reference["name"] in ("imagegate", "prefect", "providers")


def test_the_cluster_has_what_the_issue_asks_for() -> None:
    everything = [one for path in MANIFESTS for one in documents(path)]
    replicas = {
        o["metadata"]["name"]: o["spec"]["replicas"]
        for o in everything
        if o["kind"] == "Deployment"
    }
    assert replicas == {"prefect-server": 2, "prefect-services": 1, "worker": 2, "watchdog": 1}
    budgets = [o for o in everything if o["kind"] == "PodDisruptionBudget"]
    assert {b["metadata"]["name"] for b in budgets} == {"prefect-server", "worker"}
    policies = {
        o["metadata"]["name"]: o["spec"] for o in everything if o["kind"] == "NetworkPolicy"
    }
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (namespace,) = (o for o in everything if o["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    names = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert set(KUSTOMIZATION["resources"]) == names - {"kustomization.yaml", "secret.example.yaml"}
    (files,) = (g["files"] for g in KUSTOMIZATION["configMapGenerator"] if "files" in g)
    for file in files:
        assert (DEPLOYMENTS / Path(file).name).is_file(), "TEAM.md says where it is copied from"
    for one in everything:
        assert one["metadata"].get("namespace", "imagegate") == "imagegate"


# --- Dockerfile ----------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, lines joined, comments left out."""
    text = (DEPLOYMENTS / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(word, rest) for word, _, rest in found]


def test_the_dockerfile_reads_well() -> None:
    steps = instructions()
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "USER", "HEALTHCHECK", "CMD"}
    assert {word for word, _ in steps} <= known
    stages = [rest.split(" AS ")[1] for word, rest in steps if word == "FROM"]
    assert stages == ["wheels", "build", "run"]
    last = steps[max(i for i, (word, _) in enumerate(steps) if word == "FROM") :]
    assert [rest for word, rest in last if word == "USER"] == ["10001:10001"]
    assert any(word == "HEALTHCHECK" for word, _ in last)
    pips = [
        part for word, rest in steps if word == "RUN" for part in rest.split("&&") if "pip" in part
    ]
    assert all("--require-hashes" in part or "--no-index" in part for part in pips)
    ignored = (DEPLOYMENTS / "Dockerfile.dockerignore").read_text().splitlines()
    for word, rest in steps:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (PROJECT_ROOT / source).exists(), source
                assert f"!{source}" in ignored


def test_the_user_of_the_image_is_the_user_of_the_files() -> None:
    assert {SERVICES[name]["user"] for name in OURS} == {"10001:10001"}
    made = next(rest for word, rest in instructions() if word == "RUN" and "useradd" in rest)
    for folder in ("imagegate", "imagegate-evidence", "imagegate-routing"):
        assert f"/var/lib/{folder}" in made
