"""Tries for each line, a word and an address, to get out, and says what came of it."""
import http.client, json, os, socket, sys


def attempt(act):
    try:
        return act()
    except OSError as error:
        return type(error).__name__


def get(host, path):
    connection = http.client.HTTPConnection(host, 80, timeout=15)
    connection.request("GET", path)
    return connection.getresponse().status


def handed(path):
    with socket.socket(fileno=os.dup(int(os.environ["HANDED"]))) as connection:
        connection.settimeout(15)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: api.lab.example\r\n\r\n".encode())
        return len(connection.recv(100)) > 0


for line in sys.stdin:
    if line.startswith("{"):
        # As little MCP as a session takes.
        message = json.loads(line)
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
        if "id" in message:
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
        continue
    word, address = line.split()
    told = {
        "pid": os.getpid(),
        "name": attempt(lambda: get("api.lab.example", f"/{word}-name")),
        "address": attempt(lambda: get(address, f"/{word}-address")),
    }
    if "HANDED" in os.environ:
        told["handed"] = attempt(lambda: handed(f"/{word}-handed"))
    print(json.dumps(told), flush=True)
