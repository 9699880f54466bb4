"""A server whose lists never end, go round, and change from page to page, and that says so again and again.

Every page says how many requests were heard (`heard`), and names tools that nobody may see among those that the host may.
"""

import json
import sys

LISTS = {"tools/list": "tools", "resources/list": "resources", "resources/templates/list": "resourceTemplates", "prompts/list": "prompts"}
# Tools on a page that are for the host, and as many that are not.
EACH = 20
heard = 0


def entry(name: str) -> dict:
    hints = {"readOnlyHint": True, "destructiveHint": False}
    return {
        "name": name,
        "uri": f"docs://{name}",
        "uriTemplate": f"docs://{name}/{{x}}",
        "inputSchema": {"type": "object"},
        "annotations": hints,
    }


def page(asked: dict) -> dict:
    cursor = asked.get("params", {}).get("cursor", "")
    way = cursor.split(" ")[0]
    if way == "round":
        return {"names": ["seen", "hidden"], "nextCursor": "round"}
    if way == "changes":
        # What one page has first, the next has last, and more than once.
        names = ["seen", "hidden", "seen-b", "hidden"] if heard % 2 else ["hidden", "hidden-b", "seen-b", "seen"]
        return {"names": names, "nextCursor": "changes"}
    names = [f"{kind}-{heard}-{number}-{'x' * 100}" for number in range(EACH) for kind in ("seen", "hidden")]
    return {"names": names, "nextCursor": f"endless {heard} {'y' * 200}"}


def say(message: dict) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")) + "\n")


for line in sys.stdin:
    asked = json.loads(line)
    heard += 1
    if asked["method"] in LISTS:
        came = page(asked)
        entries = [entry(name) for name in came.pop("names")]
        say({"id": asked["id"], "result": {LISTS[asked["method"]]: entries, **came, "_meta": {"heard": heard}}})
    elif asked["method"] == "notifications/roots/list_changed":
        for number in range(asked["params"]["times"]):
            kind = ("tools", "prompts", "resources")[number % 3]
            say({"method": f"notifications/{kind}/list_changed", "params": {"_meta": {"number": number}}})
    sys.stdout.flush()
