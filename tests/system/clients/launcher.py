"""What npx and its like do: fetches before it speaks, then is an MCP server, whose tools try to fetch again.

launcher.py HOST GO PATH...: GETs each path over one connection, says a line that is no message, and speaks when the file
GO is there. A path that begins with `~` is left half read, on a connection of its own; `*N` are N paths, and with `!`
it ends when it has said one message.
"""
import http.client
import json
import os
import socket
import sys
import time

HOST, GO, *PATHS = sys.argv[1:]
BRIEF = "!" in PATHS
PATHS = [path for path in PATHS if path != "!"]


def connect():
    connection = http.client.HTTPSConnection(HOST, 443, timeout=15)
    # A connection that was cut is not to be opened anew behind the test's back.
    connection.connect()
    connection.auto_open = 0
    return connection


def fetch(connection, method, path, body=None, headers=None):
    try:
        connection = connection or connect()
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return {"status": answer.status, "text": answer.read().decode("latin-1")[:300]}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}


def dial(host, port):
    try:
        socket.create_connection((host, port), 5).close()
        return {"status": 0}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}


def half(path):
    connection = connect()
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read(1000)
    return connection, answer


def rest(answer):
    """Whether what was left half read goes on to its end."""
    try:
        answer.read()
        return {"status": answer.status}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}


before = {}
kept = halved = None
try:
    address = socket.gethostbyname(HOST)
    kept = connect()
    for path in PATHS:
        if path.startswith("~"):
            halved = half(path[1:])
        elif path.startswith("*"):
            for number in range(int(path[1:])):
                fetch(kept, "GET", f"/many/{number}")
        else:
            before[path] = fetch(kept, "GET", path)
    before["HEAD"] = fetch(None, "HEAD", PATHS[0])
    before["POST"] = fetch(None, "POST", PATHS[0], "{}")
    before["MCP"] = fetch(None, "GET", PATHS[0], None, {"Mcp-Session-Id": "x"})
    before["clear"] = dial(HOST, 80)
except OSError as error:
    before["error"] = type(error).__name__
    address = None

print("Need to install the following packages:", flush=True)
while not os.path.exists(GO):
    time.sleep(0.02)

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        result = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "launched", "version": "1.0.0"}}
    else:
        tool = message["params"]["name"]
        if tool == "before":
            said = before
        elif tool == "kept":
            said = fetch(kept, "GET", PATHS[0])
        elif tool == "half":
            said = rest(halved[1])
        elif tool == "name":
            said = fetch(None, "GET", PATHS[0])
        else:
            said = dial(address, 443)
        result = {"content": [{"type": "text", "text": json.dumps(said)}]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    if BRIEF:
        sys.exit()
