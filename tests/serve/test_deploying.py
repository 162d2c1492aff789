"""How applications come up, change, fail and go."""

import asyncio
import os
import time
from typing import Any

import httpx
import pytest

import actorrt
from actorrt import serve
from actorrt.exceptions import NotSerializableError
from actorrt.serve.exceptions import DeployFailedError

from .conftest import Serving


@serve.deployment(name="answers")
class Answers:
    def __init__(self, version: str) -> None:
        self.version = version
        self.config: Any = None

    async def reconfigure(self, config: Any) -> None:
        if config == "hang":
            await asyncio.Event().wait()
        if config == "refused":
            raise ValueError("not this one")
        self.config = config

    async def __call__(self, request: Any) -> Any:
        return [self.version, self.config, serve.get_replica_context().replica_id]


def answers(version: Any, **options: Any) -> serve.Application[Any]:
    return Answers.options(**options).bind(version)


def _wait_for_file(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)


def overview(app: str) -> Any:
    return serve.status().applications[app]


def until(app: str, status: str) -> Any:
    while (found := overview(app)).status != status:
        time.sleep(0.02)
    return found


def test_an_update_replaces_the_replicas_and_drops_no_request(serving: Serving) -> None:
    url = serving.run(answers("v1", num_replicas=2), "update")
    assert serving.client.get(url).json()[0] == "v1"
    serving.run(answers("v2", num_replicas=2), "update")
    assert {serving.client.get(url).json()[0] for _ in range(20)} == {"v2"}
    status = overview("update")
    assert (status.status, status.deployments["answers"].replica_states["RUNNING"]) == ("RUNNING", 2)


def test_a_new_user_config_reaches_the_replicas_that_run(serving: Serving) -> None:
    url = serving.run(answers("v1", user_config={"a": 1}), "config")
    _, config, replica = serving.client.get(url).json()
    assert config == {"a": 1}
    serving.run(answers("v1", user_config={"a": 2}), "config")
    assert serving.client.get(url).json() == ["v1", {"a": 2}, replica]
    with pytest.raises(
        DeployFailedError, match="user_config was refused, the one before it still serves: ValueError: not"
    ):
        serving.run(answers("v1", user_config="refused"), "config")
    assert serving.client.get(url).json() == ["v1", {"a": 2}, replica]
    serving.run(answers("v1", user_config=3), "config")
    assert serving.client.get(url).json() == ["v1", 3, replica]


def test_a_user_config_that_is_never_taken_fails_the_update_and_what_served_goes_on(serving: Serving) -> None:
    def run(config: Any, timeout_s: float) -> str:
        return serving.run(answers("v1", user_config=config, reconfigure_timeout_s=timeout_s), "hangs")

    url = run("good", 60)
    with pytest.raises(DeployFailedError, match=r"reconfigure\(\) did not end within 0.05 s \(reconfigure_timeout_s\)"):
        run("hang", 0.05)
    assert serving.client.get(url).json()[:2] == ["v1", "good"]
    assert run("better", 60) == url
    assert serving.client.get(url).json()[:2] == ["v1", "better"]


@serve.deployment(name="choosy")
class Choosy:
    """Refuses a configuration that names a file: once the file is there, and only if it can make another one."""

    def reconfigure(self, config: Any) -> None:
        if isinstance(config, list):
            wait_for, make = config
            _wait_for_file(wait_for)
            try:
                open(make, "x").close()
            except FileExistsError:
                raise ValueError("not me too") from None
        self.config = config

    async def __call__(self, request: Any) -> Any:
        if request.url.path.endswith("/die"):
            os._exit(1)
        return [self.config, serve.get_replica_context().replica_id]


def choosy(config: Any, replicas: int = 1) -> serve.Application[Any]:
    return Choosy.options(user_config=config, num_replicas=replicas).bind()


def test_after_a_refused_user_config_replicas_are_replaced_with_the_one_before(serving: Serving, tmp_path: Any) -> None:
    (here := tmp_path / "here").touch()
    url = serving.run(choosy("good"), "refused")
    with pytest.raises(DeployFailedError, match="not me too"):
        serving.run(choosy([str(here), str(here)]), "refused")
    config, first = serving.client.get(url).json()
    assert config == "good"
    assert serving.client.get(url + "/die").status_code >= 500
    config, second = serving.client.get(url).json()
    assert (config, second != first) == ("good", True)
    assert overview("refused").status == "DEPLOY_FAILED"


def test_a_refusal_is_not_charged_to_the_user_config_that_came_after(serving: Serving, tmp_path: Any) -> None:
    (here := tmp_path / "here").touch()
    url = serving.run(choosy("good"), "late")
    controller = actorrt.get_actor("controller", namespace="actorrt.serve")
    late = serve.build(choosy([str(tmp_path / "go"), str(here)]), "late", "/late")
    assert actorrt.get(controller.deploy.remote(late)) == ""
    while "UPDATING" not in overview("late").deployments["choosy"].replica_states:
        time.sleep(0.01)
    better = serve.build(choosy("better"), "late", "/late")
    assert actorrt.get(controller.deploy.remote(better)) == ""
    (tmp_path / "go").touch()
    assert actorrt.get(controller.wait_until_up.remote("late")) == ""
    assert serving.client.get(url).json()[0] == "better"


def test_what_only_some_replicas_refuse_none_of_them_has_in_the_end(serving: Serving, tmp_path: Any) -> None:
    (here := tmp_path / "here").touch()
    url = serving.run(choosy("good", 2), "some")
    with pytest.raises(DeployFailedError, match="not me too"):
        serving.run(choosy([str(here), str(tmp_path / "mine")], 2), "some")
    seen: dict[str, Any] = {}
    while len(seen) < 2 or set(map(str, seen.values())) != {"good"}:
        config, replica = serving.client.get(url).json()
        seen[replica] = config


def test_the_version_that_goes_on_after_a_failed_update_keeps_its_replicas(serving: Serving, tmp_path: Any) -> None:
    url = serving.run(choosy("good"), "keeps")

    @serve.deployment(name="choosy")
    class Raises:
        def __init__(self) -> None:
            raise OSError("never")

        async def __call__(self, request: Any) -> str:
            return "never"

    with pytest.raises(DeployFailedError, match="the version before it still serves"):
        serving.run(Raises.bind(), "keeps")
    first = serving.client.get(url).json()[1]
    assert serving.client.get(url + "/die").status_code >= 500
    assert serving.client.get(url).json()[1] != first
    assert overview("keeps").status == "DEPLOY_FAILED"
    # And it is restarted for as long as it takes if it is wanted again.
    serving.run(choosy("good"), "keeps")
    assert overview("keeps").status == "RUNNING"


def test_the_number_of_replicas_can_be_changed(serving: Serving) -> None:
    url = serving.run(answers("v1", num_replicas=3), "scale")
    one = set[str]()
    while len(one) < 3:
        one.add(serving.client.get(url).json()[2])
    serving.run(answers("v1", num_replicas=1), "scale")
    left = {serving.client.get(url).json()[2] for _ in range(20)}
    assert len(left) == 1
    assert left < one


def test_a_constructor_that_raises_is_reported_and_what_served_before_goes_on(serving: Serving) -> None:
    url = serving.run(answers("v1"), "raises")

    @serve.deployment(name="answers")
    class Raises:
        def __init__(self) -> None:
            raise OSError("no such model")

        async def __call__(self, request: Any) -> str:
            return "never"

    with pytest.raises(DeployFailedError) as failed:
        serving.run(Raises.bind(), "raises")
    said = str(failed.value)
    assert "application 'raises' could not be deployed: deployment 'answers': OSError: no such model (" in said
    assert "tried 3 times; the version before it still serves" in said
    assert overview("raises").status == "DEPLOY_FAILED"
    assert serving.client.get(url).json()[0] == "v1"
    serving.run(answers("v3"), "raises")
    assert serving.client.get(url).json()[0] == "v3"


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, ValueError])
def test_a_constructor_that_raises_an_error_without_text_is_reported_by_its_type(serving: Serving, error: Any) -> None:
    @serve.deployment(max_constructor_retry_count=1)
    class Silent:
        async def __init__(self) -> None:
            raise error

        async def __call__(self, request: Any) -> str:
            return "never"

    # What leaves the process is told by what it did.
    with pytest.raises(DeployFailedError, match=r"sys\.exit\(\)" if error is SystemExit else error.__name__):
        serving.run(Silent.bind(), "silent")
    serve.delete("silent")


def test_an_application_that_never_came_up_answers_503(serving: Serving) -> None:
    @serve.deployment(max_constructor_retry_count=1)
    class Never:
        def __init__(self) -> None:
            raise RuntimeError("broken")

        async def __call__(self, request: Any) -> str:
            return "never"

    with pytest.raises(DeployFailedError, match="RuntimeError: broken"):
        serving.run(Never.bind(), "never")
    answer = serving.client.get(serving.url + "/never")
    assert answer.status_code == 503
    assert answer.text == "the application is not available"


def test_what_no_machine_can_have_is_refused_by_name(serving: Serving) -> None:
    with pytest.raises(DeployFailedError, match=r"deployment .answers.: .*no machine can give it: 2 more wheel"):
        serving.run(answers("v1", ray_actor_options={"num_cpus": 1, "resources": {"wheel": 2}}), "unplaced")
    serve.delete("unplaced")


def test_what_waits_for_a_place_is_named_with_what_is_missing(serving: Serving) -> None:
    serving.run(answers("v1", actor_options={"num_cpus": 2}), "has-them")
    # A deployment that waits for ever: told to the controller without waiting for it, as a program in a thread would.
    spec = serve.build(answers("v1", actor_options={"num_cpus": 1}), "waits", "/waits")
    controller = actorrt.get_actor("controller", namespace="actorrt.serve")
    assert actorrt.get(controller.deploy.remote(spec)) == ""
    while "needs" not in (status := overview("waits")).message:
        time.sleep(0.05)
    assert status.status == "DEPLOYING"
    assert status.message == ("deployment 'answers': 0 of 1 replicas are ready: needs 1 CPU, but only 0 of 2 are free")
    assert actorrt.get(controller.deploy.remote(spec)) == ""
    serve.delete("has-them")
    until("waits", "RUNNING")
    serve.delete("waits")
    assert "waits" not in serve.status().applications


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_update_comes_to_its_end_where_all_cpus_are_taken(serving: Serving, replicas: int) -> None:
    options = {"num_replicas": replicas, "actor_options": {"num_cpus": 2 / replicas}}
    url = serving.run(answers("v1", **options), "full")
    serving.run(answers("v2", **options), "full")
    assert {serving.client.get(url).json()[0] for _ in range(20)} == {"v2"}
    serve.delete("full")


def test_a_deleted_application_is_not_found_and_its_running_request_is_answered(serving: Serving) -> None:
    @serve.deployment
    class Slow:
        def __init__(self) -> None:
            self.here = asyncio.Event()

        async def __call__(self, request: Any) -> str:
            if request.url.path.endswith("/here"):
                await self.here.wait()
                return "yes"
            self.here.set()
            await asyncio.sleep(0.3)
            return "done"

    url = serving.run(Slow.bind(), "goes")

    async def run() -> str:
        async with httpx.AsyncClient(timeout=20) as client:
            slow = asyncio.ensure_future(client.get(url))
            await client.get(url + "/here")
            await asyncio.to_thread(serve.delete, "goes")
            return (await slow).text

    assert asyncio.run(run()) == "done"
    assert serving.client.get(url).status_code == 404


def test_two_applications_cannot_have_one_prefix(serving: Serving) -> None:
    serving.run(answers("v1"), "prefix")
    with pytest.raises(ValueError, match="route_prefix '/prefix' belongs to application 'prefix'"):
        serve.run(answers("v1"), name="other", route_prefix="/prefix/")


def test_a_replica_cleans_up_when_it_goes(serving: Serving, tmp_path: Any) -> None:
    path = str(tmp_path / "gone")

    @serve.deployment
    class Cleans:
        def __init__(self, path: str) -> None:
            self.path = path

        async def __call__(self, request: Any) -> str:
            return "here"

        def __del__(self) -> None:
            with open(self.path, "w") as file:
                file.write("clean")

    serving.run(Cleans.bind(path), "cleans")
    serve.delete("cleans")
    assert (tmp_path / "gone").read_text() == "clean"


def test_an_unhealthy_replica_is_replaced(serving: Serving) -> None:
    @serve.deployment(health_check_period_s=0.05, health_check_timeout_s=5)
    class Sick:
        def __init__(self) -> None:
            self.well = True

        async def __call__(self, request: Any) -> str:
            if request.url.path.endswith("/sicken"):
                self.well = False
            return serve.get_replica_context().replica_id

        def check_health(self) -> None:
            if not self.well:
                raise RuntimeError("I am not well")

    url = serving.run(Sick.bind(), "sick")
    first = serving.client.get(url + "/sicken").text
    while serving.client.get(url).text == first:
        time.sleep(0.02)
    assert until("sick", "RUNNING").deployments["Sick"].replica_states["RUNNING"] == 1


def test_an_update_waits_until_the_new_replica_is_ready(serving: Serving, tmp_path: Any) -> None:
    url = serving.run(answers("v1"), "rolls")
    go = str(tmp_path / "go")

    @serve.deployment(name="answers")
    class Waits:
        async def __init__(self, go: str) -> None:
            await asyncio.to_thread(_wait_for_file, go)

        async def __call__(self, request: Any) -> Any:
            return ["v2"]

    controller = actorrt.get_actor("controller", namespace="actorrt.serve")
    actorrt.get(controller.deploy.remote(serve.build(Waits.bind(go), "rolls", "/rolls")))
    while "STARTING" not in overview("rolls").deployments["answers"].replica_states:
        assert serving.client.get(url).json()[0] == "v1"
    assert {serving.client.get(url).json()[0] for _ in range(20)} == {"v1"}
    (tmp_path / "go").touch()
    while serving.client.get(url).json()[0] == "v1":
        time.sleep(0.01)
    assert until("rolls", "RUNNING").deployments["answers"].replica_states["RUNNING"] == 1


@serve.deployment(name="front")
class Front:
    """Asks the deployment behind it, and starts only when it is told to: by a file, or by an error."""

    def __init__(self, behind: serve.DeploymentHandle, go: str = "") -> None:
        if go == "fails":
            raise OSError("not this time")
        if go:
            _wait_for_file(go)
        self.behind = behind

    async def __call__(self, request: Any) -> str:
        return await self.behind.remote()


@serve.deployment
class Behind:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self) -> str:
        return self.name


def behind(name: str) -> Any:
    return Behind.options(name=name).bind(name)


def test_what_an_update_drops_stays_for_what_served_before_until_that_has_gone(serving: Serving, tmp_path: Any) -> None:
    url = serving.run(Front.bind(behind("a")), "drops")
    with pytest.raises(DeployFailedError, match="the version before it still serves"):
        serving.run(Front.bind(behind("b"), "fails"), "drops")
    assert {serving.client.get(url).text for _ in range(20)} == {"a"}
    assert sorted(overview("drops").deployments) == ["b", "front"]

    go = tmp_path / "go"
    controller = actorrt.get_actor("controller", namespace="actorrt.serve")
    assert actorrt.get(controller.deploy.remote(serve.build(Front.bind(behind("c"), str(go)), "drops", "/drops"))) == ""
    while "STARTING" not in overview("drops").deployments["front"].replica_states:
        assert serving.client.get(url).text == "a"
    go.touch()
    while (answer := serving.client.get(url)).text != "c":
        assert (answer.status_code, answer.text) == (200, "a")
    until("drops", "RUNNING")
    for name in ("a", "b"):
        while actorrt.get(controller.has_deployment.remote("drops", name)):
            time.sleep(0.01)
    assert serving.client.get(url).text == "c"


def test_what_an_update_drops_makes_way_where_all_cpus_are_taken(serving: Serving) -> None:
    def wide(name: str) -> Any:
        return Behind.options(name=name, actor_options={"num_cpus": 2}).bind(name)

    free = Front.options(name="front", actor_options={"num_cpus": 0})
    serving.run(free.bind(wide("a")), "narrow")
    assert serving.client.get(serving.run(free.bind(wide("b")), "narrow")).text == "b"
    serve.delete("narrow")


@pytest.mark.parametrize(
    ("target", "arguments", "kind", "said"),
    [
        (lambda: answers, {}, TypeError, "an application is what .bind() of a @serve.deployment gives, not a value of"),
        (lambda: answers("v1").deployment, {}, TypeError, "is not bound: write answers.bind(...)"),
        (lambda: answers("v1"), {"route_prefix": "x"}, ValueError, "route_prefix must start with '/', not 'x'"),
        (lambda: answers("v1"), {"route_prefix": "/-/x"}, ValueError, "route_prefix must not lie under '/-'"),
        (lambda: answers("v1"), {"route_prefix": 1}, TypeError, "route_prefix must be a str or None, not int"),
        (lambda: answers("v1"), {"name": ""}, ValueError, "name must not be empty"),
        (lambda: answers("v1"), {"name": 1}, TypeError, "name must be a str, not int"),
        (lambda: answers("v1", actor_options={"num_cpus": "x"}), {}, DeployFailedError, "num_cpus"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    serving: Serving, target: Any, arguments: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as refused:
        serve.run(target(), **({"name": "wrong", "route_prefix": "/wrong"} | arguments))
    assert said in str(refused.value)
    serve.delete("wrong")


def test_an_argument_that_cannot_be_sent_is_named(serving: Serving) -> None:
    with pytest.raises(NotSerializableError, match="deployment 'answers'"):
        serve.run(answers(number for number in range(3)), name="unsendable", route_prefix="/unsendable")  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_said(serving: Serving) -> None:
    with pytest.raises(OSError, match="a proxy with other HTTP options listens on"):
        serve.start({"port": 1})
    assert serve.start() == serving.url
