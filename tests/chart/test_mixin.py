"""The alerts and the dashboard: Prometheus takes every expression, each alert fires when it should and has a runbook."""

import json
import re

import pytest
import yaml
from charts import MIXIN, ROOT, objects, render, run

ALERTS = yaml.safe_load((MIXIN / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((MIXIN / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_prometheus_takes_the_alerts() -> None:
    done = run("promtool", "check", "rules", MIXIN / "alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    done = run("promtool", "test", "rules", MIXIN / "alerts_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tried() -> None:
    cases = yaml.safe_load((MIXIN / "alerts_test.yaml").read_text())["tests"]
    tried = {tried["alertname"] for case in cases for tried in case["alert_rule_test"] if tried.get("exp_alerts")}
    calm = {tried["alertname"] for case in cases for tried in case["alert_rule_test"] if not tried.get("exp_alerts")}
    names = {rule["alert"] for rule in RULES}
    assert tried == names
    assert calm == names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_has_a_runbook(rule: dict) -> None:
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert rule["alert"] in headings
    assert rule["annotations"]["runbook_url"].endswith(f"docs/operations.md#{rule['alert'].lower()}")
    assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_operator_gets_the_same_alerts_but_those_left_out() -> None:
    (rule,) = [parsed for parsed in objects(render("everything")) if parsed["kind"] == "PrometheusRule"]
    given = [rule for group in rule["spec"]["groups"] for rule in group["rules"]]
    assert given == [rule for rule in RULES if rule["alert"] != "AfterglowAckSlow"]


def test_grafana_gets_the_dashboard_as_it_is() -> None:
    (given,) = [parsed for parsed in objects(render("ha")) if parsed["metadata"]["name"].endswith("-dashboard")]
    assert given["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(given["data"]["afterglow.json"]) == DASHBOARD


def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path) -> None:
    expressions = [target["expr"] for panel in PANELS for target in panel["targets"]]
    for name, value in {"$__rate_interval": "5m", "$price_write": "0.005", "$price_read": "0.0004", "$namespace": ".*"}.items():
        expressions = [expression.replace(name, value) for expression in expressions]
    assert not any("$" in expression for expression in expressions)
    rules = [{"record": f"panel:{n}", "expr": expression} for n, expression in enumerate(expressions)]
    (tmp_path / "dashboard.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run("promtool", "check", "rules", tmp_path / "dashboard.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_overlap() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
