"""The board and the page on monitoring name the metrics that are there."""

import json
import re

from conftest import REPOSITORY

from flowerray.pipeline import metrics

BOARD = json.loads((REPOSITORY / "docs" / "grafana.json").read_text())
EXPORTED = {
    f"ray_{name}" if name == metrics.WAITING else f"ray_{name}_total"
    for name in metrics.DESCRIPTIONS
}


def queries():
    variables = BOARD["templating"]["list"]
    targets = [target for panel in BOARD["panels"] for target in panel.get("targets", [])]
    return [t["expr"] for t in targets] + [v["definition"] for v in variables if "definition" in v]


def queried():
    """Every metric that the board asks for."""
    return {name for query in queries() for name in re.findall(r"\bray_\w+", query)}


def test_the_board_queries_what_flowerray_exports():
    ours = {name for name in queried() if name.startswith("ray_flowerray_")}
    assert ours == EXPORTED  # test_nodes.py compares Ray's own with what a cluster serves


def test_the_page_on_monitoring_lists_every_metric():
    page = (REPOSITORY / "docs" / "monitoring.md").read_text()
    assert set(re.findall(r"ray_flowerray_\w+", page)) == EXPORTED


def test_the_board_can_be_imported_for_any_data_source():
    assert BOARD["schemaVersion"] >= 36 and BOARD["title"] == "flowerray"
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    used = set(re.findall(r"\$(\w+)", " ".join(queries()))) - {"__rate_interval"}
    assert used <= set(variables)
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in BOARD["panels"]:
        if panel["type"] == "row":
            continue
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(s == {"type": "prometheus", "uid": "${datasource}"} for s in sources)
        assert {"x", "y", "w", "h"} == set(panel["gridPos"])
