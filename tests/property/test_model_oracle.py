"""Laws that every verdict obeys, in any world."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from harness.model.explain import Explainer
from harness.model.flow import Because, Cell, EndpointKind, Verdict, Via
from harness.model.manifest import load_text, to_yaml
from harness.model.oracle import Oracle, decide, expected
from harness.model.policy import LabelSelector, NetworkPolicy, Rule
from harness.model.profile import READINGS, REASONS
from harness.model.world import World
from tests.property.model_strategies import cells_of, rules, worlds

any_world = worlds(with_cluster_policies=True, unknown_addresses=True)
profiles = st.fixed_dictionaries(
    {}, optional={reason: st.sampled_from(readings) for reason, readings in READINGS.items()}
)


def verdicts(world: World) -> dict[Cell, tuple[Verdict, str]]:
    return {
        cell: (decision.verdict, decision.reason)
        for cell, decision in expected(world, cells_of(world)).items()
    }


@given(any_world, st.randoms())
def test_order_never_matters(world: World, random: object) -> None:
    def shuffled(items: object) -> tuple[object, ...]:
        found = list(items)  # type: ignore[call-overload]
        random.shuffle(found)  # type: ignore[attr-defined]
        return tuple(found)

    policies = {
        key: replace(
            policy,
            ingress=tuple(
                replace(rule, peers=shuffled(rule.peers), ports=shuffled(rule.ports))
                for rule in shuffled(policy.ingress)
            ),
            egress=shuffled(policy.egress),
            policy_types=shuffled(policy.policy_types),
        )
        for key, policy in shuffled(world.policies.items())
    }
    before, after = verdicts(world), verdicts(world.with_(policies=policies))
    assert {cell: said[0] for cell, said in before.items()} == {
        cell: said[0] for cell, said in after.items()
    }


@given(worlds(), rules, st.data())
def test_a_rule_more_never_closes_anything(world: World, rule: Rule, data: st.DataObject) -> None:
    if not world.policies:
        return
    key = data.draw(st.sampled_from(sorted(world.policies)))
    policy = world.policies[key]
    wider = replace(
        policy,
        ingress=(*policy.ingress, rule),
        # Without policyTypes a first egress rule would isolate: that is another change.
        egress=(*policy.egress, rule) if policy.policy_types or policy.egress else (),
    )
    after = verdicts(world.with_(policies={**world.policies, key: wider}))
    for cell, (before, _) in verdicts(world).items():
        if before is Verdict.ALLOW:
            assert after[cell][0] is Verdict.ALLOW, cell
        if after[cell][0] is Verdict.DENY:
            assert before is Verdict.DENY, cell


@given(worlds(), st.data())
def test_rules_in_two_policies_are_worth_the_same_as_in_one(
    world: World, data: st.DataObject
) -> None:
    if not world.policies:
        return
    key = data.draw(st.sampled_from(sorted(world.policies)))
    policy = world.policies[key]
    types = policy.policy_types or (("Ingress", "Egress") if policy.egress else ("Ingress",))
    first = replace(policy, policy_types=types, ingress=policy.ingress[:1], egress=())
    second = replace(policy, name="second", policy_types=types, ingress=policy.ingress[1:])
    split = {**world.policies, key: first, (policy.namespace, "second"): second}
    assert verdicts(world) == verdicts(world.with_(policies=split))


@given(any_world)
def test_a_policy_that_selects_nobody_changes_nothing(world: World) -> None:
    nobody = NetworkPolicy("x", "nobody", LabelSelector((("no", "body"),)))
    more = {**world.policies, nobody.key: nobody}
    assert verdicts(world) == verdicts(world.with_(policies=more))


@given(worlds(ordinary=True, max_policies=0))
def test_without_policies_pods_reach_each_other(world: World) -> None:
    for cell, (verdict, reason) in verdicts(world).items():
        if cell.target.kind is not EndpointKind.SERVICE:
            assert verdict is Verdict.ALLOW or reason == "self", cell


@given(any_world, profiles)
def test_what_is_certain_stays_so_whatever_the_implementation(
    world: World, profile: dict[str, str]
) -> None:
    settled = expected(world, cells_of(world), profile)
    for cell, (verdict, _) in verdicts(world).items():
        if verdict is not Verdict.UNDEFINED:
            assert settled[cell].verdict is verdict, cell


@given(any_world)
def test_each_verdict_has_its_grounds(world: World) -> None:
    for cell, decision in expected(world, cells_of(world)).items():
        assert decision.because, cell
        assert decision.text
        said = {because.verdict for because in decision.because}
        match decision.verdict:
            case Verdict.ALLOW:
                assert said == {Verdict.ALLOW}
            case Verdict.DENY:
                assert Verdict.DENY in said
            case Verdict.UNDEFINED:
                assert decision.reason in REASONS
        for because in decision.because:
            _grounds_exist(world, because)


def _grounds_exist(world: World, because: Because) -> None:
    names = {str(p) for p in world.policies.values()} | set(world.cluster_policies)
    assert set(because.policies) <= names
    if because.rule is not None:
        (name,) = because.policies
        policy = next(
            p
            for p in (*world.policies.values(), *world.cluster_policies.values())
            if str(p) == name
        )
        assert because.rule < len(getattr(policy, because.direction.lower()))


@given(any_world)
def test_one_cell_alone_is_decided_as_among_many(world: World) -> None:
    cells = cells_of(world)[::7]
    oracle = Oracle(world)
    for cell in cells:
        assert decide(world, cell) == oracle.decide(cell)


@given(any_world)
def test_explanations_come_to_the_oracles_verdict(world: World) -> None:
    explainer = Explainer(world)
    for cell, decision in expected(world, cells_of(world)[::5]).items():
        explanation = explainer.explain(cell)
        assert explanation.decision == decision
        assert explanation.text()
        assert explanation.data()["verdict"] == decision.verdict


@given(worlds(ordinary=True, with_cluster_policies=True))
def test_a_service_leads_where_its_pods_are(world: World) -> None:
    """To one backend, by the Service's address: the verdict is that of the pod's own port."""
    oracle = Oracle(world)
    for service in world.services.values():
        backends = world.backends(service)
        for cell in cells_of(world):
            if cell.via is not Via.SERVICE_IP or len(backends) != 1:
                continue
            (port,) = (
                p for p in service.ports if (p.port, p.protocol) == (cell.port, cell.protocol)
            )
            if not isinstance(port.target_port, int) or cell.source.kind is not EndpointKind.POD:
                continue
            direct = replace(
                cell,
                target=replace(cell.target, kind=EndpointKind.POD, name=backends[0].name),
                port=port.target_port,
                via=Via.POD_IP,
            )
            through, to_pod = oracle.decide(cell), oracle.decide(direct)
            if "ipblock-service" not in {
                b.code for b in through.because
            } and through.reason not in (
                "hairpin",
                "no-address",
            ):
                assert through.verdict is to_pod.verdict


@given(any_world)
def test_worlds_mean_the_same_after_a_trip_through_yaml(world: World) -> None:
    things = [
        *world.namespaces.values(),
        *world.pods.values(),
        *world.services.values(),
        *world.nodes.values(),
        *world.policies.values(),
        *world.cluster_policies.values(),
    ]
    loaded = load_text(to_yaml(things))
    assert not loaded.errors, [str(problem) for problem in loaded.errors]
    again = loaded.world().with_(externals=world.externals)
    assert verdicts(again) == verdicts(world)
