"""junit.xml: one test case for each promise, so that any CI shows them; `unknown` is an error, `false` a failure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree

_NOT_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(verdict: Mapping[str, Any]) -> bytes:
    """The document of verdict.json as a JUnit report."""
    promises = verdict["promises"]
    name = f"{verdict['scenario']} {verdict['variant']}"
    counts = {
        "tests": str(len(promises)),
        "failures": str(sum(promise["verdict"] == "false" for promise in promises)),
        "errors": str(sum(promise["verdict"] == "unknown" for promise in promises)),
        "skipped": "0",
    }
    suites = ElementTree.Element("testsuites", {"name": "breakwater", **counts})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, **counts})
    properties = ElementTree.SubElement(suite, "properties")
    for key in ("run_id", "environment", "seed", "commit", "verdict"):
        ElementTree.SubElement(properties, "property", {"name": key, "value": xml_text(str(verdict[key]))})
    for promise in promises:
        _case(suite, name, promise)
    ElementTree.indent(suites)
    document: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(suite: ElementTree.Element, classname: str, promise: Mapping[str, Any]) -> None:
    attributes = {"classname": classname, "name": xml_text(f"{promise['id']}: {promise['title']}")}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    words = f"expected {promise['compare']} {promise['target']:g} {promise['unit']}, measured {_value(promise)}"
    if promise["verdict"] != "true":
        tag = "failure" if promise["verdict"] == "false" else "error"
        told = ElementTree.SubElement(case, tag, {"message": xml_text(promise["reason"]), "type": promise["verdict"]})
        told.text = xml_text("\n".join([words, *_exhibits(promise)]))
    ElementTree.SubElement(case, "system-out").text = xml_text(
        f"{words}, out of {promise['out_of']}: {promise['reason']}"
    )


def _value(promise: Mapping[str, Any]) -> str:
    return "nothing" if promise["value"] is None else f"{promise['value']:g} {promise['unit']}"


def _exhibits(promise: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for exhibit in promise["evidence"]:
        lines.append(f"{exhibit['title']} ({len(exhibit['rows'])} of {exhibit['total']} shown): {exhibit['columns']}")
        lines.extend("  " + "  ".join("-" if cell is None else str(cell) for cell in row) for row in exhibit["rows"])
    return lines


def xml_text(words: str) -> str:
    """Without the control characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", words)
